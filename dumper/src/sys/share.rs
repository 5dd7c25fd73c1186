//! Files that share blocks.

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;

/// ioctl_ficlonerange(2): `len` bytes of `from` become those of `to`, without being copied.
///
/// # Errors
/// EOPNOTSUPP, EINVAL, EXDEV where the file system cannot.
pub fn clone_range(from: &File, from_at: u64, to: &File, to_at: u64, len: u64) -> Result<()> {
    let range = libc::file_clone_range {
        src_fd: i64::from(from.as_raw_fd()),
        src_offset: from_at,
        src_length: len,
        dest_offset: to_at,
    };
    // SAFETY: both descriptors are open; the kernel only reads the struct, which lives until it returns.
    match unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONERANGE, &raw const range) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}
