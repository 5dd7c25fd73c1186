//! What can go wrong.

use crate::Id;
use std::io;
use std::path::PathBuf;

/// Why a checkpoint was not made, or not returned to. The program runs on as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program has state that cannot be saved: every obstacle, with its remedy.
    #[error("{}", list(.0))]
    Refused(Vec<Obstacle>),
    /// ckpt-dump failed otherwise, with this exit status (see ckpt-dump(1)).
    #[error("{message}")]
    Dump { exit_status: i32, message: String },
    /// There is no ckpt-dump.
    #[error("cannot find ckpt-dump ({0}); install it, or name it in the environment as CKPT_DUMP")]
    NoDumper(String),
    /// The calling thread is making a checkpoint, or in one of its hooks.
    #[error("a checkpoint is being made by this thread: hooks cannot make or return to one")]
    Busy,
    /// The process is the init of its pid namespace.
    #[error(
        "the process is the init of its pid namespace (PID 1), and would become the parent of ckpt-dump; \
         run it below an init (docker run --init, tini)"
    )]
    IsInit,
    /// No checkpoint has this id.
    #[error(
        "there is no checkpoint {0}: it was never made, was forgotten, or was in the memory of another process"
    )]
    Unknown(Id),
    /// The file is not (any more) the image that was written.
    #[error("{}: it is not the image of checkpoint {id} any more: {why}", path.display())]
    Replaced { id: Id, path: PathBuf, why: String },
    /// Another process cannot take the calling one's place.
    #[error(
        "checkpoint {0} holds {1} processes, which cannot take the place of the calling one; \
         end, and run the image"
    )]
    SeveralProcesses(Id, usize),
    /// What the calling process has now would be in the way of what it was.
    #[error("cannot return to checkpoint {id}: {what}")]
    InTheWay { id: Id, what: String },
    /// As many as can be kept.
    #[error("{0} checkpoints are kept in memory; forget some")]
    TooMany(usize),
    /// A system call failed.
    #[error("{what}: {source}")]
    Os { what: String, source: io::Error },
}

impl Error {
    pub(crate) fn os(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Os { what: what.into(), source }
    }
}

/// Something that cannot be saved.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[non_exhaustive]
pub struct Obstacle {
    /// The process that has it: the caller, or one below it.
    pub pid: i32,
    /// Name of that process.
    pub name: String,
    /// Descriptor that it is about.
    pub fd: Option<i32>,
    /// What is in the way: "fd 7: an io_uring instance".
    pub what: String,
    /// What to do about it.
    pub remedy: String,
    /// The kind for `--allow` (see [`Checkpoint::allow`](crate::Checkpoint::allow)), if it helps.
    pub allow: Option<String>,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PID {} ({}) {}; {}", self.pid, self.name, self.what, self.remedy)
    }
}

fn list(obstacles: &[Obstacle]) -> String {
    let lines: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
