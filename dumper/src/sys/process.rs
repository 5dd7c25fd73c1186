//! Signals to processes, and descriptors that stand for them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// kill(2); failure means that the process is gone.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: takes numbers only.
    unsafe { libc::kill(pid, signal) };
}

/// tgkill(2); failure means that the thread is gone.
pub fn tgkill(pid: i32, tid: i32, signal: i32) {
    // SAFETY: takes numbers only.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
}

/// pidfd_open(2).
///
/// # Errors
/// ESRCH when there is no such process, EINVAL when it is a thread's id.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// pidfd_send_signal(2): cannot hit another process that got the same id.
///
/// # Errors
/// ESRCH when the process is gone.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no siginfo is passed.
    let r = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0, 0) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What two threads may share; KCMP_* of kcmp(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// CLONE_FILES.
    Descriptors = 2,
    /// CLONE_FS.
    Directories = 3,
}

/// kcmp(2): whether two threads share a resource.
///
/// # Errors
/// EPERM, ESRCH, and ENOSYS on kernels built without kcmp.
pub fn share(tid1: i32, tid2: i32, what: Shared) -> io::Result<bool> {
    // SAFETY: takes numbers only.
    let r = unsafe { libc::syscall(libc::SYS_kcmp, tid1, tid2, what as i32, 0, 0) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r == 0) }
}
