//! Observation of a stopped process: plain data, no decisions. One file per kind of state.

pub mod cpu;
pub mod creds;
pub mod fd;
pub mod host;
pub mod memory;
pub mod proc;
pub mod signals;
mod surroundings;
pub mod task;
pub mod threads;
pub mod timers;

use crate::error::Obstacle;
use crate::ptrace::Frozen;
use anyhow::{Context, Result};
pub use cpu::CpuFacts;
pub use creds::CredsFacts;
pub use fd::FdFacts;
pub use host::HostFacts;
pub use memory::MemoryFacts;
pub use signals::SignalFacts;
pub use task::ProcessFacts;
pub use threads::ThreadFacts;
pub use timers::TimerFacts;

/// Everything that was observed.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub host: HostFacts,
    pub cpu: CpuFacts,
    /// The root of the tree first.
    pub tasks: Vec<TaskFacts>,
    /// Descriptors of all of them.
    pub fds: FdFacts,
    /// What collectors could not observe at all and the plan must refuse.
    pub obstacles: Vec<Obstacle>,
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
    pub mm: MemoryFacts,
    /// Index in [`FdFacts::tables`].
    pub fds: usize,
}

/// Observes a frozen process. If its state forbids running system calls in it, only that is told.
///
/// # Errors
/// When the target died, or the kernel does not answer.
pub fn collect(target: &mut Frozen) -> Result<Facts> {
    let mut facts = Facts {
        host: host::collect().context("observing this machine")?,
        cpu: cpu::collect(),
        obstacles: target.obstacles().to_vec(),
        ..Facts::default()
    };
    if !facts.obstacles.is_empty() {
        return Ok(facts);
    }
    let pid = target.pid();
    // Before the queues, and again after them: see `TimerFacts::reconcile`.
    let before =
        timers::collect(target, |tid| tid).with_context(|| format!("observing the timers of PID {pid}"))?;
    let threads = threads::collect(target).with_context(|| format!("observing the threads of PID {pid}"))?;
    let process = task::collect(target).with_context(|| format!("observing PID {pid}"))?;
    let signals = signals::collect(target).with_context(|| format!("observing the signals of PID {pid}"))?;
    let own_tid = |tid| threads.iter().find(|t| t.tid == tid).map_or(tid, |t| t.own_tid);
    let mut timers =
        timers::collect(target, own_tid).with_context(|| format!("observing the timers of PID {pid}"))?;
    let mut queues: Vec<_> = threads.iter().map(|t| &t.pending[..]).collect();
    queues.push(&signals.pending);
    timers.reconcile(&before, &queues);
    facts.fds = fd::collect(std::slice::from_mut(target))
        .with_context(|| format!("observing the descriptors of PID {pid}"))?;
    let mm = memory::collect(target).with_context(|| format!("observing the memory of PID {pid}"))?;
    facts.tasks.push(TaskFacts { pid, process, threads, signals, timers, mm, fds: 0 });
    Ok(facts)
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
