//! Address spaces: which VMAs, which bytes of them are stored, where the hole is.

use super::Builder;
use crate::collect::TaskFacts;

/// Adds the task's address space and its contents; returns its index in the mm table.
pub fn plan(_builder: &mut Builder, _task: &TaskFacts) -> u32 {
    ckpt_format::NONE
}
