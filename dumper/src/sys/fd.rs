//! Questions about open file descriptions: ours are duplicates of the target's, so nothing here may
//! change what the two share (offset, status flags, queued data).

use std::cmp::Ordering;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Turns the result of a libc call that returns -1 on error into a `Result`.
fn check(result: i32) -> Result<i32> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// pidfd_getfd(2): a duplicate of the target's descriptor, for the same open file description.
///
/// # Errors
/// EPERM without ptrace access, EBADF when the target has no such descriptor.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, fd: i32) -> Result<OwnedFd> {
    // SAFETY: no pointers; the kernel checks all three arguments.
    let new = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) };
    let new = check(new as i32)?;
    // SAFETY: a fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// kcmp(2) KCMP_FILE: `Equal` when two descriptors (process and number) share an open file
/// description; otherwise the kernel's own, stable, order.
///
/// # Errors
/// EPERM, EBADF, and ENOSYS on kernels built without kcmp.
pub fn kcmp_file((pid1, fd1): (i32, i32), (pid2, fd2): (i32, i32)) -> Result<Ordering> {
    const KCMP_FILE: i32 = 0;
    // SAFETY: no pointers.
    match unsafe { libc::syscall(libc::SYS_kcmp, pid1, pid2, KCMP_FILE, fd1 as usize, fd2 as usize) } {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 => Ok(Ordering::Greater),
        -1 => Err(Error::last_os_error()),
        _ => Err(Error::other("kcmp cannot order open files")),
    }
}

/// kcmp(2) KCMP_EPOLL_TFD: whether the first descriptor (process and number) is what the epoll
/// instance, the second one, watches under the number `target`; `nth` counts several registrations
/// under one number.
///
/// # Errors
/// ENOENT when there is no such registration; see [`kcmp_file`] for the others.
pub fn kcmp_epoll_target((pid, fd): (i32, i32), epoll: (i32, i32), target: i32, nth: u32) -> Result<bool> {
    const KCMP_EPOLL_TFD: i32 = 7;
    #[repr(C)]
    struct Slot {
        efd: u32,
        tfd: u32,
        toff: u32,
    }
    let slot = Slot { efd: epoll.1 as u32, tfd: target as u32, toff: nth };
    // SAFETY: `slot` has the layout of `struct kcmp_epoll_slot` and outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_kcmp, pid, epoll.0, KCMP_EPOLL_TFD, fd as usize, std::ptr::from_ref(&slot))
    };
    match result {
        0 => Ok(true),
        -1 => Err(Error::last_os_error()),
        _ => Ok(false),
    }
}

/// A fcntl(2) question without argument: F_GETFL, F_GETSIG, F_GETPIPE_SZ, F_GET_SEALS, F_GETLEASE.
///
/// # Errors
/// As fcntl(2).
pub fn fcntl_get(fd: BorrowedFd<'_>, cmd: i32) -> Result<i32> {
    // SAFETY: the commands above read no third argument.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), cmd) })
}

/// F_GETOWN_EX: type (F_OWNER_TID 0, F_OWNER_PID 1, F_OWNER_PGRP 2) and id; id 0 for none.
///
/// # Errors
/// As fcntl(2).
pub fn owner(fd: BorrowedFd<'_>) -> Result<(i32, i32)> {
    const F_GETOWN_EX: i32 = 16;
    let mut owner = [0_i32; 2];
    // SAFETY: `owner` has the layout of `struct f_owner_ex`.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), F_GETOWN_EX, owner.as_mut_ptr()) })?;
    Ok((owner[0], owner[1]))
}

/// A pipe of our own: read end, write end, both non-blocking.
///
/// # Errors
/// EMFILE, ENFILE.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0_i32; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    // SAFETY: fresh descriptors, owned by nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// F_SETPIPE_SZ, of a pipe of our own.
///
/// # Errors
/// EPERM above `/proc/sys/fs/pipe-max-size`.
pub fn set_pipe_size(fd: BorrowedFd<'_>, bytes: i32) -> Result<()> {
    // SAFETY: an integer argument.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) }).map(drop)
}

/// tee(2): copies what waits in the pipe `from` to `to` without consuming it; 0 when there is nothing.
///
/// # Errors
/// As tee(2).
pub fn tee(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> Result<usize> {
    // SAFETY: no pointers.
    let n = unsafe { libc::tee(from.as_raw_fd(), to.as_raw_fd(), len, libc::SPLICE_F_NONBLOCK) };
    match usize::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) => match Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::EAGAIN) => Ok(0),
            e => Err(e),
        },
    }
}

/// Whether tee(2) would have to wait for a writer to an empty pipe, because there is one.
///
/// # Errors
/// As tee(2).
pub fn tee_would_wait(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool> {
    // SAFETY: no pointers.
    let n = unsafe { libc::tee(from.as_raw_fd(), to.as_raw_fd(), 1, libc::SPLICE_F_NONBLOCK) };
    match Error::last_os_error() {
        _ if n >= 0 => Ok(false),
        e if e.raw_os_error() == Some(libc::EAGAIN) => Ok(true),
        e => Err(e),
    }
}

/// Events of poll(2) that are true now (POLLERR and POLLHUP always included).
///
/// # Errors
/// As poll(2).
pub fn poll_now(fd: BorrowedFd<'_>, events: i16) -> Result<i16> {
    let mut p = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one pollfd.
    check(unsafe { libc::poll(&raw mut p, 1, 0) })?;
    Ok(p.revents)
}

/// FIONREAD: bytes that wait to be read (of a datagram socket: of the first datagram).
///
/// # Errors
/// ENOTTY where the question makes no sense.
pub fn readable_bytes(fd: BorrowedFd<'_>) -> Result<usize> {
    let mut n = 0_i32;
    // SAFETY: FIONREAD writes one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut n) })?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// SIOCOUTQ: bytes sent that the other end has not received (of a unix socket: memory that they take).
///
/// # Errors
/// ENOTTY where the question makes no sense.
pub fn unreceived_bytes(fd: BorrowedFd<'_>) -> Result<usize> {
    let mut n = 0_i32;
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut n) })?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// TCGETS2: `struct termios2` as bytes.
///
/// # Errors
/// ENOTTY for what is no terminal; EIO for one that was hung up.
pub fn termios2(fd: BorrowedFd<'_>) -> Result<[u8; 44]> {
    let mut bytes = [0_u8; 44];
    // SAFETY: TCGETS2 writes a `struct termios2`: 4 words, line, 19 control characters, 2 speeds.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TCGETS2, bytes.as_mut_ptr()) })?;
    Ok(bytes)
}

/// TIOCGWINSZ: `struct winsize` as bytes.
///
/// # Errors
/// As [`termios2`].
pub fn winsize(fd: BorrowedFd<'_>) -> Result<[u8; 8]> {
    let mut bytes = [0_u8; 8];
    // SAFETY: TIOCGWINSZ writes a `struct winsize`: four 16-bit numbers.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, bytes.as_mut_ptr()) })?;
    Ok(bytes)
}

/// timerfd_gettime(2). Folds expirations of a periodic timer into its tick count, as the program's
/// own next look at it would.
///
/// # Errors
/// As timerfd_gettime(2).
pub fn timerfd_touch(fd: BorrowedFd<'_>) -> Result<()> {
    let mut spec = [0_i64; 4];
    // SAFETY: `spec` has the layout of `struct itimerspec` on 64-bit kernels.
    let n = unsafe { libc::syscall(libc::SYS_timerfd_gettime, fd.as_raw_fd(), spec.as_mut_ptr()) };
    check(n as i32).map(drop)
}

/// Whether an eventfd with this count has EFD_SEMAPHORE, for kernels that do not show it (before
/// 6.5): reading takes 1 from a semaphore, else everything. The count is put back at once; who polls
/// looks at the count again before an event is reported. `None` when somebody else used it meanwhile.
#[must_use]
pub fn eventfd_is_semaphore(fd: BorrowedFd<'_>, count: u64) -> Option<bool> {
    let add = |n: u64| {
        // SAFETY: 8 bytes that are only read.
        n == 0 || unsafe { libc::write(fd.as_raw_fd(), (&raw const n).cast(), 8) } == 8
    };
    let take = || {
        let mut n = 0_u64;
        let ready = poll_now(fd, libc::POLLIN).is_ok_and(|events| events & libc::POLLIN != 0);
        // SAFETY: the kernel writes at most 8 bytes.
        (ready && unsafe { libc::read(fd.as_raw_fd(), (&raw mut n).cast(), 8) } == 8).then_some(n)
    };
    let total = count.max(2);
    if !add(total - count) {
        return None;
    }
    match take()? {
        1 if total - 1 > count => take().map(|_| true),
        1 => add(count - (total - 1)).then_some(true),
        _ => add(count).then_some(false),
    }
}

/// The run of data at or after `offset`, as lseek(2) SEEK_DATA and SEEK_HOLE tell: `None` when only
/// holes follow. Moves the offset: only for a description of our own.
///
/// # Errors
/// EINVAL where the file system cannot tell.
pub fn next_data(fd: BorrowedFd<'_>, offset: u64) -> Result<Option<(u64, u64)>> {
    let seek = |to: i64, whence: i32| {
        // SAFETY: no pointers.
        let n = unsafe { libc::lseek(fd.as_raw_fd(), to, whence) };
        if n < 0 { Err(Error::last_os_error()) } else { Ok(n) }
    };
    match seek(offset as i64, libc::SEEK_DATA) {
        Ok(start) => Ok(Some((start as u64, seek(start, libc::SEEK_HOLE)? as u64))),
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(e) => Err(e),
    }
}

/// PIDFD_GET_INFO (Linux 6.15): the wait status of a process that is gone; `None` where it is not told.
#[must_use]
pub fn pidfd_exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    /// `_IOWR(0xff, 11, struct pidfd_info)` of its first version, 64 bytes.
    const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    let mut info = [0_u64; 8];
    info[0] = PIDFD_INFO_EXIT;
    // SAFETY: the kernel reads and writes the 64 bytes that the number says.
    let r = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, info.as_mut_ptr()) };
    (r == 0 && info[0] & PIDFD_INFO_EXIT != 0).then_some((info[7] >> 32) as i32)
}

/// open_by_handle_at(2) with O_PATH, on the file system of `mount`.
///
/// # Errors
/// EPERM without CAP_DAC_READ_SEARCH, ESTALE when there is no such file any more.
pub fn open_by_handle(mount: BorrowedFd<'_>, kind: i32, handle: &[u8]) -> Result<OwnedFd> {
    let mut record = (handle.len() as u32).to_ne_bytes().to_vec();
    record.extend_from_slice(&kind.to_ne_bytes());
    record.extend_from_slice(handle);
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: `record` is a `struct file_handle` with as many bytes as it says.
    let fd =
        unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), record.as_mut_ptr(), flags) };
    let fd = check(fd as i32)?;
    // SAFETY: a fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Raises our own soft limit of descriptors to the hard one: we hold one for each stored file.
pub fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid `struct rlimit` for both calls; failure leaves the limit as it was.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// `f_type` of statfs(2).
///
/// # Errors
/// As statfs(2).
pub fn fs_type(path: &std::path::Path) -> Result<i64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: an all-zero `statfs` is valid.
    let mut buf: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a NUL-terminated path and a buffer of the right type.
    check(unsafe { libc::statfs(path.as_ptr(), &raw mut buf) })?;
    Ok(buf.f_type)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn semaphores_are_told_and_keep_their_count() {
        for (flags, semaphore) in [(0, false), (libc::EFD_SEMAPHORE, true)] {
            for count in [0_u64, 1, 2, 3, 1 << 40] {
                // SAFETY: makes a descriptor, which is owned from here on.
                let fd = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, flags | libc::EFD_NONBLOCK)) };
                // SAFETY: 8 bytes that are only read.
                unsafe { libc::write(fd.as_raw_fd(), (&raw const count).cast(), 8) };
                assert_eq!(eventfd_is_semaphore(fd.as_fd(), count), Some(semaphore), "count {count}");
                let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
                let line = info.lines().find_map(|l| l.strip_prefix("eventfd-count:")).unwrap();
                assert_eq!(u64::from_str_radix(line.trim(), 16), Ok(count));
            }
        }
    }
}
