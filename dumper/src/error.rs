//! What can go wrong in a way that the exit status tells, and obstacles.

use std::fmt;

/// A failure with an exit status of its own. Travels inside [`anyhow::Error`]; see [`exit_code`].
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Exit 3.
    #[error("no process with PID {0}; `ps -e` lists those that exist")]
    NoProcess(i32),
    /// Exit 3.
    #[error("PID {0} ended while it was being dumped; nothing was written")]
    Vanished(i32),
    /// Exit 4.
    #[error("not permitted to trace PID {pid} ({name}): {remedy}")]
    NotPermitted { pid: i32, name: String, remedy: String },
    /// Exit 5.
    #[error("PID {0} has state that cannot be saved")]
    Refused(i32),
    /// Exit 6.
    #[error("cannot write {path}: {cause}; {remedy}")]
    Output { path: String, cause: String, remedy: String },
    /// Exit 7.
    #[error("PID {pid} ({name}) cannot be dumped: {why}")]
    WrongKind { pid: i32, name: String, why: String },
    /// Exit 1: SIGINT, SIGTERM or SIGHUP arrived.
    #[error("interrupted by signal {0}; the process runs on, nothing was written")]
    Interrupted(i32),
}

/// Exit status for an error: that of the [`Failure`] inside, else 1.
pub fn exit_code(error: &anyhow::Error) -> i32 {
    match error.downcast_ref::<Failure>() {
        Some(Failure::NoProcess(_) | Failure::Vanished(_)) => 3,
        Some(Failure::NotPermitted { .. }) => 4,
        Some(Failure::Refused(_)) => 5,
        Some(Failure::Output { .. }) => 6,
        Some(Failure::WrongKind { .. }) => 7,
        Some(Failure::Interrupted(_)) | None => 1,
    }
}

/// One reason why the process cannot be saved faithfully. All are collected before any is reported.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Obstacle {
    pub pid: i32,
    /// What is in the way, with its fd or address: "fd 7: an io_uring instance".
    pub what: String,
    /// What to do about it: "close it before the dump", "--allow children".
    pub remedy: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PID {} {}; {}", self.pid, self.what, self.remedy)
    }
}
