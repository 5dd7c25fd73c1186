//! Who makes whom when a tree is restored, so that all have their parent, session and process group
//! again. Pure arithmetic on ids.
//!
//! fork(2) gives a child the session that its parent is in at that moment, and setsid(2) only makes new
//! ones. So a session leader makes some of its children before it calls setsid. What no living process
//! can give is given by helpers that are gone before the program runs on: the leader of a session or
//! group that has ended; or somebody else in a session who makes a process that then becomes the child
//! of an ancestor, as it once did.

use crate::error::Obstacle;
use ckpt_format::task::task_flags::*;
use std::collections::{BTreeSet, HashMap};

/// What matters of a process here; ids as the tree sees them.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub pid: i32,
    pub ppid: i32,
    pub pgid: i32,
    pub sid: i32,
    /// Its id for messages.
    pub seen: i32,
    /// Position among the children of its parent.
    pub rank: usize,
    pub zombie: bool,
    pub has_terminal: bool,
    pub tids: Vec<i32>,
    /// Index of the first node with the same address space, descriptors, directories, handlers.
    pub shares: [usize; 4],
}

const SHARED: [&str; 4] = ["memory", "descriptors", "directories", "signal handlers"];

/// A process to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    pub who: Who,
    /// Index of its creator in [`Tree::made`], which comes before it; `None` for the root.
    pub creator: Option<usize>,
    /// Those of `task_flags` that are decided here.
    pub flags: u32,
}

/// Which process it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Index of a [`Node`].
    Node(usize),
    Helper {
        pid: i32,
        pgid: i32,
        sid: i32,
    },
}

/// The decisions.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// The root first.
    pub made: Vec<Made>,
    pub obstacles: Vec<Obstacle>,
}

/// A session, as it will be: `None` is that of whoever runs the image.
type Session = Option<i32>;

/// Decides. `nodes`: the root first. `outside`: living processes outside of the tree that lead sessions
/// or groups of some inside.
#[must_use]
pub fn arrange(nodes: &[Node], outside: &[(i32, String)]) -> Tree {
    let mut work = Work::new(nodes, outside);
    work.wishes();
    work.births();
    work.strangers();
    work.check_adoptions();
    work.groups();
    work.sharing();
    work.finish()
}

/// A process while decisions are taken: nodes by their index, then helpers.
#[derive(Clone, Copy, Debug)]
struct Entity {
    who: Who,
    creator: Option<usize>,
    flags: u32,
    /// In which it ends up, and which it has at first.
    session: Session,
    birth: Session,
    /// It calls setsid(2).
    leads: bool,
    /// Its creator is known.
    settled: bool,
    /// Helpers: who adopts what they make.
    adopter: Option<usize>,
}

struct Work<'a> {
    nodes: &'a [Node],
    outside: &'a [(i32, String)],
    by_pid: HashMap<i32, usize>,
    /// Node indices, parents first, siblings by rank.
    order: Vec<usize>,
    parent: Vec<usize>,
    entities: Vec<Entity>,
    /// The session that a node needs to be born in, if it matters.
    wish: Vec<Option<Session>>,
    used: BTreeSet<i32>,
    helpers: HashMap<i32, usize>,
    /// The root leads its group, and needs groups of its own: a shell.
    own_group: bool,
    obstacles: Vec<Obstacle>,
}

impl<'a> Work<'a> {
    fn new(nodes: &'a [Node], outside: &'a [(i32, String)]) -> Self {
        let by_pid: HashMap<i32, usize> = nodes.iter().enumerate().map(|(i, n)| (n.pid, i)).collect();
        let root = &nodes[0];
        let own_session = root.sid == root.pid && !root.has_terminal;
        let entity = |(index, node): (usize, &Node)| {
            let session = if node.sid == root.sid && !own_session { None } else { Some(node.sid) };
            Entity {
                who: Who::Node(index),
                creator: None,
                flags: if session.is_none() { SESSION_OF_CALLER } else { 0 },
                session,
                birth: None,
                leads: session == Some(node.pid),
                settled: index == 0,
                adopter: None,
            }
        };
        let ids = nodes.iter().flat_map(|n| [n.pid, n.pgid, n.sid].into_iter().chain(n.tids.iter().copied()));
        let mut work = Self {
            nodes,
            outside,
            order: Vec::new(),
            parent: vec![0; nodes.len()],
            entities: nodes.iter().enumerate().map(entity).collect(),
            wish: vec![None; nodes.len()],
            used: ids.chain(outside.iter().map(|(id, _)| *id)).collect(),
            helpers: HashMap::new(),
            own_group: root.pgid == root.pid
                && (root.sid == root.pid || nodes.iter().any(|n| n.sid == root.sid && n.pgid != root.pgid)),
            obstacles: Vec::new(),
            by_pid,
        };
        work.sort();
        work
    }

    /// Finds parents, and an order in which they come first.
    fn sort(&mut self) {
        let mut children = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate().skip(1) {
            match self.by_pid.get(&node.ppid) {
                Some(&parent) if parent != index && !self.nodes[parent].zombie => {
                    self.parent[index] = parent;
                    children[parent].push(index);
                }
                _ => {
                    self.refuse(index, format!("parent: {} is not in the image", node.ppid), "try again");
                    children[0].push(index);
                }
            }
        }
        for list in &mut children {
            list.sort_by_key(|i| self.nodes[*i].rank);
        }
        self.order.push(0);
        let mut at = 0;
        while let Some(&index) = self.order.get(at) {
            self.order.extend(&children[index]);
            at += 1;
        }
    }

    fn refuse(&mut self, node: usize, what: String, remedy: &str) {
        self.obstacles.push(Obstacle {
            pid: self.nodes[node].seen,
            what,
            remedy: remedy.into(),
            ..Obstacle::default()
        });
    }

    /// In which session each must be born, if its parent can see to that: its own, but a leader that of
    /// children which are in another one.
    fn wishes(&mut self) {
        let mut possible: Vec<Vec<Session>> = vec![vec![None]; self.nodes.len()];
        for &index in &self.order[1..] {
            let parent = self.parent[index];
            let mut sessions = vec![self.entities[parent].session];
            if self.entities[parent].leads {
                sessions.extend(possible[parent].iter().copied());
            }
            possible[index] = sessions;
        }
        for at in (0..self.order.len()).rev() {
            let index = self.order[at];
            let entity = &self.entities[index];
            if !entity.leads {
                self.wish[index] = Some(entity.session);
            }
            let parent = self.parent[index];
            if let Some(wish) = self.wish[index]
                && index != 0
                && self.entities[parent].leads
                && wish != self.entities[parent].session
                && possible[parent].contains(&wish)
            {
                // The first child in order has the last word.
                self.wish[parent] = Some(wish);
            }
        }
    }

    /// Those whom their parent can make.
    fn births(&mut self) {
        for at in 1..self.order.len() {
            let index = self.order[at];
            let parent = self.parent[index];
            let Entity { session, birth, leads, .. } = self.entities[parent];
            let wish = self.wish[index].unwrap_or(session);
            let before = leads && wish == birth && wish != session;
            let child = &mut self.entities[index];
            child.birth = wish;
            if wish == session || before {
                child.creator = Some(parent);
                child.settled = true;
                child.flags |= if before { BEFORE_SETSID } else { 0 };
            }
        }
    }

    /// All others: made by somebody in their session, and left to their parent.
    fn strangers(&mut self) {
        let mut left: Vec<usize> =
            self.order.iter().copied().filter(|i| !self.entities[*i].settled).collect();
        while !left.is_empty() {
            let before = left.len();
            left.retain(|index| !self.through_member(*index));
            if left.len() == before {
                // None of them can be made yet: one needs a leader that is gone, or cannot be made at all.
                let done = left.iter().position(|index| self.through_gone_leader(*index));
                let index = left.remove(done.unwrap_or(0));
                if done.is_none() {
                    self.give_up(index);
                }
            }
        }
    }

    /// A helper made by a member of the session below the adopter makes it.
    fn through_member(&mut self, index: usize) -> bool {
        let (session, adopter) = (self.entities[index].birth, self.parent[index]);
        let old = self.entities.iter().position(|e| e.adopter == Some(adopter) && e.session == session);
        let helper = old.or_else(|| {
            let fits = |i: &usize| {
                let e = &self.entities[*i];
                e.settled && e.session == session && self.is_below(*i, adopter)
            };
            let members: Vec<usize> = (0..self.entities.len()).filter(fits).collect();
            let leads = |i: &&usize| self.entities[**i].leads;
            let member = *members.iter().find(leads).or(members.first())?;
            let (pgid, flags) = match self.entities[member].who {
                Who::Node(node) => (self.nodes[node].pgid, self.pgrp_of_caller(node)),
                Who::Helper { pgid, .. } => (pgid, 0),
            };
            let who = Who::Helper { pid: self.unused_id(), pgid, sid: session.unwrap_or(self.nodes[0].sid) };
            Some(self.helper(who, member, session, flags, Some(adopter)))
        });
        helper.is_some_and(|helper| self.leave_to_parent(index, helper))
    }

    /// A helper with the id of the leader that is gone makes it.
    fn through_gone_leader(&mut self, index: usize) -> bool {
        let adopter = self.parent[index];
        let Some(id) = self.entities[index].birth else { return false };
        let taken = self.by_pid.contains_key(&id)
            || id <= 0
            || self.is_outside(id).is_some()
            || self.helper_with(id).is_some()
            || !self.entities[adopter].settled;
        if taken {
            return false;
        }
        let who = Who::Helper { pid: id, pgid: id, sid: id };
        let helper = self.helper(who, adopter, Some(id), SESSION_LEADER | PGRP_LEADER, Some(adopter));
        self.entities[helper].leads = true;
        self.leave_to_parent(index, helper)
    }

    fn give_up(&mut self, index: usize) {
        let (sid, parent) = (self.nodes[index].sid, self.parent[index]);
        let why = match self.is_outside(sid) {
            Some(name) => format!("whose leader ({name}) runs on outside of the image"),
            None => format!("from which its parent {} cannot have got it", self.nodes[parent].seen),
        };
        let what = format!("session: it is in session {sid}, {why}");
        self.refuse(index, what, "dump a process that all of that session descend from, or let it end first");
        let entity = &mut self.entities[index];
        (entity.creator, entity.settled) = (Some(parent), true);
    }

    fn leave_to_parent(&mut self, index: usize, helper: usize) -> bool {
        let entity = &mut self.entities[index];
        (entity.creator, entity.settled) = (Some(helper), true);
        self.entities[self.parent[index]].flags |= ADOPTS;
        true
    }

    fn helper(
        &mut self,
        who: Who,
        creator: usize,
        session: Session,
        flags: u32,
        adopter: Option<usize>,
    ) -> usize {
        let of_caller = if session.is_none() { SESSION_OF_CALLER } else { 0 };
        if let Who::Helper { pid, .. } = who {
            self.helpers.insert(pid, self.entities.len());
        }
        self.entities.push(Entity {
            who,
            creator: Some(creator),
            flags: HELPER | flags | of_caller,
            session,
            birth: self.entities[creator].session,
            leads: false,
            settled: true,
            adopter,
        });
        self.entities.len() - 1
    }

    fn helper_with(&self, id: i32) -> Option<usize> {
        self.helpers.get(&id).copied()
    }

    fn is_outside(&self, id: i32) -> Option<&'a str> {
        self.outside.iter().find(|(other, _)| *other == id).map(|(_, name)| name.as_str())
    }

    /// An id that nobody of the tree has: the next above all, where that is an id everywhere.
    fn unused_id(&mut self) -> i32 {
        // Below the smallest and the largest pid_max that are common.
        const LIMITS: [i32; 2] = [32767, 4_194_303];
        let highest = self.used.last().copied().unwrap_or(0).max(300);
        let id = if LIMITS.contains(&highest) {
            (300..highest).rev().find(|id| !self.used.contains(id)).unwrap_or(highest + 1)
        } else {
            highest + 1
        };
        self.used.insert(id);
        id
    }

    /// Whether the creators of `index` lead up to `ancestor`.
    fn is_below(&self, index: usize, ancestor: usize) -> bool {
        self.creators(index).any(|i| i == ancestor)
    }

    /// The creator, its creator, and so on.
    fn creators(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(self.entities[index].creator, |i| self.entities[*i].creator)
            .take(self.entities.len())
    }

    /// What a helper leaves becomes the child of the nearest subreaper.
    fn check_adoptions(&mut self) {
        for index in 1..self.nodes.len() {
            let Some(helper) = self.entities[index].creator.filter(|c| *c >= self.nodes.len()) else {
                continue;
            };
            let nearest = self.creators(helper).find(|i| self.entities[*i].flags & ADOPTS != 0);
            let parent = self.parent[index];
            if nearest != Some(parent) {
                let parent = self.nodes[parent].seen;
                let what = format!("parent: {parent} adopted it past another process that adopts orphans");
                self.refuse(index, what, "let one of them end first");
            }
        }
    }

    /// Whether, as a flag, a node's process group becomes that of whoever runs the image.
    fn pgrp_of_caller(&self, node: usize) -> u32 {
        if !self.own_group && self.nodes[node].pgid == self.nodes[0].pgid { PGRP_OF_CALLER } else { 0 }
    }

    fn groups(&mut self) {
        for at in 0..self.order.len() {
            let index = self.order[at];
            let of_caller = self.pgrp_of_caller(index);
            self.entities[index].flags |= of_caller;
            let group = self.nodes[index].pgid;
            if of_caller != 0 || self.helper_with(group).is_some() {
                continue;
            }
            match (self.by_pid.get(&group), self.is_outside(group)) {
                (Some(&leader), _) if self.nodes[leader].pgid == group => {}
                (Some(_), _) => {
                    let what = format!("process group: the leader of its group {group} is now in another");
                    self.refuse(index, what, "let it end first");
                }
                (None, Some(name)) => {
                    let what = format!("process group: its leader {group} ({name}) is outside of the image");
                    self.refuse(index, what, "dump a process that both descend from, or let it end first");
                }
                (None, None) => self.gone_group_leader(index, group),
            }
        }
    }

    fn gone_group_leader(&mut self, index: usize, group: i32) {
        let session = self.entities[index].session;
        let member = self.order.iter().copied().find(|i| self.entities[*i].session == session);
        let sid = self.nodes[index].sid;
        let who = Who::Helper { pid: group, pgid: group, sid };
        self.helper(who, member.unwrap_or(index), session, PGRP_LEADER, None);
    }

    /// Only who is made by clone(2) shares, and only with its creator.
    fn sharing(&mut self) {
        for (kind, what) in SHARED.iter().enumerate() {
            let mut tops: HashMap<usize, usize> = HashMap::new();
            for at in 0..self.order.len() {
                let index = self.order[at];
                if self.nodes[index].zombie {
                    continue;
                }
                let of = |i: usize| self.nodes[i].shares[kind];
                let key = of(index);
                let nodes = self.nodes.len();
                if self.entities[index].creator.is_some_and(|c| c < nodes && of(c) == key) {
                    continue;
                }
                if let Some(top) = tops.insert(key, index) {
                    let other = self.nodes[top].seen;
                    let text = format!("{what}: shared with PID {other}, which is not its parent");
                    self.refuse(index, text, "let one of them end first");
                }
            }
        }
    }

    /// Creators first.
    fn finish(mut self) -> Tree {
        let mut made_by = vec![Vec::new(); self.entities.len()];
        // In the order of the parents' lists; helpers last, as they were added.
        for index in self.order[1..].iter().copied().chain(self.nodes.len()..self.entities.len()) {
            if let Some(creator) = self.entities[index].creator {
                made_by[creator].push(index);
            }
        }
        let mut tree = Tree::default();
        let mut stack: Vec<(usize, Option<usize>)> = vec![(0, None)];
        while let Some((index, creator)) = stack.pop() {
            let Entity { who, flags, .. } = self.entities[index];
            stack.extend(made_by[index].iter().rev().map(|child| (*child, Some(tree.made.len()))));
            tree.made.push(Made { who, creator, flags });
        }
        if tree.made.len() < self.entities.len() && self.obstacles.is_empty() {
            self.refuse(0, "tree: no order in which it could be made was found".into(), "try again");
        }
        tree.obstacles = self.obstacles;
        tree
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
