//! Dumps a running process: `/proc` and ptrace -> [`collect::Facts`] -> [`plan`] -> an image.
//!
//! [`ptrace`] and [`sys`] hold all unsafe code of this crate.

pub mod caller;
pub mod cli;
pub mod collect;
pub mod contents;
pub mod dump;
pub mod error;
pub mod failpoint;
pub mod farewell;
pub mod freezer;
mod keep;
mod narrate;
pub mod plan;
pub mod preflight;
pub mod ptrace;
pub mod report;
pub mod schedule;
mod snapshot;
pub mod sys;
pub mod target;
pub mod track;
