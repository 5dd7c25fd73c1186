//! A process and everything below it, stopped at one moment.

use super::freeze::Seized;
use super::frozen::Frozen;
use super::gadget::Gadgets;
use super::remote::RemoteMemory;
use super::tracee::{Tracee, take_newborn};
use super::undertaker::Undertaker;
use crate::collect::children::Children;
use crate::collect::proc;
use crate::error::{Failure, Obstacle};
use crate::freezer::Freezer;
use crate::sys::process::{self, Shared};
use crate::{failpoint, sys};
use anyhow::{Context, Result, bail};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// How long a tree may keep changing while it is being stopped.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stopped processes. Dropping it undoes everything in all of them and lets them run on.
#[derive(Debug)]
pub struct FrozenTree {
    /// The root first, in the order in which they were found.
    pub live: Vec<Frozen>,
    pub zombies: Vec<Zombie>,
    since: Instant,
    /// Of the cgroup that they are in.
    freezer: Option<Freezer>,
    /// Waited for when they run on.
    undertaker: Undertaker,
}

/// A process that has ended, and whose parent does not know yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zombie {
    pub pid: i32,
}

/// How frozen processes are let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They go on as if nothing had been.
    Run,
    /// They are left in a group stop, as by SIGSTOP.
    Stop,
    /// SIGKILL.
    Kill,
}

/// What came of stopping a child.
enum Found {
    Stopped(Box<Frozen>),
    Zombie,
    /// It has ended, and somebody knows.
    Gone,
    /// A process of the tree traces it: an obstacle, which is found in other ways.
    Traced,
}

impl FrozenTree {
    /// Stops the process `root` and, if `whole`, all that descend from it; see [`Frozen`] for the state
    /// in which each of them is then.
    ///
    /// A process is stopped with all of its threads before its children are looked at, so each stopped
    /// one has all the children that it will ever have; when none of the stopped ones has a child that is
    /// not stopped (or a zombie), there are no others.
    ///
    /// With `freezer` they are in a frozen cgroup, which is what it was before when they are let go.
    ///
    /// # Errors
    /// [`Failure`] for what has an exit status of its own; all run on then.
    pub fn freeze(root: i32, whole: bool, freezer: Option<Freezer>) -> Result<Self> {
        sys::fd::raise_descriptor_limit();
        // While it still runs. If we may not, seizing it says so better.
        let maps = proc::read(&format!("/proc/{root}/maps")).unwrap_or_default();
        let gadgets = RemoteMemory::open(root).ok().and_then(|m| Gadgets::find(&m, &maps));
        let undertaker = Undertaker::start();
        let since = Instant::now();
        let mut seized = Seized::new(whole);
        let root_frozen = Frozen::stop(root, &mut seized, gadgets)?;
        let mut tree = Self { live: vec![root_frozen], zombies: Vec::new(), since, freezer, undertaker };
        if whole {
            check_not_above_us(root)?;
            tree.descend(&mut seized)?;
        }
        tree.let_go_of_strangers(seized);
        tree.undertaker.dismiss();
        crate::report::lap("stopped");
        failpoint::hit("after-freeze")?;
        if let Some(freezer) = &tree.freezer {
            freezer.thaw(&tree.pids().into_iter().chain(tree.zombies.iter().map(|z| z.pid)).collect())?;
        }
        tree.prepare()?;
        Ok(tree)
    }

    /// Traces everything below the root before anything waits: from then on nobody can be born unseen,
    /// and those who are born stop at once.
    fn surround(&self, lists: &mut Children, seized: &mut Seized) {
        const ROUNDS: usize = 50;
        let mut ended = HashSet::new();
        for _ in 0..ROUNDS {
            lists.refresh();
            let mut new = false;
            let mut stack = lists.of(self.live[0].pid(), &self.live[0].tids());
            // The youngest first: they are the ones that start others.
            while let Some(pid) = stack.pop() {
                match if ended.contains(&pid) { None } else { seized.seize(pid) } {
                    Some((tids, any_new)) => {
                        new |= any_new;
                        stack.extend(lists.of(pid, &tids));
                    }
                    None => drop(ended.insert(pid)),
                }
            }
            if !new {
                return;
            }
        }
    }

    /// Stops descendants until there is nothing new.
    fn descend(&mut self, seized: &mut Seized) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut known: HashSet<i32> = self.pids().into_iter().collect();
        let mut dead: HashSet<i32> = HashSet::new();
        let mut lists = Children::default();
        self.surround(&mut lists, seized);
        loop {
            let mut changed = self.bury_the_dead(&mut known)?;
            self.zombies.clear();
            lists.refresh();
            let mut parent = 0;
            while let Some(frozen) = self.live.get(parent) {
                for pid in lists.of(frozen.pid(), &frozen.tids()) {
                    if known.contains(&pid) {
                        continue;
                    }
                    // Its parent is stopped: it stays what it is.
                    if dead.contains(&pid) {
                        self.zombies.push(Zombie { pid });
                        continue;
                    }
                    match self.stop(pid, seized)? {
                        Found::Stopped(frozen) => {
                            self.live.push(*frozen);
                            known.insert(pid);
                            changed = true;
                        }
                        Found::Zombie => {
                            self.zombies.push(Zombie { pid });
                            dead.insert(pid);
                            // What it had for children has other parents now, perhaps some that we saw before.
                            changed = true;
                        }
                        Found::Gone => changed = true,
                        Found::Traced => {}
                    }
                }
                parent += 1;
            }
            if !changed {
                return Ok(());
            }
            if Instant::now() > deadline {
                let root = self.live[0].pid();
                bail!(
                    "the processes below PID {root} have kept changing for {} s; stop them (kill -STOP) first",
                    PATIENCE.as_secs()
                );
            }
        }
    }

    /// Lets those run on that we trace, but that do not descend from the root (any more): their parents
    /// have ended.
    fn let_go_of_strangers(&self, seized: Seized) {
        drop(seized);
        loop {
            let ours: HashSet<i32> = self.live.iter().flat_map(Frozen::tids).collect();
            let newborn = take_newborn();
            if newborn.is_empty() {
                return;
            }
            newborn.into_iter().filter(|id| !ours.contains(id)).for_each(|id| drop(Tracee::adopt(id, id)));
        }
    }

    fn stop(&self, pid: i32, seized: &mut Seized) -> Result<Found> {
        let error = match Frozen::stop(pid, seized, None) {
            Ok(frozen) => return Ok(Found::Stopped(Box::new(frozen))),
            Err(error) => error,
        };
        if matches!(error.downcast_ref::<Failure>(), Some(Failure::Vanished(_))) {
            let stat = proc::stat_of(&format!("/proc/{pid}"));
            return Ok(if stat.is_some_and(|s| s.state == b'Z') { Found::Zombie } else { Found::Gone });
        }
        let status = proc::read(&format!("/proc/{pid}/status")).unwrap_or_default();
        let tracer = proc::field(&status, "TracerPid").and_then(|t| t.parse().ok()).unwrap_or(0);
        // Perhaps it is not stopped yet.
        let root = &self.live[0];
        if root.tids().contains(&tracer) || (tracer != 0 && ancestors(tracer).any(|a| a == root.pid())) {
            return Ok(Found::Traced);
        }
        Err(error)
    }

    /// Forgets stopped processes that somebody has killed. Tells whether there were any.
    fn bury_the_dead(&mut self, known: &mut HashSet<i32>) -> Result<bool> {
        let mut found = false;
        let mut index = 0;
        while let Some(frozen) = self.live.get(index) {
            let pid = frozen.pid();
            if !crate::preflight::is_gone(pid) {
                index += 1;
                continue;
            }
            if index == 0 {
                bail!(Failure::Vanished(pid));
            }
            // Its parent can see its end only after us.
            self.live.remove(index).reap(Instant::now() + Duration::from_secs(5));
            known.remove(&pid);
            found = true;
        }
        Ok(found)
    }

    /// Corrections in all of them; those with the same memory share our mapping in it.
    fn prepare(&mut self) -> Result<()> {
        let pids = self.pids();
        let owners = match process::sharing(&pids, Shared::Memory) {
            Ok(owners) => owners,
            Err(_) if pids.len() == 1 => vec![0],
            Err(e) => return Err(e).context("kcmp(2), to find processes that share memory"),
        };
        for (index, owner) in owners.into_iter().enumerate() {
            let like = self.live[index.saturating_sub(1)].gadgets().or_else(|| self.live[0].gadgets());
            if owner != index && self.live[owner].obstacles().is_empty() {
                let mapped = self.live[owner].mapped()?;
                self.live[index].borrow(mapped);
            }
            self.live[index].prepare(like)?;
        }
        Ok(())
    }

    fn pids(&self) -> Vec<i32> {
        self.live.iter().map(Frozen::pid).collect()
    }

    /// What prevents these processes from being saved, found while freezing them. If there is anything,
    /// no system call is ever injected.
    #[must_use]
    pub fn obstacles(&self) -> Vec<Obstacle> {
        self.live.iter().flat_map(|f| f.obstacles()).cloned().collect()
    }

    /// Threads of all processes.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        self.live.iter().map(|f| f.threads().len()).sum()
    }

    /// Lets all of them go; returns how long the root was stopped.
    ///
    /// # Errors
    /// When one of them died meanwhile. The others are let go all the same.
    pub fn end(mut self, fate: Fate) -> Result<Duration> {
        let (since, mut first_error) = (self.since, None);
        let mut note = |result: Result<()>| {
            if let Err(error) = result {
                first_error.get_or_insert(error);
            }
        };
        match fate {
            Fate::Kill => {
                // None of them runs in between, so none can leave anything behind.
                self.live.iter().for_each(|f| note(f.signal(libc::SIGKILL)));
                let deadline = Instant::now() + Duration::from_secs(5);
                std::mem::take(&mut self.live).into_iter().for_each(|f| f.reap(deadline));
            }
            Fate::Run | Fate::Stop => {
                self.live.iter_mut().for_each(|f| note(f.unmap()));
                if fate == Fate::Stop {
                    self.live.iter().for_each(|f| note(f.signal(libc::SIGSTOP)));
                }
            }
        }
        drop(self);
        first_error.map_or(Ok(since.elapsed()), Err)
    }
}

impl Drop for FrozenTree {
    fn drop(&mut self) {
        // Before any of them runs: those that borrow our mapping must not lose it while they use it,
        // nor may somebody else's take its place.
        for frozen in &mut self.live {
            frozen.leave();
        }
        if let Some(freezer) = &mut self.freezer {
            freezer.restore();
        }
    }
}

/// Parent, its parent, and so on.
fn ancestors(pid: i32) -> impl Iterator<Item = i32> {
    let parent = |pid: &i32| {
        let stat = proc::stat_of(&format!("/proc/{pid}"))?;
        (stat.ppid > 0).then_some(stat.ppid)
    };
    std::iter::successors(parent(&pid), parent)
}

/// Whether we are in the tree below this process.
#[must_use]
pub fn is_above_us(root: i32) -> bool {
    ancestors(std::process::id() as i32).any(|pid| pid == root)
}

/// Refuses a tree that we are in.
fn check_not_above_us(root: i32) -> Result<()> {
    if is_above_us(root) {
        let why = "ckpt-dump itself runs below it: run ckpt-dump from somewhere else (another terminal), \
                   or `--allow children` dumps it alone";
        bail!(Failure::WrongKind { pid: root, name: proc::name(root), why: why.into() });
    }
    Ok(())
}
