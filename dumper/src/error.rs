//! What can go wrong in a way that the exit status tells, and obstacles.

use std::fmt;

/// A failure with an exit status of its own. Travels inside [`anyhow::Error`]; see [`exit_code`].
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Exit 3.
    #[error("no process with PID {0}; `ps -e` lists those that exist")]
    NoProcess(i32),
    /// Exit 3.
    #[error("no process is called {0:?}; `ps -e` lists those that exist")]
    NoneCalled(String),
    /// Exit 3.
    #[error("several processes are called {0:?}: {1}; say which by its PID")]
    SeveralCalled(String, String),
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
        Some(
            Failure::NoProcess(_)
            | Failure::NoneCalled(_)
            | Failure::SeveralCalled(..)
            | Failure::Vanished(_),
        ) => 3,
        Some(Failure::NotPermitted { .. }) => 4,
        Some(Failure::Refused(_)) => 5,
        Some(Failure::Output { .. }) => 6,
        Some(Failure::WrongKind { .. }) => 7,
        Some(Failure::Interrupted(_)) | None => 1,
    }
}

/// One reason why the process cannot be saved faithfully. All are collected before any is reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Obstacle {
    pub pid: i32,
    /// Name of that process; filled in by whoever reports.
    pub name: String,
    /// Descriptor that it is about, and which others, of which processes, are the same open file.
    pub fd: Option<i32>,
    pub also: Vec<Descriptor>,
    /// What is in the way, with its fd or address: "fd 7: an io_uring instance".
    pub what: String,
    /// What to do about it: "close it before the dump", "--allow children".
    pub remedy: String,
    /// The kind that `--allow` takes, if it helps.
    pub allow: Option<String>,
}

/// A number in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Descriptor {
    pub pid: i32,
    pub fd: i32,
}

impl Obstacle {
    #[must_use]
    pub fn new(pid: i32, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { pid, what: what.into(), remedy: remedy.into(), ..Self::default() }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // More are not told apart by anybody; --json has all.
        const MOST: usize = 4;
        write!(f, "PID {}", self.pid)?;
        if !self.name.is_empty() {
            write!(f, " ({})", self.name)?;
        }
        write!(f, " {}", self.what)?;
        for (i, d) in self.also.iter().take(MOST).enumerate() {
            let of = if d.pid == self.pid { String::new() } else { format!(" of PID {}", d.pid) };
            write!(f, "{}fd {}{of}", if i == 0 { " (also " } else { ", " }, d.fd)?;
        }
        match self.also.len() {
            0 => {}
            n if n > MOST => write!(f, " and {} more)", n - MOST)?,
            _ => write!(f, ")")?,
        }
        write!(f, "; {}", self.remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obstacles_say_who_has_it() {
        let mut o = Obstacle::new(7, "fd 3: a thing", "close it");
        assert_eq!(o.to_string(), "PID 7 fd 3: a thing; close it");
        o.name = "cat".into();
        o.also = vec![Descriptor { pid: 7, fd: 4 }, Descriptor { pid: 8, fd: 3 }];
        assert_eq!(o.to_string(), "PID 7 (cat) fd 3: a thing (also fd 4, fd 3 of PID 8); close it");
        o.also = vec![Descriptor { pid: 7, fd: 4 }; 6];
        assert!(o.to_string().contains(" and 2 more); close it"), "{o}");
    }
}
