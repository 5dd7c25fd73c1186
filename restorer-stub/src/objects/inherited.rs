//! Descriptors 0 to 2 that come from whoever runs the image.

use super::make::Maker;
use crate::files;
use crate::report::{Error, Result};
use crate::sys::{Fd, fd};
use ckpt_format::Object;
use ckpt_format::fd::regular::Inherited;
use linux_raw_sys::general::*;

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFSOCK: u32 = 0o140_000;

pub fn take(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let saved: &Inherited = o.ctx.image.payload(object.payload)?;
    let given = usize::try_from(saved.from_fd).ok().and_then(|n| o.caller.get(n).copied().flatten());
    let Some(given) = given else {
        // Closed by the caller. Left so, the program's next open(2) would become its stdio.
        let null = fd::open(b"/dev/null", O_RDWR, 0)
            .map_err(|e| Error::os("the caller's descriptor is closed, and /dev/null")(e).on(o.on(index)))?;
        return o.raise(null).map(Some);
    };
    let fd = fd::dup_above(given, o.ctx.high_fd())
        .map_err(|e| Error::os("cannot take the caller's descriptor")(e).on(o.on(index)))?;
    blocking_as_saved(o, fd, object.open_flags).map(Some)
}

/// O_NONBLOCK belongs to the open file description, which the caller's shell goes on using: where
/// the program had it otherwise, it gets a description of its own.
fn blocking_as_saved(o: &Maker, fd: Fd, saved: u32) -> Result<Fd> {
    let now = fd::fcntl(fd, F_GETFL, 0).map_err(Error::os("cannot read the caller's flags"))? as u32;
    let kind = fd::fstat(fd).map_or(S_IFREG, |s| s.st_mode & S_IFMT);
    if (now ^ saved) & O_NONBLOCK == 0 || kind == S_IFREG {
        return Ok(fd);
    }
    let wanted = now & (O_ACCMODE | O_APPEND) | saved & O_NONBLOCK;
    if kind != S_IFSOCK
        && let Ok(own) = files::reopen(fd, wanted | O_NOCTTY)
    {
        fd::close(fd);
        return o.raise(own);
    }
    let flags = (now & !O_NONBLOCK | saved & O_NONBLOCK) as usize;
    fd::fcntl(fd, F_SETFL, flags).map_err(Error::os("cannot set O_NONBLOCK of the caller's descriptor"))?;
    Ok(fd)
}
