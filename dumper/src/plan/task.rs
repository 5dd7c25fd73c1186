//! Processes: identity, limits, handlers, timers, working directory.

use super::Builder;
use crate::collect::TaskFacts;
use ckpt_format::*;

/// Adds the task and what belongs to it; `mm` and `fd_table` are already planned, and so are the
/// objects, among which the controlling terminal is looked up.
pub fn plan(builder: &mut Builder, task: &TaskFacts, mm: u32, fd_table: u32) {
    refuse(builder, task);
    let process = &task.process;
    let tables = &builder.tables;
    let index = tables.tasks.len() as u32;
    let first_thread = tables.threads.len() as u32;
    let ctty = if process.tty_nr == 0 { NONE } else { terminal(builder, process.tty_nr) };
    for thread in &task.threads {
        super::threads::plan(builder, thread, index, task.pid);
    }
    let mut flags = 0;
    for (set, flag) in [
        (process.own_pid == process.sid, task::task_flags::SESSION_LEADER),
        (process.own_pid == process.pgid, task::task_flags::PGRP_LEADER),
        (process.stopped_by.is_some(), task::task_flags::STOPPED),
        (process.child_subreaper, task::task_flags::CHILD_SUBREAPER),
        (process.tty_nr != 0, task::task_flags::HAS_CTTY),
    ] {
        flags |= if set { flag } else { 0 };
    }
    let fs = fs_info(builder, task);
    let sighand = sighand(builder, task);
    let pending = builder.pending(&task.signals.pending);
    let posix_timers = Builder::append(&mut builder.tables.posix_timers, &task.timers.posix);
    builder.tables.tasks.push(Task {
        pid: process.own_pid,
        ppid: process.ppid,
        pgid: process.pgid,
        sid: process.sid,
        flags,
        exit_signal: process.exit_signal,
        status: process.stopped_by.unwrap_or(0),
        personality: process.personality,
        threads: Range { first: first_thread, count: task.threads.len() as u32 },
        mm,
        fd_table,
        fs,
        sighand,
        pending,
        posix_timers,
        itimers: task.timers.itimers,
        rlimits: process.rlimits,
        oom_score_adj: process.oom_score_adj,
        creator: NONE,
        ctty,
        tty_pgrp: process.tty_pgrp,
        ..Task::default()
    });
}

fn refuse(builder: &mut Builder, task: &TaskFacts) {
    let process = &task.process;
    if !process.children.is_empty() {
        let list: Vec<_> = process.children.iter().map(|(pid, name)| format!("{pid} ({name})")).collect();
        let text = format!("children: {} would be left outside the image", list.join(", "));
        builder.loss("children", task.pid, text);
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
    if process.tsc_sigsegv {
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
    let is_it = |object: &Object| {
        object.kind == ObjectKind::Tty as u32
            && builder
                .payload_of::<fd::tty::Tty>(object.payload)
                .is_some_and(|tty| tty.rdev == u64::from(tty_nr))
    };
    tables.objects.iter().position(is_it).map_or(NONE, |i| i as u32)
}

fn fs_info(builder: &mut Builder, task: &TaskFacts) -> u32 {
    let cwd = builder.blob(&task.process.cwd);
    let root = builder.blob(&task.process.root);
    let infos = &mut builder.tables.fs_infos;
    infos.push(FsInfo { cwd, root, umask: task.process.umask, reserved: 0 });
    infos.len() as u32 - 1
}

fn sighand(builder: &mut Builder, task: &TaskFacts) -> u32 {
    let actions = Builder::append(&mut builder.tables.sig_actions, &task.signals.actions);
    let sighands = &mut builder.tables.sighands;
    sighands.push(Sighand { actions });
    sighands.len() as u32 - 1
}
