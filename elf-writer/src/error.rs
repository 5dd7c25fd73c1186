//! Why an image could not be written.

use std::io;
use std::path::PathBuf;

/// Nothing is left behind under the image's name after any of these.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The image file: creation, writing, syncing or renaming failed (ENOSPC, EACCES, EROFS ...).
    #[error("{what} {path}: {source}", path = path.display())]
    Output { what: &'static str, path: PathBuf, source: io::Error },
    /// Bytes of the target could not be read.
    #[error("cannot read the bytes to store ({what}): {source}")]
    Content { what: String, source: io::Error },
    /// [`crate::Plan::parent`] cannot be used.
    #[error("the image named by --parent cannot be used: {0}")]
    Parent(String),
    /// The progress callback asked to stop.
    #[error("writing was interrupted")]
    Interrupted,
    /// The plan contradicts itself: a bug of the dumper.
    #[error("inconsistent plan: {0}")]
    Plan(String),
    /// The stub that was built into this program is unusable.
    #[error("the built-in restorer stub is unusable: {0}")]
    Stub(String),
}
