//! Descriptors, and the kernel objects behind them. One file per kind.

use crate::ptrace::Frozen;

/// What the kernel says about one descriptor.
#[derive(Clone, Debug, Default)]
pub struct FdFacts {}

/// Observes the descriptor table of a stopped process.
///
/// # Errors
/// When a file below `/proc/PID` cannot be read, or the target died.
pub fn collect(_target: &mut Frozen) -> anyhow::Result<Vec<FdFacts>> {
    Ok(Vec::new())
}
