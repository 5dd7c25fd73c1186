//! Plan + stub -> one executable ELF file. `FORMAT.md` beside this crate describes that file.
//!
//! [`write::write_image`] streams the contents to an unnamed file while the target is stopped;
//! [`write::PendingImage::commit`] syncs it and gives it its name.

mod alias;
mod buffers;
mod compress;
mod dedup;
pub mod elf;
pub mod error;
pub mod hole;
pub mod layout;
pub mod notes;
mod notice;
pub mod plan;
pub mod restorer;
pub mod sections;
pub mod stream;
pub mod stub;
pub mod write;

pub use error::WriteError;
pub use plan::{ContentSource, DROP_ZERO, Piece, Plan, Source, Stage, Tables, UNCHANGED};
pub use write::{PendingImage, Summary, write_image};
