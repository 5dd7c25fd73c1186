//! setitimer(2) and timer_create(2) timers.

/// Timers of a process.
#[derive(Clone, Debug, Default)]
pub struct TimerFacts {
    /// ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
    pub itimers: [ckpt_format::Itimer; 3],
    /// Sorted by id.
    pub posix: Vec<ckpt_format::PosixTimer>,
}
