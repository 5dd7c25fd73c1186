//! Signals to processes, and descriptors that stand for them.

use std::cmp::Ordering;
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

/// What two threads or processes may share; KCMP_* of kcmp(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// CLONE_VM.
    Memory = 1,
    /// CLONE_FILES.
    Descriptors = 2,
    /// CLONE_FS.
    Directories = 3,
    /// CLONE_SIGHAND.
    Handlers = 4,
    /// CLONE_SYSVSEM.
    SemaphoreUndo = 6,
}

/// kcmp(2): `Equal` when two threads share a resource; otherwise the kernel's own, stable, order.
///
/// # Errors
/// EPERM, ESRCH, and ENOSYS on kernels built without kcmp.
pub fn compare(tid1: i32, tid2: i32, what: Shared) -> io::Result<Ordering> {
    // SAFETY: takes numbers only.
    match unsafe { libc::syscall(libc::SYS_kcmp, tid1, tid2, what as i32, 0, 0) } {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 => Ok(Ordering::Greater),
        -1 => Err(io::Error::last_os_error()),
        _ => Err(io::Error::other("kcmp cannot order these")),
    }
}

/// As [`compare`]: whether they share it.
///
/// # Errors
/// As [`compare`].
pub fn share(tid1: i32, tid2: i32, what: Shared) -> io::Result<bool> {
    compare(tid1, tid2, what).map(|order| order == Ordering::Equal)
}

/// For each process the index of the first one with which it shares the resource (perhaps itself).
///
/// # Errors
/// As [`compare`].
pub fn sharing(pids: &[i32], what: Shared) -> io::Result<Vec<usize>> {
    let mut failure = None;
    let mut order = |a: usize, b: usize| {
        compare(pids[a], pids[b], what).unwrap_or_else(|e| {
            failure = Some(e);
            a.cmp(&b)
        })
    };
    let mut sorted: Vec<usize> = (0..pids.len()).collect();
    sorted.sort_by(|a, b| if a == b { Ordering::Equal } else { order(*a, *b).then(a.cmp(b)) });
    let mut first: Vec<usize> = (0..pids.len()).collect();
    for pair in sorted.windows(2) {
        if order(pair[0], pair[1]) == Ordering::Equal {
            first[pair[1]] = first[pair[0]];
        }
    }
    failure.map_or(Ok(first), Err)
}

/// Our own session keyring (keyctl(2) KEYCTL_GET_KEYRING_ID), without creating one.
#[must_use]
pub fn session_keyring() -> Option<i64> {
    const GET_KEYRING_ID: libc::c_long = 0;
    const SESSION: libc::c_long = -3;
    // SAFETY: no pointers.
    let id = unsafe { libc::syscall(libc::SYS_keyctl, GET_KEYRING_ID, SESSION, 0) };
    (id > 0).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_shares_with_itself_only() {
        let (us, init) = (std::process::id() as i32, 1);
        let found = sharing(&[us, us], Shared::Memory).unwrap();
        assert_eq!(found, [0, 0]);
        // Without privileges, init cannot be asked about.
        if let Ok(found) = sharing(&[us, init, us], Shared::Directories) {
            assert_eq!(found, [0, 1, 0]);
        }
    }
}
