//! Observation of a stopped process: plain data, no decisions. One file per kind of state.

pub mod children;
pub mod cpu;
pub mod creds;
pub mod fd;
pub mod host;
pub mod kin;
pub mod memory;
pub mod proc;
pub mod sandbox;
pub mod signals;
mod surroundings;
pub mod sysv;
pub mod task;
pub mod threads;
pub mod timers;

use crate::error::Obstacle;
use crate::ptrace::{Frozen, FrozenTree};
use crate::report;
use crate::sys::process::{self, Shared};
use crate::track::Tracker;
use anyhow::{Context, Result, anyhow};
use children::Children;
pub use cpu::CpuFacts;
pub use creds::CredsFacts;
pub use fd::{FdFacts, LeftOut};
pub use host::HostFacts;
pub use kin::ZombieFacts;
pub use memory::MemoryFacts;
pub use signals::SignalFacts;
use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
pub use sysv::SysvFacts;
pub use task::ProcessFacts;
pub use threads::ThreadFacts;
pub use timers::TimerFacts;

/// Everything that was observed.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub host: HostFacts,
    pub cpu: CpuFacts,
    /// Those that live; the root of the tree first.
    pub tasks: Vec<TaskFacts>,
    pub zombies: Vec<ZombieFacts>,
    /// Leaders of sessions or process groups of the tree that live outside of it: id (as the tree sees
    /// it) and name.
    pub outside: Vec<(i32, String)>,
    /// Descriptors of all of them.
    pub fds: FdFacts,
    /// Our handles for mapped files: [`memory::MappedFile::handle`] is an index.
    pub mapped_files: Vec<Arc<File>>,
    pub sysv: SysvFacts,
    /// What collectors could not observe at all and the plan must refuse.
    pub obstacles: Vec<Obstacle>,
    /// Only descriptors could be observed, besides `obstacles`.
    pub partial: bool,
}

/// One process.
#[derive(Clone, Debug, Default)]
pub struct TaskFacts {
    pub pid: i32,
    pub process: ProcessFacts,
    /// The leader first.
    pub threads: Vec<ThreadFacts>,
    pub signals: SignalFacts,
    pub timers: TimerFacts,
    /// Of the first task that has this address space; nothing in the others.
    pub mm: MemoryFacts,
    pub shares: Shares,
    /// Index in [`FdFacts::tables`].
    pub fds: usize,
    /// It is stopped, and its parent has been told.
    pub stop_reported: bool,
    /// It goes on after a stop, which its parent could still learn by waitid(2) with WCONTINUED.
    pub unseen_continue: bool,
    /// Position among the children of its parent.
    pub rank: usize,
}

/// With whom a task shares something: the index of the first task that has it, perhaps its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// CLONE_VM, CLONE_FS, CLONE_SIGHAND.
    pub mm: usize,
    pub fs: usize,
    pub sighand: usize,
}

/// Observes a frozen tree, whose memory `tracker` may track. `search`: as of [`fd::collect`]. If the state of one forbids running system calls in it, only that is told.
///
/// # Errors
/// When a process died, or the kernel does not answer.
pub fn collect(
    tree: &mut FrozenTree,
    search: &[PathBuf],
    mut connections: fd::repair::Wish,
    leave_out: &LeftOut,
    tracker: &mut Tracker,
) -> Result<Facts> {
    let mut facts = Facts {
        host: host::collect(tree.live.first().map_or(0, Frozen::pid)).context("observing this machine")?,
        cpu: cpu::collect(),
        obstacles: tree.obstacles(),
        ..Facts::default()
    };
    if !facts.obstacles.is_empty() {
        return from_outside(tree, search, leave_out, facts);
    }
    let pids: Vec<i32> = tree.live.iter().map(Frozen::pid).collect();
    let members: HashSet<i32> = pids.iter().copied().chain(tree.zombies.iter().map(|z| z.pid)).collect();
    let shared = |what| match process::sharing(&pids, what) {
        Err(_) if pids.len() == 1 => Ok(vec![0]),
        found => found.context("kcmp(2), to find what processes share"),
    };
    let (mm, fs, sighand) =
        (shared(Shared::Memory)?, shared(Shared::Directories)?, shared(Shared::Handlers)?);
    let mut known = memory::files::Known::default();
    let mut children = children::Children::default();
    for (index, target) in tree.live.iter_mut().enumerate() {
        let (pid, tids) = (target.pid(), target.tids());
        // Mappings are shown with ours from here on.
        target.scratch()?;
        let task = std::thread::scope(|scope| -> Result<TaskFacts> {
            let look = || Aside {
                apart: surroundings::apart(pid, &tids),
                smaps: (mm[index] == index).then(|| memory::smaps(pid)),
            };
            let aside = worth_a_thread(target).then(|| scope.spawn(look));
            let mut task = task(target, pids[0], &members, &mut children)?;
            let aside = match aside {
                None => look(),
                Some(thread) => thread.join().map_err(|_| anyhow!("observing PID {pid}"))?,
            };
            task.process.apart = aside.apart;
            if let Some(smaps) = aside.smaps {
                let mut observe = |mut shown| {
                    let tracked = tracker.observe(target, &mut shown)?;
                    memory::collect(target, shown, &mut known, tracked.as_ref())
                };
                task.mm = smaps
                    .and_then(&mut observe)
                    .with_context(|| format!("observing the memory of PID {pid}"))?;
            }
            Ok(task)
        });
        let shares = Shares { mm: mm[index], fs: fs[index], sighand: sighand[index] };
        facts.tasks.push(TaskFacts { shares, ..task? });
    }
    report::lap("observed: processes, memory");
    facts.tasks.iter_mut().flat_map(|t| &mut t.mm.files).for_each(|f| known.complete(f));
    facts.mapped_files = known.handles;
    memory::sharers::collect(&mut facts.tasks);
    facts.zombies = kin::collect(tree, &mut facts.tasks, &mut children)?;
    facts.outside = outside(&facts.tasks, &facts.zombies, &members);
    connections.uuid = facts.host.uuid;
    report::lap("observed: kin, sharers");
    facts.fds =
        fd::collect(&mut tree.live, search, connections, leave_out).context("observing descriptors")?;
    report::lap("observed: descriptors");
    for (index, table) in facts.fds.tables.iter().enumerate() {
        table.tasks.iter().for_each(|t| facts.tasks[*t].fds = index);
    }
    facts.sysv =
        sysv::collect(&mut tree.live, &facts.tasks, &facts.host).context("observing System V IPC")?;
    Ok(facts)
}

/// What another thread can see meanwhile.
struct Aside {
    apart: Vec<(i32, String)>,
    /// Of the first task that has the address space.
    smaps: Option<Result<Vec<memory::smaps::Entry>>>,
}

/// Where much must be seen: the kernel looks at every page for `smaps`.
fn worth_a_thread(target: &Frozen) -> bool {
    const THREADS: usize = 32;
    const RESIDENT: u64 = 8 << 20;
    let status = target.status(target.pid()).unwrap_or_default();
    target.threads().len() > THREADS || proc::size(status, "VmRSS").is_some_and(|bytes| bytes > RESIDENT)
}

/// Of a tree in which no system calls can be made: what else stands in the way.
fn from_outside(
    tree: &mut FrozenTree,
    search: &[PathBuf],
    leave_out: &LeftOut,
    mut facts: Facts,
) -> Result<Facts> {
    facts.partial = true;
    for target in &tree.live {
        let pid = target.pid();
        let status = proc::read(&format!("/proc/{pid}/status")).unwrap_or_default();
        let own_pid = proc::own_id(&status, "NSpid").unwrap_or(pid);
        let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
        let stat = proc::stat(&stat).unwrap_or_default();
        let threads =
            target.tids().into_iter().map(|tid| ThreadFacts { tid, own_tid: tid, ..ThreadFacts::default() });
        let process = ProcessFacts {
            own_pid,
            pgid: stat.pgrp,
            seen_pgid: stat.pgrp,
            tty_nr: stat.tty_nr,
            ..ProcessFacts::default()
        };
        facts.tasks.push(TaskFacts { pid, process, threads: threads.collect(), ..TaskFacts::default() });
    }
    // Nothing is to be saved: connections are let alone.
    let connections = fd::repair::Wish { look: false, hold: None, uuid: [0; 16] };
    facts.fds =
        fd::collect(&mut tree.live, search, connections, leave_out).context("observing descriptors")?;
    for (index, table) in facts.fds.tables.iter().enumerate() {
        table.tasks.iter().for_each(|t| facts.tasks[*t].fds = index);
    }
    Ok(facts)
}

/// What is a process's own but memory and descriptors.
fn task(
    target: &mut Frozen,
    root: i32,
    members: &HashSet<i32>,
    children: &mut Children,
) -> Result<TaskFacts> {
    let pid = target.pid();
    // Before the queues, and again after them: see `TimerFacts::reconcile`.
    let before =
        timers::collect(target, |tid| tid).with_context(|| format!("observing the timers of PID {pid}"))?;
    let threads = threads::collect(target).with_context(|| format!("observing the threads of PID {pid}"))?;
    let process =
        task::collect(target, root, members, children).with_context(|| format!("observing PID {pid}"))?;
    let signals = signals::collect(target).with_context(|| format!("observing the signals of PID {pid}"))?;
    let own_tid = |tid| threads.iter().find(|t| t.tid == tid).map_or(tid, |t| t.own_tid);
    let mut timers =
        timers::collect(target, own_tid).with_context(|| format!("observing the timers of PID {pid}"))?;
    let mut queues: Vec<_> = threads.iter().map(|t| &t.pending[..]).collect();
    queues.push(&signals.pending);
    timers.reconcile(&before, &queues);
    Ok(TaskFacts { pid, process, threads, signals, timers, ..TaskFacts::default() })
}

/// Living processes outside of the tree whose id is that of a process group or session inside.
fn outside(tasks: &[TaskFacts], zombies: &[ZombieFacts], members: &HashSet<i32>) -> Vec<(i32, String)> {
    let of_tasks = tasks.iter().map(|t| &t.process);
    let ids = of_tasks.flat_map(|p| [(p.seen_pgid, p.pgid), (p.seen_sid, p.sid)]);
    let of_zombies = zombies.iter().flat_map(|z| [(z.seen_pgid, z.pgid), (z.seen_sid, z.sid)]);
    let mut found: Vec<(i32, i32)> =
        ids.chain(of_zombies).filter(|(seen, _)| !members.contains(seen)).collect();
    found.sort_unstable();
    found.dedup();
    found.retain(|(seen, _)| std::fs::exists(format!("/proc/{seen}/stat")).unwrap_or(false));
    found.into_iter().map(|(seen, own)| (own, proc::name(seen))).collect()
}

/// Turns the result of a system call in the target into an error that says which it was.
fn check_call(result: i64, what: impl FnOnce() -> String) -> Result<()> {
    match i32::try_from(-result) {
        Ok(errno) if (1..4096).contains(&errno) => {
            Err(std::io::Error::from_raw_os_error(errno)).with_context(what)
        }
        _ => Ok(()),
    }
}
