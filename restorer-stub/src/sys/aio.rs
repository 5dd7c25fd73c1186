//! AIO contexts (io_setup(2)).

use super::{Fd, Result, sys};

/// io_setup(2): the context, which is the address of its ring.
pub fn setup(events: u32) -> Result<usize> {
    let mut context = 0usize;
    // SAFETY: the kernel writes one word, and maps the ring into free address space.
    unsafe { sys!(__NR_io_setup, events, &raw mut context) }?;
    Ok(context)
}

/// io_destroy(2).
///
/// # Safety
/// There is no reference into its ring, which is unmapped.
pub unsafe fn destroy(context: usize) -> Result<()> {
    // SAFETY: the caller's.
    unsafe { sys!(__NR_io_destroy, context) }.map(drop)
}

/// Submits a read of nothing, which is complete at once.
pub fn submit_nothing(context: usize, file: Fd) -> Result<()> {
    // `struct iocb`: data, key and flags, opcode IOCB_CMD_PREAD (0), priority and descriptor, then buffer,
    // length and offset, all 0.
    let iocb = [0u64, 0, (file.0 as u64) << 32, 0, 0, 0, 0, 0];
    let list = [iocb.as_ptr()];
    // SAFETY: one iocb, of which the kernel writes the key; it reads nothing into no buffer.
    unsafe { sys!(__NR_io_submit, context, 1, list.as_ptr()) }.map(drop)
}

/// io_getevents(2): takes one event.
pub fn take_event(context: usize) -> Result<()> {
    let mut event = [0u64; 4];
    // SAFETY: the kernel writes one `struct io_event`.
    unsafe { sys!(__NR_io_getevents, context, 1, 1, event.as_mut_ptr(), 0) }.map(drop)
}
