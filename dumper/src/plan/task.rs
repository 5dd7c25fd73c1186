//! Processes: identity, limits, handlers, timers, working directory.

use super::tree::{Made, Node, Tree, Who};
use super::{Builder, memory, tree};
use crate::collect::{Facts, TaskFacts};
use ckpt_format::task::task_flags;
use ckpt_format::*;
use std::collections::HashMap;

/// Ids by what they are to us, as the tree sees them.
type OwnIds = HashMap<i32, i32>;

fn own_ids(facts: &Facts) -> OwnIds {
    let of_task = facts
        .tasks
        .iter()
        .map(|t| &t.process)
        .zip(&facts.tasks)
        .flat_map(|(p, t)| [(p.seen_sid, p.sid), (p.seen_pgid, p.pgid), (t.pid, p.own_pid)]);
    let of_zombie =
        |z: &crate::collect::ZombieFacts| [(z.seen_sid, z.sid), (z.seen_pgid, z.pgid), (z.pid, z.own_pid)];
    of_task.chain(facts.zombies.iter().flat_map(of_zombie)).collect()
}

/// Adds all tasks, in an order in which creators come first, and what belongs to them but descriptors:
/// `fd_tables` are those of the facts.
pub fn plan_all(builder: &mut Builder, facts: &Facts, fd_tables: &[u32]) {
    if facts.tasks.is_empty() {
        return;
    }
    let ids = own_ids(facts);
    let tree = arrange(facts, &ids);
    let mut shared = [(); 3].map(|()| vec![NONE; facts.tasks.len()]);
    for (index, made) in tree.made.iter().enumerate() {
        let creator = made.creator.map_or(NONE, |c| c as u32);
        let record = match made.who {
            Who::Helper { pid, pgid, sid } => Task {
                pid,
                ppid: made.creator.map_or(0, |c| builder.tables.tasks[c].pid),
                pgid,
                sid,
                ..unshared()
            },
            Who::Node(node) => match facts.tasks.get(node) {
                Some(task) => live(builder, facts, task, &ids, fd_tables, &mut shared),
                None => zombie(facts, node - facts.tasks.len(), &ids),
            },
        };
        builder.tables.tasks.push(Task { creator, flags: record.flags | made.flags, ..record });
        if let Some((task, ancestor)) = copied_from(facts, &tree, index) {
            builder.ancestors.insert(task, ancestor);
        }
    }
    builder.obstacles.extend(tree.obstacles);
}

fn arrange(facts: &Facts, ids: &OwnIds) -> Tree {
    let own = |id: i32| ids.get(&id).copied().unwrap_or(id);
    let live = facts.tasks.iter().map(|t| {
        let p = &t.process;
        Node {
            pid: p.own_pid,
            ppid: own(p.ppid),
            pgid: p.pgid,
            sid: p.sid,
            seen: t.pid,
            rank: t.rank,
            zombie: false,
            has_terminal: p.tty_nr != 0 && !facts.fds.provide_terminal(p.tty_nr),
            tids: t.threads.iter().map(|t| t.own_tid).collect(),
            shares: [
                t.shares.mm,
                facts.fds.tables.get(t.fds).map_or(0, |f| f.tasks[0]),
                t.shares.fs,
                t.shares.sighand,
            ],
        }
    });
    let zombies = facts.zombies.iter().map(|z| Node {
        pid: z.own_pid,
        ppid: own(z.ppid),
        pgid: z.pgid,
        sid: z.sid,
        seen: z.pid,
        rank: z.rank,
        zombie: true,
        ..Node::default()
    });
    let nodes: Vec<Node> = live.chain(zombies).collect();
    tree::arrange(&nodes, &facts.outside)
}

/// A task that has nothing.
fn unshared() -> Task {
    Task { mm: NONE, fd_table: NONE, fs: NONE, sighand: NONE, ctty: NONE, creator: NONE, ..Task::default() }
}

/// Whose address space, and from whose it was copied, if it was: that of its nearest creator that has
/// another. Each by the process whose memory is read.
fn copied_from(facts: &Facts, tree: &Tree, index: usize) -> Option<(i32, i32)> {
    let owner = |made: &Made| match made.who {
        Who::Node(node) => facts.tasks.get(node).map(|t| t.shares.mm),
        Who::Helper { .. } => None,
    };
    let own = owner(&tree.made[index])?;
    let mut creator = tree.made[index].creator;
    while let Some(at) = creator {
        let other = owner(&tree.made[at]).filter(|other| *other != own);
        if let Some(other) = other {
            return Some((facts.tasks[own].pid, facts.tasks[other].pid));
        }
        creator = tree.made[at].creator;
    }
    None
}

fn zombie(facts: &Facts, index: usize, ids: &OwnIds) -> Task {
    let z = &facts.zombies[index];
    let leader = |is, flag| if is { flag } else { 0 };
    Task {
        pid: z.own_pid,
        ppid: ids.get(&z.ppid).copied().unwrap_or(z.ppid),
        pgid: z.pgid,
        sid: z.sid,
        flags: task_flags::ZOMBIE
            | leader(z.own_pid == z.sid, task_flags::SESSION_LEADER)
            | leader(z.own_pid == z.pgid, task_flags::PGRP_LEADER),
        exit_signal: z.exit_signal,
        status: z.status,
        ..unshared()
    }
}

/// The record of a task; `shared` has the indices of what was planned for tasks before: address spaces,
/// directories, handlers.
fn live(
    builder: &mut Builder,
    facts: &Facts,
    task: &TaskFacts,
    ids: &OwnIds,
    fd_tables: &[u32],
    shared: &mut [Vec<u32>; 3],
) -> Task {
    refuse(builder, task);
    let process = &task.process;
    let index = builder.tables.tasks.len() as u32;
    let first_thread = builder.tables.threads.len() as u32;
    let ctty = if process.tty_nr == 0 { NONE } else { terminal(builder, process.tty_nr) };
    let inside = facts.fds.provide_terminal(process.tty_nr);
    for thread in &task.threads {
        super::threads::plan(builder, thread, index, task.pid);
    }
    super::seccomp::plan(builder, &task.threads, first_thread as usize, task.pid);
    let mut once = |kind: usize, owner: usize, make: &mut dyn FnMut() -> u32| {
        if shared[kind][owner] == NONE {
            shared[kind][owner] = make();
        }
        shared[kind][owner]
    };
    let s = task.shares;
    let mm = once(0, s.mm, &mut || memory::plan(builder, facts, s.mm));
    let fs = once(1, s.fs, &mut || fs_info(builder, task));
    let sighand = once(2, s.sighand, &mut || handlers(builder, task));
    let pending = builder.pending(&task.signals.pending);
    let posix_timers = Builder::append(&mut builder.tables.posix_timers, &task.timers.posix);
    let own = |id: i32| ids.get(&id).copied().unwrap_or(id);
    Task {
        pid: process.own_pid,
        ppid: own(process.ppid),
        pgid: process.pgid,
        sid: process.sid,
        flags: flags(task) | if inside { task_flags::CTTY_INSIDE } else { 0 },
        exit_signal: process.exit_signal,
        status: process.stopped_by.unwrap_or(0),
        personality: process.personality,
        threads: Range { first: first_thread, count: task.threads.len() as u32 },
        mm,
        fd_table: fd_tables.get(task.fds).copied().unwrap_or(NONE),
        fs,
        sighand,
        pending,
        posix_timers,
        itimers: task.timers.itimers,
        rlimits: process.rlimits,
        oom_score_adj: process.oom_score_adj,
        creator: NONE,
        ctty,
        tty_pgrp: own(process.tty_pgrp),
        ..Task::default()
    }
}

fn flags(task: &TaskFacts) -> u32 {
    let process = &task.process;
    let stopped = process.stopped_by.is_some();
    let all = [
        (process.own_pid == process.sid, task_flags::SESSION_LEADER),
        (process.own_pid == process.pgid, task_flags::PGRP_LEADER),
        (stopped, task_flags::STOPPED),
        (stopped && task.stop_reported, task_flags::STOP_REPORTED),
        (process.child_subreaper, task_flags::CHILD_SUBREAPER),
        (process.tty_nr != 0, task_flags::HAS_CTTY),
    ];
    all.iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag)
}

fn refuse(builder: &mut Builder, task: &TaskFacts) {
    let process = &task.process;
    if !process.children.is_empty() {
        let list: Vec<_> = process.children.iter().map(|(pid, name)| format!("{pid} ({name})")).collect();
        let text = format!("children: {} would be left outside the image", list.join(", "));
        builder.loss("children", task.pid, text);
    }
    if task.unseen_continue {
        let text = "parent: it cannot learn any more that the process was continued (WCONTINUED)";
        builder.note("continued", task.pid, text);
    }
    if process.other_pid_namespace {
        builder.refuse(
            task.pid,
            "pid namespace: its own, inside of that of the program, is not saved",
            "dump the first process of that namespace instead",
        );
    }
    if !process.namespaces.is_empty() {
        let text = format!("namespaces: its own ({}) are not saved", process.namespaces.join(", "));
        builder.loss("namespaces", task.pid, text);
    }
    if process.mdwe != 0 {
        builder.refuse(
            task.pid,
            "memory-deny-write-execute: prctl(PR_SET_MDWE) is in force",
            "start the program without it (systemd: MemoryDenyWriteExecute=no)",
        );
    }
    // Strict mode of seccomp does that by itself (seccomp_set_mode_strict() in kernel/seccomp.c).
    let strict = task.threads.iter().any(|t| t.seccomp_mode == super::seccomp::MODE_STRICT);
    if process.tsc_sigsegv && !strict {
        builder.refuse(
            task.pid,
            "time stamp counter: prctl(PR_SET_TSC) forbids it",
            "start the program without it",
        );
    }
    if process.ldt {
        builder.refuse(
            task.pid,
            "memory segments: modify_ldt(2) has made some, which are not saved",
            "run the program without 32-bit or 16-bit emulation (Wine)",
        );
    }
    let sandbox = &process.sandbox;
    if sandbox.landlocked {
        let text = "Landlock (or another security module) restricts it, which cannot be asked for";
        builder.loss("landlock", task.pid, text);
    }
    if !sandbox.keyrings.is_empty() {
        let text =
            format!("keyrings: the keys in its {} keyring are not saved", sandbox.keyrings.join(" and "));
        builder.loss("keyrings", task.pid, text);
    }
    if sandbox.own_session_keyring {
        builder.note(
            "session-keyring",
            task.pid,
            "session keyring: after restore that of whoever runs the image",
        );
    }
    for (tid, what) in &process.apart {
        builder.refuse(task.pid, format!("thread {tid}: has {what}"), "end that thread before the dump");
    }
    let directories = [
        ("working directory", &process.cwd, process.cwd_elsewhere),
        ("root directory", &process.root, process.root_elsewhere),
    ];
    let own_mounts = process.namespaces.iter().any(|n| n == "mnt");
    for (what, path, elsewhere) in directories {
        let deleted = path.ends_with(b" (deleted)");
        let path = String::from_utf8_lossy(path);
        // With mounts of its own, the `namespaces` above say it.
        if elsewhere && !deleted && !own_mounts {
            builder.refuse(
                task.pid,
                format!("{what}: {path} leads to another directory now"),
                "unmount what covers it, or let the program change to another",
            );
        }
        if deleted {
            builder.refuse(
                task.pid,
                format!("{what}: {path} has been removed"),
                "create it again, or let the program change to another",
            );
        }
    }
}

/// The object of a terminal, by its device number.
fn terminal(builder: &Builder, tty_nr: u32) -> u32 {
    let tables = &builder.tables;
    let rdev = |object: &Object| match ObjectKind::from_u32(object.kind) {
        Some(ObjectKind::Tty) => builder.payload_of::<fd::tty::Tty>(object.payload).map(|tty| tty.rdev),
        Some(ObjectKind::Pty) => builder.payload_of::<fd::tty::Pty>(object.payload).map(|pty| pty.rdev),
        _ => None,
    };
    let is_it = |object: &Object| rdev(object) == Some(u64::from(tty_nr));
    tables.objects.iter().position(is_it).map_or(NONE, |i| i as u32)
}

fn fs_info(builder: &mut Builder, task: &TaskFacts) -> u32 {
    let cwd = builder.blob(&task.process.cwd);
    let root = builder.blob(&task.process.root);
    let infos = &mut builder.tables.fs_infos;
    infos.push(FsInfo { cwd, root, umask: task.process.umask, reserved: 0 });
    infos.len() as u32 - 1
}

fn handlers(builder: &mut Builder, task: &TaskFacts) -> u32 {
    let actions = Builder::append(&mut builder.tables.sig_actions, &task.signals.actions);
    let sighands = &mut builder.tables.sighands;
    sighands.push(Sighand { actions });
    sighands.len() as u32 - 1
}
