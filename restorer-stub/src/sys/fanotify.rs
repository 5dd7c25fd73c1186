//! fanotify.

use super::{CPath, Fd, Result, sys};
use linux_raw_sys::general::*;

/// fanotify_init(2).
pub fn init(flags: u32, event_flags: u32) -> Result<Fd> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_fanotify_init, flags, event_flags) }.map(|fd| Fd(fd as i32))
}

/// fanotify_mark(2).
pub fn mark(fd: Fd, flags: u32, mask: u64, path: &CPath) -> Result<()> {
    // SAFETY: the path is NUL-terminated and only read.
    unsafe { sys!(__NR_fanotify_mark, fd.0, flags, mask, AT_FDCWD, path.as_ptr()) }.map(drop)
}

/// Whether a path is where something is mounted, as statx(2) tells since Linux 5.8.
pub fn is_mount_point(path: &CPath) -> Result<bool> {
    const MOUNT_ROOT: u64 = 0x2000;
    const WORDS: usize = size_of::<statx>() / 8;
    let mut buf = [0u64; WORDS];
    let flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
    // SAFETY: the path is NUL-terminated; the kernel fills one `struct statx`, whose size that is.
    unsafe { sys!(__NR_statx, AT_FDCWD, path.as_ptr(), flags, STATX_BASIC_STATS, buf.as_mut_ptr()) }?;
    // stx_attributes.
    Ok(buf[1] & MOUNT_ROOT != 0)
}
