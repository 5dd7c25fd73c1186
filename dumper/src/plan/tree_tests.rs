use super::*;

/// pid, ppid, pgid, sid.
fn node(pid: i32, ppid: i32, pgid: i32, sid: i32) -> Node {
    Node { pid, ppid, pgid, sid, seen: pid, rank: pid as usize, ..Node::default() }
}

fn zombie(pid: i32, ppid: i32, pgid: i32, sid: i32) -> Node {
    Node { zombie: true, ..node(pid, ppid, pgid, sid) }
}

/// Nodes that share nothing.
fn alone(mut nodes: Vec<Node>) -> Vec<Node> {
    nodes.iter_mut().enumerate().for_each(|(i, n)| n.shares = [i; 4]);
    nodes
}

fn pid_of(nodes: &[Node], made: &Made) -> i32 {
    match made.who {
        Who::Node(i) => nodes[i].pid,
        Who::Helper { pid, .. } => pid,
    }
}

/// What each process will have after the image was restored, played through: pid -> (ppid, pgid, sid).
/// The caller is process 1 in session and group 1.
fn play(nodes: &[Node], tree: &Tree) -> HashMap<i32, (i32, i32, i32)> {
    let has = |m: &Made, flag: u32| m.flags & flag != 0;
    let leads = |m: &Made| match m.who {
        Who::Node(i) => nodes[i].sid == nodes[i].pid && !has(m, SESSION_OF_CALLER),
        Who::Helper { pid, sid, .. } => pid == sid && !has(m, SESSION_OF_CALLER),
    };
    let n = tree.made.len();
    // Sessions, as forks and setsid give them.
    let (mut birth, mut session) = (vec![1; n], vec![1; n]);
    for (i, m) in tree.made.iter().enumerate() {
        if let Some(c) = m.creator {
            assert!(c < i, "a creator comes first");
            birth[i] = if has(m, BEFORE_SETSID) { birth[c] } else { session[c] };
            session[i] = birth[i];
        }
        if leads(m) {
            session[i] = pid_of(nodes, m);
        }
    }
    let mut out = HashMap::new();
    for (i, m) in tree.made.iter().enumerate() {
        let Who::Node(index) = m.who else { continue };
        let node = &nodes[index];
        let mut parent = m.creator;
        if parent.is_some_and(|p| has(&tree.made[p], HELPER)) {
            while parent.is_some_and(|p| !has(&tree.made[p], ADOPTS)) {
                parent = tree.made[parent.unwrap()].creator;
            }
        }
        let pgid = if has(m, PGRP_OF_CALLER) {
            assert_eq!(session[i], 1);
            1
        } else {
            let leader = tree.made.iter().position(|l| pid_of(nodes, l) == node.pgid).unwrap();
            assert_eq!(session[leader], session[i], "group {} is in another session", node.pgid);
            node.pgid
        };
        let ppid = parent.map_or(1, |p| pid_of(nodes, &tree.made[p]));
        out.insert(node.pid, (ppid, pgid, session[i]));
    }
    out
}

/// Arranges and checks that all have what they had, but for the root's group or session if the caller's
/// takes its place.
fn check(nodes: Vec<Node>) -> Tree {
    let nodes = alone(nodes);
    let tree = arrange(&nodes, &[]);
    assert_eq!(tree.obstacles, [], "{tree:#?}");
    let played = play(&nodes, &tree);
    let root = &nodes[0];
    let session_of_caller = tree.made[0].flags & SESSION_OF_CALLER != 0;
    let group_of_caller = tree.made[0].flags & PGRP_OF_CALLER != 0;
    for n in &nodes {
        let sid = if n.sid == root.sid && session_of_caller { 1 } else { n.sid };
        let pgid = if n.pgid == root.pgid && group_of_caller { 1 } else { n.pgid };
        let ppid = if n.pid == root.pid { 1 } else { n.ppid };
        assert_eq!(played[&n.pid], (ppid, pgid, sid), "process {}: {tree:#?}", n.pid);
    }
    tree
}

fn helpers(tree: &Tree) -> Vec<Who> {
    tree.made.iter().map(|m| m.who).filter(|w| matches!(w, Who::Helper { .. })).collect()
}

#[test]
fn a_process_alone_takes_the_callers_place() {
    let tree = check(vec![node(100, 50, 100, 60)]);
    assert_eq!(
        tree.made,
        [Made { who: Who::Node(0), creator: None, flags: SESSION_OF_CALLER | PGRP_OF_CALLER }]
    );
    // A daemon makes its own session.
    assert_eq!(check(vec![node(100, 1, 100, 100)]).made[0].flags, 0);
    // The leader of a terminal's session gets the caller's terminal, but leads its own group.
    let shell = Node { has_terminal: true, ..node(100, 50, 100, 100) };
    assert_eq!(check(vec![shell]).made[0].flags, SESSION_OF_CALLER);
}

#[test]
fn siblings_come_in_the_order_of_their_parents_list() {
    let mut nodes = vec![node(100, 1, 100, 60), node(105, 100, 100, 60), node(103, 100, 100, 60)];
    nodes.push(zombie(104, 100, 100, 60));
    (nodes[1].rank, nodes[2].rank, nodes[3].rank) = (0, 2, 1);
    nodes.push(node(110, 105, 100, 60));
    let tree = check(nodes.clone());
    let order: Vec<i32> = tree.made.iter().map(|m| pid_of(&nodes, m)).collect();
    assert_eq!(order, [100, 105, 110, 104, 103]);
    assert!(tree.made.iter().all(|m| m.flags == SESSION_OF_CALLER | PGRP_OF_CALLER));
}

#[test]
fn jobs_of_a_shell() {
    let shell = Node { has_terminal: true, ..node(100, 50, 100, 100) };
    let tree = check(vec![
        shell,
        node(110, 100, 110, 100),
        node(111, 100, 110, 100),
        node(120, 100, 120, 100),
        zombie(130, 100, 130, 100),
        node(131, 100, 130, 100),
    ]);
    assert!(helpers(&tree).is_empty());
    assert!(tree.made.iter().all(|m| m.flags == SESSION_OF_CALLER));
    // The same with a shell that leads only a group.
    let tree = check(vec![node(100, 50, 100, 60), node(110, 100, 110, 60)]);
    assert_eq!(tree.made[0].flags & PGRP_OF_CALLER, 0);
    // And in somebody else's group: that is the caller's.
    let tree = check(vec![node(100, 50, 70, 60), node(101, 100, 70, 60), node(110, 100, 110, 60)]);
    assert_eq!(tree.made[1].flags & PGRP_OF_CALLER, PGRP_OF_CALLER);
}

#[test]
fn a_leader_makes_some_children_before_it_has_its_session() {
    // 100 forked 110, which forked 111, then called setsid and forked 112.
    let tree = check(vec![
        node(100, 1, 100, 60),
        node(110, 100, 110, 110),
        node(111, 110, 100, 60),
        node(112, 110, 110, 110),
    ]);
    assert!(helpers(&tree).is_empty());
    let flags: Vec<u32> = tree.made.iter().map(|m| m.flags & BEFORE_SETSID).collect();
    assert_eq!(flags, [0, 0, BEFORE_SETSID, 0]);
    // Through two leaders, of whom the inner one was forked before the outer one's setsid.
    let tree = check(vec![
        node(100, 1, 100, 60),
        node(110, 100, 110, 110),
        node(120, 110, 120, 120),
        node(121, 120, 100, 60),
        node(122, 110, 110, 110),
    ]);
    let before: Vec<bool> = tree.made.iter().map(|m| m.flags & BEFORE_SETSID != 0).collect();
    assert_eq!(before, [false, false, true, true, false]);
}

#[test]
fn sessions_and_groups_whose_leader_is_gone() {
    // A daemon's double fork, taken over by the root.
    let tree = check(vec![node(100, 1, 100, 60), node(112, 100, 111, 111), node(113, 112, 111, 111)]);
    assert_eq!(helpers(&tree), [Who::Helper { pid: 111, pgid: 111, sid: 111 }]);
    assert_ne!(tree.made[0].flags & ADOPTS, 0);
    assert_eq!(tree.made[1].flags, HELPER | SESSION_LEADER | PGRP_LEADER);
    // Two of them in one session, one in a group of its own whose leader is gone, too.
    let tree = check(vec![node(100, 1, 100, 60), node(112, 100, 111, 111), node(115, 100, 114, 111)]);
    assert_eq!(helpers(&tree).len(), 2);
    // A pipeline whose first process has ended and was waited for.
    let tree = check(vec![node(100, 1, 100, 60), node(111, 100, 110, 60), node(112, 100, 110, 60)]);
    assert_eq!(helpers(&tree), [Who::Helper { pid: 110, pgid: 110, sid: 60 }]);
    assert_eq!(tree.made[3].flags, HELPER | PGRP_LEADER | SESSION_OF_CALLER);
    assert_eq!(tree.made[0].flags & ADOPTS, 0);
    // A zombie leads its session and group itself.
    let tree = check(vec![node(100, 1, 100, 60), zombie(111, 100, 111, 111), node(112, 100, 111, 111)]);
    assert_eq!(helpers(&tree).len(), 1, "{tree:#?}");
    assert!(matches!(helpers(&tree)[0], Who::Helper { pid, sid: 111, .. } if pid != 111));
}

#[test]
fn an_orphan_of_a_living_session_is_left_by_a_helper() {
    // 110 leads a session; 112 was its grandchild, whose parent ended: the subreaper 100 has it.
    let tree = check(vec![node(100, 1, 100, 60), node(110, 100, 110, 110), node(112, 100, 112, 110)]);
    assert_eq!(helpers(&tree), [Who::Helper { pid: 301, pgid: 110, sid: 110 }]);
    assert_eq!(tree.made[0].flags & ADOPTS, ADOPTS);
    // The leader is deeper, and not a child of the adopter.
    check(vec![
        node(100, 1, 100, 100),
        node(105, 100, 100, 100),
        node(110, 105, 110, 110),
        node(112, 100, 112, 110),
        node(113, 100, 112, 110),
    ]);
}

#[test]
fn helpers_have_ids_of_nobody() {
    let mut nodes = vec![node(32767, 1, 32767, 60), node(110, 32767, 110, 110), node(112, 32767, 112, 110)];
    nodes[1].tids = vec![110, 32766];
    let nodes = alone(nodes);
    let tree = arrange(&nodes, &[(32765, "x".into())]);
    assert!(matches!(helpers(&tree)[..], [Who::Helper { pid: 32764, .. }]), "{tree:#?}");
}

#[test]
fn what_is_outside_is_refused_by_name() {
    let nodes = alone(vec![node(100, 1, 100, 60), node(110, 100, 70, 60)]);
    let tree = arrange(&nodes, &[(70, "vi".into()), (60, "sh".into())]);
    let text: Vec<String> = tree.obstacles.iter().map(ToString::to_string).collect();
    assert_eq!(text.len(), 1);
    assert!(text[0].starts_with("PID 110 process group: its leader 70 (vi) is outside"), "{text:?}");
    let nodes = alone(vec![node(100, 1, 100, 60), node(110, 100, 70, 70)]);
    let tree = arrange(&nodes, &[(70, "vi".into())]);
    assert!(tree.obstacles[0].what.contains("session 70, whose leader (vi) runs on"), "{tree:#?}");
    // The leader of the group is elsewhere by now.
    let nodes = alone(vec![
        node(100, 1, 100, 60),
        node(110, 100, 120, 60),
        node(111, 100, 110, 60),
        node(120, 100, 120, 60),
    ]);
    assert_eq!(arrange(&nodes, &[]).obstacles[0].pid, 111);
}

#[test]
fn only_creators_share() {
    let shares = |of: [usize; 4]| {
        let mut nodes = alone(vec![
            node(100, 1, 100, 60),
            node(110, 100, 100, 60),
            node(111, 110, 100, 60),
            node(120, 100, 100, 60),
        ]);
        nodes.iter_mut().zip(of).for_each(|(n, first)| n.shares[1] = first);
        arrange(&nodes, &[]).obstacles
    };
    assert_eq!(shares([0, 0, 0, 0]), []);
    assert_eq!(shares([0, 1, 1, 3]), []);
    assert_eq!(shares([0, 0, 2, 0]), []);
    let refused = shares([0, 1, 2, 1]);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].to_string().contains("descriptors: shared with PID 110"), "{refused:?}");
    assert_eq!(shares([0, 1, 0, 3]).len(), 1);
}

#[test]
fn deep_and_wide_trees() {
    let mut nodes = vec![node(1000, 1, 1000, 1000)];
    nodes.extend((1..2000).map(|i| node(1000 + i, 999 + i, 1000, 1000)));
    nodes.extend((0..2000).map(|i| node(5000 + i, 1000, 5000 + i, if i % 2 == 0 { 1000 } else { 5000 + i })));
    let tree = check(nodes);
    assert_eq!(tree.made.len(), 4000);
}
