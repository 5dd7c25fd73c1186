//! Observation of a stopped process: plain data, no decisions. One file per kind of state.

pub mod cpu;
pub mod creds;
pub mod fd;
pub mod host;
pub mod memory;
pub mod signals;
pub mod task;
pub mod threads;
pub mod timers;

use crate::error::Obstacle;
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
    /// Sorted by number.
    pub fds: Vec<FdFacts>,
}
