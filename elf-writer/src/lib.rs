//! Plan + stub -> one executable ELF file.

pub mod plan;

pub use plan::{ContentSource, Plan, Source, Tables};
