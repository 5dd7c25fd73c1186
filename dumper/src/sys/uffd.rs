//! userfaultfd(2), as far as it tracks writes (UFFD_FEATURE_WP_ASYNC, Linux 6.7).

use std::io::{Error, Result};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `include/uapi/linux/userfaultfd.h`.
const UFFD_API: u64 = 0xaa;
const UFFD_USER_MODE_ONLY: i32 = 1;
const WP_UNPOPULATED: u64 = 1 << 13;
const WP_ASYNC: u64 = 1 << 15;
const REGISTER_MODE_WP: u64 = 1 << 1;
/// `_IOWR(0xaa, 0x3f, struct uffdio_api)`, `_IOWR(0xaa, 0, struct uffdio_register)`, `_IOR(0xaa, 1, struct
/// uffdio_range)`.
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_UNREGISTER: libc::c_ulong = 0x8010_aa01;
/// `_IOWR(0xaa, 6, struct uffdio_writeprotect)`.
const UFFDIO_WRITEPROTECT: libc::c_ulong = 0xc018_aa06;

/// Flags with which userfaultfd(2) needs no privilege. No fault is ever handled: the kernel itself notes a write.
pub const FLAGS: i32 = libc::O_CLOEXEC | UFFD_USER_MODE_ONLY;

fn ioctl<const N: usize>(fd: BorrowedFd<'_>, number: libc::c_ulong, mut arg: [u64; N]) -> Result<()> {
    // SAFETY: `arg` has the length and layout that `number` says, and outlives the call.
    match unsafe { libc::ioctl(fd.as_raw_fd(), number, arg.as_mut_ptr()) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// Makes a new one track writes.
///
/// # Errors
/// EINVAL before Linux 6.7.
pub fn begin(fd: BorrowedFd<'_>) -> Result<()> {
    ioctl(fd, UFFDIO_API, [UFFD_API, WP_ASYNC | WP_UNPOPULATED, 0])
}

/// Tracks writes to what of the range is mapped; nothing changes where it did already.
///
/// # Errors
/// EBUSY where another one is, ESRCH when the address space is gone.
pub fn register(fd: BorrowedFd<'_>, range: &Range<u64>) -> Result<()> {
    ioctl(fd, UFFDIO_REGISTER, [range.start, range.end - range.start, REGISTER_MODE_WP, 0])
}

/// The reverse of [`register`].
///
/// # Errors
/// ESRCH when the address space is gone.
pub fn unregister(fd: BorrowedFd<'_>, range: &Range<u64>) -> Result<()> {
    ioctl(fd, UFFDIO_UNREGISTER, [range.start, range.end - range.start])
}

/// Takes the protection from all pages of a range, even from those that the kernel forgot when they were moved
/// (mremap(2) before Linux 6.13).
///
/// # Errors
/// ENOENT where nothing is registered.
pub fn unprotect(fd: BorrowedFd<'_>, range: &Range<u64>) -> Result<()> {
    ioctl(fd, UFFDIO_WRITEPROTECT, [range.start, range.end - range.start, 0])
}

/// Whether writes can be tracked here at all, tried with our own memory.
///
/// # Errors
/// ENOSYS, EPERM where userfaultfd is missing or forbidden; EINVAL before Linux 6.7.
pub fn available() -> Result<()> {
    // SAFETY: takes flags only.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, FLAGS) };
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    begin(std::os::fd::AsFd::as_fd(&fd))
}
