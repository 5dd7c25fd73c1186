//! Descriptors.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Two connected sockets, above the standard streams, closed on exec.
///
/// # Errors
/// Of socketpair(2).
pub fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: writes two numbers; they are ours then.
    let (a, b) = unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        check(libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()))?;
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    };
    Ok((above(a, 3)?, above(b, 3)?))
}

/// Moves a descriptor to the lowest free number that is not below `min`.
///
/// # Errors
/// Of fcntl(2).
pub fn above(fd: OwnedFd, min: RawFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= min { Ok(fd) } else { duplicate_above(fd.as_raw_fd(), min) }
}

/// A duplicate, closed on exec, at the lowest free number that is not below `min`.
///
/// # Errors
/// Of fcntl(2).
pub fn duplicate_above(fd: RawFd, min: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: touches no memory; the number is ours then.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, min))?)) }
}

/// A file in memory that may be sealed and executed, closed on exec.
///
/// # Errors
/// Of memfd_create(2).
pub fn memfd(name: &CStr) -> io::Result<OwnedFd> {
    // Linux 6.3; where it is not known, all can be executed.
    const MFD_EXEC: libc::c_uint = 0x10;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let make = |flags| -> io::Result<OwnedFd> {
        // SAFETY: the name is only read; the number is ours then.
        unsafe { Ok(OwnedFd::from_raw_fd(check(libc::memfd_create(name.as_ptr(), flags))?)) }
    };
    match make(flags | MFD_EXEC) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => make(flags),
        made => made,
    }
}

/// Makes a file in memory unchangeable.
///
/// # Errors
/// Of fcntl(2).
pub fn seal(fd: RawFd) -> io::Result<()> {
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: touches no memory.
    check(unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, seals) }).map(drop)
}

/// Whether a descriptor is closed on exec.
///
/// # Errors
/// When it is not open.
pub fn cloexec(fd: RawFd) -> io::Result<bool> {
    // SAFETY: touches no memory.
    Ok(check(unsafe { libc::fcntl(fd, libc::F_GETFD) })? & libc::FD_CLOEXEC != 0)
}

/// # Errors
/// When it is not open.
pub fn set_cloexec(fd: RawFd, on: bool) -> io::Result<()> {
    // SAFETY: touches no memory.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, if on { libc::FD_CLOEXEC } else { 0 }) }).map(drop)
}

/// Has every descriptor from `first` on closed on exec.
///
/// # Errors
/// Before Linux 5.11.
pub fn set_cloexec_from(first: RawFd) -> io::Result<()> {
    // CLOSE_RANGE_CLOEXEC
    let (first, last, flags) = (first as libc::c_uint, libc::c_uint::MAX, 4);
    // SAFETY: touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    check(result as i32).map(drop)
}

/// Closes a descriptor that nobody owns by type: a kept image.
pub fn close_kept(fd: RawFd) {
    // SAFETY: it is an image of ours by its name; nobody else uses it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}
