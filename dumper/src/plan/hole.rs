//! Where the stub goes: a hole in the address space of every task.

use super::Builder;
use crate::collect::Facts;
use elf_writer::stub::Stub;
use elf_writer::{hole, layout};
use std::ops::Range;

/// Chooses the hole for everything that the builder holds by now.
///
/// # Errors
/// When no gap is large enough.
pub fn plan(builder: &mut Builder, facts: &Facts, stub: &Stub) -> Result<(), String> {
    let need = layout::hole_size(&builder.tables, stub);
    let kernels: Vec<Range<u64>> = facts
        .tasks
        .iter()
        .flat_map(|t| {
            let v = &t.mm.vdso;
            [v.addr..v.addr + v.len, v.vvar_addr..v.vvar_addr + v.vvar_len]
        })
        .collect();
    let Some(addr) = hole::find(&builder.tables.vmas, &builder.tables.mms, &kernels, need) else {
        return Err(format!("no gap of {need} bytes is left in its address space for the restorer"));
    };
    builder.header.hole_addr = addr;
    builder.header.hole_len = need;
    Ok(())
}
