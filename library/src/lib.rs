//! Checkpoints that a program makes of itself.
//!
//! [`checkpoint`] returns like fork(2) does, more than once: in the program that called it, when the image is
//! written, and again in every run of the image. An image is one executable file; nothing needs to be installed
//! where it runs. All of the program is in it: threads, memory, descriptors, children.
//!
//! ```no_run
//! use ckpt::Outcome;
//!
//! // ... hours of work ...
//! match ckpt::checkpoint("job.ckpt")? {
//!     Outcome::Saved { id } => println!("saved as checkpoint {id}; ./job.ckpt goes on from here"),
//!     Outcome::Restored { .. } => println!("restored"),
//! }
//! // ... more work ...
//! # Ok::<(), ckpt::Error>(())
//! ```
//!
//! Checkpoints can be kept in memory, and returned to ([`revert`]): the process keeps its id, and becomes what it
//! was.
//!
//! ```no_run
//! use ckpt::Outcome;
//!
//! let start = match ckpt::checkpoint_in_memory()? {
//!     Outcome::Saved { id } | Outcome::Restored { id } => id,
//! };
//! // Something that is not to be remembered.
//! if std::fs::exists("try-again")? {
//!     std::fs::remove_file("try-again")?;
//!     ckpt::revert(start)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it works
//!
//! Nobody can stop and read itself, so `ckpt-dump` does it, which is started for that, is no child of the program
//! (no SIGCHLD, nothing for wait(2)), and ends with the image. There is no daemon. It is looked for in the
//! environment (`CKPT_DUMP`), then in `PATH`, `/usr/local/bin`, `/usr/bin`, `/usr/lib/ckpt`; a library that was
//! built with `CKPT_EMBED` has one inside.
//!
//! While it is saved the program stands still, the thread that called until the image is complete. What cannot be
//! saved is refused ([`Error::Refused`]), with everything that is in the way; nothing is lost silently.
//!
//! # Threads, forks, signals
//!
//! Any thread may call; others go on in a restored run, where they were. Calls wait for each other. All signals
//! are blocked in the calling thread meanwhile, and come afterwards.

mod dumper;
mod error;
mod hooks;
mod images;
mod revert;
mod save;
mod sys;

pub use error::{Error, Obstacle};
pub use hooks::{Hook, after, before, on_restored};

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

/// A checkpoint of this process, and of those that were restored from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u64);

impl Id {
    /// As a number: 1 for the first checkpoint of a process, and so on.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// An id that was kept as a number.
impl From<u64> for Id {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// In which run a checkpoint has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// In the program that made it: it is complete.
    Saved { id: Id },
    /// In a run that goes on from it.
    Restored { id: Id },
}

impl Outcome {
    /// The checkpoint.
    #[must_use]
    pub fn id(self) -> Id {
        match self {
            Self::Saved { id } | Self::Restored { id } => id,
        }
    }

    #[must_use]
    pub fn is_restored(self) -> bool {
        matches!(self, Self::Restored { .. })
    }
}

/// How a checkpoint is made.
///
/// ```no_run
/// let outcome = ckpt::Checkpoint::new().compress().allow("inotify-events").save("job.ckpt")?;
/// # Ok::<(), ckpt::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    options: Vec<OsString>,
}

impl Checkpoint {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Accepts the loss of this kind of state: `--allow KIND` of ckpt-dump, whose `--help` lists the kinds.
    #[must_use]
    pub fn allow(self, kind: &str) -> Self {
        self.option("--allow").option(kind)
    }

    /// Compresses the image.
    #[must_use]
    pub fn compress(self) -> Self {
        self.option("--compress")
    }

    /// Other threads and processes go on as soon as there is a copy-on-write copy of their memory.
    #[must_use]
    pub fn snapshot(self) -> Self {
        self.option("--snapshot")
    }

    /// Any other option of ckpt-dump that says how (not what, nor where to).
    #[must_use]
    pub fn option(mut self, option: impl Into<OsString>) -> Self {
        self.options.push(option.into());
        self
    }

    /// See [`checkpoint`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<Outcome, Error> {
        save::checkpoint(save::To::File(path.as_ref()), &self.options)
    }

    /// See [`checkpoint_in_memory`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn save_in_memory(&self) -> Result<Outcome, Error> {
        save::checkpoint(save::To::Memory, &self.options)
    }
}

/// Saves the calling program, with all below it, as the executable file `path`, replacing what has that name.
/// Returns [`Outcome::Saved`], and in every run of the file [`Outcome::Restored`].
///
/// # Errors
/// See [`Error`]. The program runs on, and `path` is what it was.
pub fn checkpoint(path: impl AsRef<Path>) -> Result<Outcome, Error> {
    Checkpoint::new().save(path)
}

/// As [`checkpoint`], into memory: for [`revert`] of this process, and of what it becomes by that. It is gone
/// when the process ends, is not in other checkpoints, and takes as much memory as the program has, and its
/// libraries.
///
/// # Errors
/// See [`Error`].
pub fn checkpoint_in_memory() -> Result<Outcome, Error> {
    Checkpoint::new().save_in_memory()
}

/// Returns to a checkpoint, in memory or in a file: the calling program is replaced by what it was then, as by
/// execve(2), in the same process. There [`checkpoint`] returns [`Outcome::Restored`]. All checkpoints in memory
/// stay, also later ones.
///
/// Only the program goes back, not the world: files that it wrote keep what was written; connections to others
/// are closed now. Threads have other ids afterwards than at the checkpoint (where the C library keeps them, they
/// are corrected). Signals that wait are those that other processes sent; the program's own, and its timers, end
/// with it. A checkpoint with children cannot be returned to, and none can while the process has
/// children.
///
/// What is found out too late, such as a file of the checkpoint that is gone, ends the process with exit status
/// 125 and a message, as for every image.
///
/// # Errors
/// See [`Error`]. The program runs on. If this returns, it has failed.
pub fn revert(id: Id) -> Result<Infallible, Error> {
    revert::revert(id)
}

/// The checkpoints that [`revert`] knows here: in memory, and files that this process, or the one that it was
/// restored from, wrote. In the order in which they were made.
#[must_use]
pub fn checkpoints() -> Vec<Id> {
    images::all()
}

/// Forgets a checkpoint: what was in memory is freed, a file stays. Tells whether there was one.
pub fn forget(id: Id) -> bool {
    images::forget(id)
}
