//! Descriptors. One file per kind of object; this one gives every saved descriptor its number.

use crate::ctx::Ctx;
use crate::report::{Error, Result};
use crate::sys::fd;
use ckpt_format::{Image, Task};

/// Gives the program its descriptors. Runs in the process that becomes the program, with nothing
/// mapped but the stub, before memory and threads. Afterwards exactly the saved descriptors are open,
/// plus the stub's own at `ctx.high_fd()` and above (closed by the stub later).
pub fn restore(ctx: &Ctx, task: &Task) -> Result<()> {
    let table = Image::get(ctx.image.fd_tables, task.fd_table, "descriptor table")?;
    let fds = Image::slice(ctx.image.fds, table.fds, "descriptors")?;
    let mut next = 0;
    for entry in fds {
        let number =
            u32::try_from(entry.fd).map_err(|_| Error::new("the image is damaged: bad descriptor"))?;
        if number > next {
            close(next, number - 1)?;
        }
        next = number + 1;
        if entry.fd > 2 {
            return Err(Error::new("cannot restore the descriptor yet").fd(entry.fd));
        }
    }
    close(next, ctx.high_fd().saturating_sub(1))
}

/// What can only be done when memory and threads are there: seals, locks, owners.
pub fn finish(_ctx: &Ctx, _task: &Task) -> Result<()> {
    Ok(())
}

fn close(first: u32, last: u32) -> Result<()> {
    fd::close_range(first, last).map_err(Error::os("cannot close descriptors"))
}
