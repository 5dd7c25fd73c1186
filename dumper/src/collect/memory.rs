//! The address space: VMAs, which pages are populated, guard ranges.

use crate::ptrace::Frozen;

/// What the kernel says about one address space.
#[derive(Clone, Debug, Default)]
pub struct MemoryFacts {}

/// Observes the address space of a stopped process.
///
/// # Errors
/// When a file below `/proc/PID` cannot be read, or the target died.
pub fn collect(_target: &mut Frozen) -> anyhow::Result<MemoryFacts> {
    Ok(MemoryFacts::default())
}
