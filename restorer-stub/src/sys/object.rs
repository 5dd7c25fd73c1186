//! eventfd, timerfd, signalfd, epoll, pipes, locks, terminals, owners of descriptors.

use super::{CPath, Fd, Result, sys};
use linux_raw_sys::general::*;

pub fn eventfd(count: u32, flags: u32) -> Result<Fd> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_eventfd2, count, flags | O_CLOEXEC) }.map(|fd| Fd(fd as i32))
}

pub fn timerfd_create(clock: i32) -> Result<Fd> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_timerfd_create, clock, O_CLOEXEC) }.map(|fd| Fd(fd as i32))
}

/// timerfd_settime(2); times in ns.
pub fn timerfd_settime(fd: Fd, flags: u32, interval_ns: u64, value_ns: u64) -> Result<()> {
    const G: u64 = 1_000_000_000;
    let spec = [interval_ns / G, interval_ns % G, value_ns / G, value_ns % G];
    // SAFETY: a `struct itimerspec` that is only read; the old value is not asked for.
    unsafe { sys!(__NR_timerfd_settime, fd.0, flags, spec.as_ptr(), 0) }.map(drop)
}

/// ioctl TFD_IOC_SET_TICKS (fs/timerfd.c; kernels with CONFIG_CHECKPOINT_RESTORE): expirations that
/// wait to be read.
pub fn timerfd_set_ticks(fd: Fd, ticks: u64) -> Result<()> {
    const TFD_IOC_SET_TICKS: u32 = 0x4008_5400;
    // SAFETY: one u64 that is only read.
    unsafe { sys!(__NR_ioctl, fd.0, TFD_IOC_SET_TICKS, &raw const ticks) }.map(drop)
}

pub fn signalfd(mask: u64) -> Result<Fd> {
    // SAFETY: a kernel signal set of 8 bytes, only read.
    unsafe { sys!(__NR_signalfd4, -1isize, &raw const mask, 8, O_CLOEXEC) }.map(|fd| Fd(fd as i32))
}

pub fn epoll_create() -> Result<Fd> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_epoll_create1, O_CLOEXEC) }.map(|fd| Fd(fd as i32))
}

/// epoll_ctl(2).
pub fn epoll_control(epoll: Fd, op: u32, fd: i32, events: u32, data: u64) -> Result<()> {
    let event = epoll_event { events, data };
    // SAFETY: the event is only read.
    unsafe { sys!(__NR_epoll_ctl, epoll.0, op, fd, &raw const event) }.map(drop)
}

/// epoll_wait(2) for one event, without waiting.
pub fn epoll_take(epoll: Fd) -> Result<Option<u32>> {
    let mut event = epoll_event { events: 0, data: 0 };
    // SAFETY: the kernel writes at most one event.
    let n = unsafe { sys!(__NR_epoll_pwait, epoll.0, &raw mut event, 1, 0, 0, 8) }?;
    Ok((n != 0).then_some(event.events))
}

pub fn inotify_init(flags: u32) -> Result<Fd> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_inotify_init1, flags) }.map(|fd| Fd(fd as i32))
}

/// inotify_add_watch(2): the number of the watch.
pub fn inotify_add(fd: Fd, path: &CPath, mask: u32) -> Result<i32> {
    // SAFETY: the path is NUL-terminated and only read.
    unsafe { sys!(__NR_inotify_add_watch, fd.0, path.as_ptr(), mask) }.map(|wd| wd as i32)
}

pub fn inotify_remove(fd: Fd, wd: i32) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_inotify_rm_watch, fd.0, wd) }.map(drop)
}

/// FIONREAD: bytes that wait to be read.
pub fn waiting_bytes(fd: Fd) -> Result<usize> {
    const FIONREAD: u32 = 0x541b;
    let mut n = 0i32;
    // SAFETY: the kernel writes one int.
    unsafe { sys!(__NR_ioctl, fd.0, FIONREAD, &raw mut n) }?;
    Ok(n as usize)
}

/// pipe2(2): read end, write end; close-on-exec.
pub fn pipe(flags: u32) -> Result<(Fd, Fd)> {
    let mut fds = [0i32; 2];
    // SAFETY: the kernel writes two ints.
    unsafe { sys!(__NR_pipe2, fds.as_mut_ptr(), flags | O_CLOEXEC) }?;
    Ok((Fd(fds[0]), Fd(fds[1])))
}

/// flock(2) without waiting.
pub fn flock(fd: Fd, exclusive: bool) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_flock, fd.0, LOCK_NB | if exclusive { LOCK_EX } else { LOCK_SH }) }.map(drop)
}

/// F_SETLEASE.
pub fn set_lease(fd: Fd, write: bool) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_fcntl, fd.0, F_SETLEASE, if write { F_WRLCK } else { F_RDLCK }) }.map(drop)
}

/// fcntl(2) F_SETLK or F_OFD_SETLK: a range from `start`, `len` 0 for "to the end".
pub fn lock_range(fd: Fd, ofd: bool, write: bool, start: u64, len: u64) -> Result<()> {
    let lock = flock {
        l_type: if write { F_WRLCK } else { F_RDLCK } as _,
        l_whence: SEEK_SET as _,
        l_start: start as _,
        l_len: len as _,
        l_pid: 0,
    };
    // SAFETY: a `struct flock` that is only read.
    unsafe { sys!(__NR_fcntl, fd.0, if ofd { F_OFD_SETLK } else { F_SETLK }, &raw const lock) }.map(drop)
}

/// F_SETOWN_EX: type and id.
pub fn set_owner(fd: Fd, kind: i32, id: i32) -> Result<()> {
    let owner = f_owner_ex { type_: kind, pid: id };
    // SAFETY: the record is only read.
    unsafe { sys!(__NR_fcntl, fd.0, F_SETOWN_EX, &raw const owner) }.map(drop)
}

/// TCGETS2 and TCSETS2 (asm-generic/ioctls.h).
const TCGETS2: u32 = 0x802c_542a;
const TCSETS2: u32 = 0x402c_542b;

pub fn is_terminal(fd: Fd) -> bool {
    let mut termios = [0u8; 44];
    // SAFETY: the kernel writes a `struct termios2`, 44 bytes.
    unsafe { sys!(__NR_ioctl, fd.0, TCGETS2, termios.as_mut_ptr()) }.is_ok()
}

pub fn set_termios(fd: Fd, termios: &[u8; 44]) -> Result<()> {
    // SAFETY: a `struct termios2`, 44 bytes, only read.
    unsafe { sys!(__NR_ioctl, fd.0, TCSETS2, termios.as_ptr()) }.map(drop)
}

/// TIOCGPGRP: the foreground process group of a terminal.
pub fn foreground(fd: Fd) -> Result<i32> {
    let mut pgrp = 0i32;
    // SAFETY: the kernel writes one int.
    unsafe { sys!(__NR_ioctl, fd.0, linux_raw_sys::ioctl::TIOCGPGRP, &raw mut pgrp) }?;
    Ok(pgrp)
}

/// TIOCSPGRP. All signals are blocked here, so that SIGTTOU does not stop a background process.
pub fn set_foreground(fd: Fd, group: i32) -> Result<()> {
    // SAFETY: one int that is only read.
    unsafe { sys!(__NR_ioctl, fd.0, linux_raw_sys::ioctl::TIOCSPGRP, &raw const group) }.map(drop)
}

/// TIOCSCTTY: a session leader without one gets its controlling terminal.
pub fn set_controlling(fd: Fd) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_ioctl, fd.0, linux_raw_sys::ioctl::TIOCSCTTY, 0) }.map(drop)
}

/// Sleeps; a signal ends it.
pub fn pause_ms(ms: i64) {
    let time = timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
    // SAFETY: the time is only read; the rest of it is not asked for.
    let _ = unsafe { sys!(__NR_nanosleep, &raw const time, 0) };
}

/// Process group of the calling process.
pub fn own_group() -> i32 {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_getpgid, 0) }.unwrap_or(0) as i32
}

/// getpgid(2); 0 is the calling process.
pub fn group_of(pid: i32) -> Result<i32> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_getpgid, pid) }.map(|group| group as i32)
}

pub fn fchdir(fd: Fd) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_fchdir, fd.0) }.map(drop)
}

/// `st_mode` of a path, symbolic links not followed.
pub fn mode_of(path: &[u8]) -> Result<u32> {
    let path = CPath::new(path)?;
    // SAFETY: `struct stat` is integers only.
    let mut stat: stat = unsafe { core::mem::zeroed() };
    let flags = AT_SYMLINK_NOFOLLOW;
    // SAFETY: `path` is NUL-terminated; the kernel fills one `struct stat`.
    unsafe { sys!(__NR_newfstatat, AT_FDCWD, path.as_ptr(), &raw mut stat, flags) }?;
    Ok(stat.st_mode)
}

pub fn chown(path: &[u8], uid: u32, gid: u32) -> Result<()> {
    let path = CPath::new(path)?;
    let flags = AT_SYMLINK_NOFOLLOW;
    // SAFETY: `path` is NUL-terminated and only read.
    unsafe { sys!(__NR_fchownat, AT_FDCWD, path.as_ptr(), uid, gid, flags) }.map(drop)
}
