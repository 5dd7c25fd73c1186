//! Waiting for a thread to stop.

use crate::sys::signals;
use std::io;
use std::time::{Duration, Instant};

/// Why a traced thread stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// PTRACE_INTERRUPT took effect: PTRACE_EVENT_STOP with SIGTRAP. The thread is inside the
    /// kernel's get_signal(), before any decision on restarting a system call.
    Interrupt,
    /// As `Interrupt`, and the process is in a group stop by this signal.
    Group(i32),
    /// About to be delivered this signal, which is no longer queued. A thread resumed with
    /// PTRACE_SYSCALL shows the entry to and exit from a system call as SIGTRAP.
    Signal(i32),
    /// An event that we did not ask for.
    Other(i32),
}

/// What waiting brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Stop(Stop),
    /// The thread is gone.
    Gone,
}

/// Decodes a wait status of a stopped, seized thread (ptrace(2), "Stopped states").
#[must_use]
pub fn decode(status: i32) -> Event {
    if !libc::WIFSTOPPED(status) {
        return Event::Gone;
    }
    let signal = libc::WSTOPSIG(status);
    Event::Stop(match status >> 16 {
        0 => Stop::Signal(signal),
        libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => Stop::Interrupt,
        libc::PTRACE_EVENT_STOP => Stop::Group(signal),
        event => Stop::Other(event),
    })
}

/// One look, without waiting.
///
/// # Errors
/// As waitpid(2); a thread that is not ours any more is [`Event::Gone`].
pub fn poll(tid: i32) -> io::Result<Option<Event>> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    let got = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::WNOHANG) };
    match got {
        0 => Ok(None),
        -1 => {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ECHILD) => Ok(Some(Event::Gone)),
                Some(libc::EINTR) => Ok(None),
                _ => Err(error),
            }
        }
        _ => Ok(Some(decode(status))),
    }
}

/// Takes note of the end of a thread, if it has ended. Stops are left for [`poll`]: a wait for ends
/// alone would swallow them, as the kernel reports those of a tracee whatever was asked for.
pub fn reap(tid: i32) {
    const ENDED: [i32; 3] = [libc::CLD_EXITED, libc::CLD_KILLED, libc::CLD_DUMPED];
    let look = |options| {
        // SAFETY: siginfo_t is plain data, for which zero bytes are valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is a valid place for the result.
        unsafe { libc::waitid(libc::P_PID, tid as libc::id_t, &raw mut info, options) };
        info.si_code
    };
    let options = libc::WEXITED | libc::WNOHANG | libc::__WALL;
    if ENDED.contains(&look(options | libc::WSTOPPED | libc::WNOWAIT)) {
        look(options);
    }
}

/// Waits until `deadline`; `None` when nothing happened until then. SIGCHLD must be blocked
/// ([`signals::block`]); if some other thread of ours swallows it, polling still gets on.
///
/// # Errors
/// As waitpid(2).
pub fn wait(tid: i32, deadline: Instant) -> io::Result<Option<Event>> {
    loop {
        if let Some(event) = poll(tid)? {
            return Ok(Some(event));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        signals::wait(left.min(Duration::from_millis(10)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_told_apart() {
        let status = |event: i32, signal: i32| (event << 16) | (signal << 8) | 0x7f;
        let stop = libc::PTRACE_EVENT_STOP;
        assert_eq!(decode(status(stop, libc::SIGTRAP)), Event::Stop(Stop::Interrupt));
        assert_eq!(decode(status(stop, libc::SIGTSTP)), Event::Stop(Stop::Group(libc::SIGTSTP)));
        assert_eq!(decode(status(0, libc::SIGTRAP)), Event::Stop(Stop::Signal(libc::SIGTRAP)));
        assert_eq!(decode(status(libc::PTRACE_EVENT_EXEC, libc::SIGTRAP)), Event::Stop(Stop::Other(4)));
        assert_eq!(decode(9), Event::Gone);
        assert_eq!(decode(0), Event::Gone);
    }
}
