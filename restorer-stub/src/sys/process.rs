//! Processes: ids, creation, waiting, attributes, credentials, limits.

use super::{Errno, Fd, Result, plain, sys};
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::general::*;

pub fn getpid() -> i32 {
    plain(__NR_getpid) as i32
}

pub fn getppid() -> i32 {
    plain(__NR_getppid) as i32
}

/// A clock (CLOCK_*), in ns.
pub fn clock_ns(clock: u32) -> u64 {
    let mut t = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    let _ = unsafe { sys!(__NR_clock_gettime, clock, &raw mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

pub fn gettid() -> i32 {
    plain(__NR_gettid) as i32
}

/// Ends the process.
pub fn exit_group(status: i32) -> ! {
    loop {
        // SAFETY: does not return.
        let _ = unsafe { sys!(__NR_exit_group, status) };
    }
}

pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_kill, pid, signal) }.map(drop)
}

/// A descriptor of a process, which cannot come to mean another one.
pub fn pidfd_open(pid: i32) -> Result<Fd> {
    pidfd_open_with(pid, 0)
}

/// With PIDFD_NONBLOCK, PIDFD_THREAD.
pub fn pidfd_open_with(pid: i32, flags: u32) -> Result<Fd> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_pidfd_open, pid, flags) }.map(|fd| Fd(fd as i32))
}

/// pidfd_getfd(2): a duplicate of a descriptor of another process, which must be one that we may trace.
pub fn pidfd_getfd(pidfd: Fd, number: i32) -> Result<Fd> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_pidfd_getfd, pidfd.0, number, 0) }.map(|fd| Fd(fd as i32))
}

pub fn pidfd_kill(pidfd: Fd, signal: i32) -> Result<()> {
    // SAFETY: no siginfo is passed.
    unsafe { sys!(__NR_pidfd_send_signal, pidfd.0, signal, 0, 0) }.map(drop)
}

/// fork(2), by clone3 so that the child's id can be chosen: `Some(0)` in the child's place is the
/// child. `exit_signal` 0 tells the parent nothing (wait with `__WALL`). `id` needs
/// CAP_CHECKPOINT_RESTORE in the user namespace of the pid namespace.
pub fn fork(exit_signal: u32, id: Option<i32>) -> Result<i32> {
    fork_sharing(0, exit_signal, id)
}

/// As [`fork`], with a child that shares what `share` says: CLONE_FILES, CLONE_FS, nothing else.
pub fn fork_sharing(share: u32, exit_signal: u32, id: Option<i32>) -> Result<i32> {
    let share = share & (CLONE_FILES | CLONE_FS);
    let set_tid = id.unwrap_or(0);
    let args = clone_args {
        flags: u64::from(share),
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(exit_signal),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: if id.is_some() { &raw const set_tid as u64 } else { 0 },
        set_tid_size: u64::from(id.is_some()),
        cgroup: 0,
    };
    // SAFETY: without CLONE_VM the child has its own copy of everything, this frame included.
    match when_free(|| unsafe { sys!(__NR_clone3, &raw const args, size_of::<clone_args>()) }) {
        // Some containers' seccomp filters do not know clone3.
        Err(Errno::ENOSYS) if id.is_none() => {
            // SAFETY: as above.
            unsafe { sys!(__NR_clone, exit_signal | share, 0, 0, 0, 0) }.map(|pid| pid as i32)
        }
        r => r.map(|pid| pid as i32),
    }
}

/// Repeats a clone3(2) for a certain id while that is taken: another process that only lives for a moment
/// may have got it since it was found free.
pub fn when_free<T>(make: impl Fn() -> Result<T>) -> Result<T> {
    const TRIES: u32 = 200;
    for _ in 0..TRIES {
        match make() {
            Err(Errno::EEXIST) => sleep_ms(5),
            result => return result,
        }
    }
    make()
}

/// What wait4(2) says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    Exited(i32),
    Killed(i32),
    /// Stop signal, and the ptrace event above it.
    Stopped(i32, u32),
    Continued,
}

/// wait4(2); `None` when WNOHANG finds nothing. Repeats on EINTR.
pub fn wait(pid: i32, options: u32) -> Result<Option<(i32, Wait)>> {
    let mut status = 0u32;
    let pid = loop {
        // SAFETY: the kernel writes one int.
        match unsafe { sys!(__NR_wait4, pid, &raw mut status, options, 0) } {
            Err(Errno::EINTR) => {}
            r => break r? as i32,
        }
    };
    if pid == 0 {
        return Ok(None);
    }
    let wait = match status & 0xff {
        0x7f => Wait::Stopped((status >> 8 & 0xff) as i32, status >> 16),
        0xff => Wait::Continued,
        n if n & 0x7f == 0 => Wait::Exited((status >> 8 & 0xff) as i32),
        n => Wait::Killed((n & 0x7f) as i32),
    };
    Ok(Some((pid, wait)))
}

/// waitid(2) for one process, whose status it does not give. Repeats on EINTR.
pub fn wait_peek(pid: i32, options: u32) -> Result<()> {
    loop {
        // SAFETY: neither a siginfo nor a rusage is asked for.
        match unsafe { sys!(__NR_waitid, P_PID, pid, 0, options, 0) } {
            Err(Errno::EINTR) => {}
            r => return r.map(drop),
        }
    }
}

/// prctl(2) with numbers only: no operation that takes a pointer.
pub fn prctl(op: u32, a: u64, b: u64) -> Result<usize> {
    // SAFETY: the operations used (by name, at the callers) take no pointers.
    unsafe { sys!(__NR_prctl, op, a, b, 0, 0) }
}

/// membarrier(2) without flags.
pub fn membarrier(command: u32) -> Result<usize> {
    // SAFETY: takes numbers only.
    unsafe { sys!(__NR_membarrier, command, 0, 0) }
}

/// PR_SET_NAME of the calling thread; NUL-padded.
pub fn set_name(name: &[u8; 16]) {
    let mut name = *name;
    name[15] = 0;
    // SAFETY: the name ends with NUL and is only read.
    let _ = unsafe { sys!(__NR_prctl, linux_raw_sys::prctl::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

pub fn setsid() -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_setsid, 0) }.map(drop)
}

/// Joins a process group of the same session; 0 starts one.
pub fn setpgid(group: i32) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_setpgid, 0, group) }.map(drop)
}

/// Process group of a process.
pub fn getpgid(pid: i32) -> Result<i32> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_getpgid, pid) }.map(|id| id as i32)
}

/// Sleeps for less than a second.
pub fn sleep_ms(ms: u32) {
    let time = [0u64, u64::from(ms) * 1_000_000];
    // SAFETY: a `struct timespec` that is only read; the rest is not asked for.
    let _ = unsafe { sys!(__NR_nanosleep, time.as_ptr(), 0) };
}

pub fn yield_now() {
    plain(__NR_sched_yield);
}

pub fn unshare(flags: u32) -> Result<()> {
    // SAFETY: changes namespaces, no memory.
    unsafe { sys!(__NR_unshare, flags) }.map(drop)
}

/// setns(2).
pub fn setns(namespace: Fd, kind: u32) -> Result<()> {
    // SAFETY: changes namespaces, no memory.
    unsafe { sys!(__NR_setns, namespace.0, kind) }.map(drop)
}

pub fn personality(value: u32) -> Result<usize> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_personality, value) }
}

/// `(soft, hard)` of the calling process.
pub fn getrlimit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = [0u64; 2];
    // SAFETY: the kernel writes one `struct rlimit64`.
    unsafe { sys!(__NR_prlimit64, 0, resource, 0, limit.as_mut_ptr()) }?;
    Ok((limit[0], limit[1]))
}

pub fn setrlimit(resource: u32, (soft, hard): (u64, u64)) -> Result<()> {
    let limit = [soft, hard];
    // SAFETY: the record is only read.
    unsafe { sys!(__NR_prlimit64, 0, resource, limit.as_ptr(), 0) }.map(drop)
}

/// Waits while the word is `expected`, in memory shared between processes. Returns on any wake,
/// real or not: the caller looks again.
pub fn futex_wait(word: &AtomicU32, expected: u32) {
    // SAFETY: the kernel reads the word.
    let _ = unsafe { sys!(__NR_futex, word.as_ptr(), FUTEX_WAIT, expected, 0) };
}

/// As [`futex_wait`], for so long at most (less than a second).
pub fn futex_wait_ms(word: &AtomicU32, expected: u32, ms: u32) {
    let time = [0u64, u64::from(ms) * 1_000_000];
    // SAFETY: the word is ours, the `struct timespec` is only read.
    let _ = unsafe { sys!(__NR_futex, word.as_ptr(), FUTEX_WAIT, expected, time.as_ptr()) };
}

pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: the kernel only uses the address.
    let _ = unsafe { sys!(__NR_futex, word.as_ptr(), FUTEX_WAKE, i32::MAX) };
}

/// Stores, then wakes who waits.
pub fn futex_set(word: &AtomicU32, value: u32) {
    word.store(value, Ordering::SeqCst);
    futex_wake(word);
}

/// Real, effective and saved ids: `which` is `__NR_getresuid` or `__NR_getresgid`.
fn getres(which: fn([*mut u32; 3]) -> Result<usize>) -> [u32; 3] {
    let mut ids = [0u32; 3];
    let base = ids.as_mut_ptr();
    let _ = which([base, base.wrapping_add(1), base.wrapping_add(2)]);
    ids
}

/// Real, effective, saved and file-system user ids of the calling thread.
pub fn uids() -> [u32; 4] {
    // SAFETY: the kernel writes three ints (getres).
    let [r, e, s] = getres(|p| unsafe { sys!(__NR_getresuid, p[0], p[1], p[2]) });
    // SAFETY: an invalid id changes nothing; the present one is returned.
    let fs = unsafe { sys!(__NR_setfsuid, -1isize) }.unwrap_or(0) as u32;
    [r, e, s, fs]
}

/// As [`uids`], groups.
pub fn gids() -> [u32; 4] {
    // SAFETY: the kernel writes three ints (getres).
    let [r, e, s] = getres(|p| unsafe { sys!(__NR_getresgid, p[0], p[1], p[2]) });
    // SAFETY: an invalid id changes nothing; the present one is returned.
    let fs = unsafe { sys!(__NR_setfsgid, -1isize) }.unwrap_or(0) as u32;
    [r, e, s, fs]
}

/// setresuid(2) and setfsuid(2) of the calling thread only (the raw call is per thread).
pub fn set_uids(ids: &[u32; 4]) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe {
        sys!(__NR_setresuid, ids[0], ids[1], ids[2])?;
        sys!(__NR_setfsuid, ids[3]).map(drop)
    }
}

/// As [`set_uids`], groups.
pub fn set_gids(ids: &[u32; 4]) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe {
        sys!(__NR_setresgid, ids[0], ids[1], ids[2])?;
        sys!(__NR_setfsgid, ids[3]).map(drop)
    }
}

/// Supplementary groups; the part of `buf` that was filled.
pub fn groups(buf: &mut [u32]) -> Result<&mut [u32]> {
    // SAFETY: the kernel writes at most `buf.len()` ids.
    let n = unsafe { sys!(__NR_getgroups, buf.len(), buf.as_mut_ptr()) }?;
    Ok(&mut buf[..n])
}

pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the list is only read.
    unsafe { sys!(__NR_setgroups, groups.len(), groups.as_ptr()) }.map(drop)
}

/// Capability sets of a thread: effective, permitted, inheritable.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// `struct __user_cap_header_struct` of _LINUX_CAPABILITY_VERSION_3 and the calling thread.
const CAP_HEADER: [u32; 2] = [0x2008_0522, 0];

pub fn caps() -> Caps {
    let mut header = CAP_HEADER;
    let mut data = [0u32; 6];
    // SAFETY: version 3 fills two records of three words.
    let _ = unsafe { sys!(__NR_capget, header.as_mut_ptr(), data.as_mut_ptr()) };
    let join = |i: usize| u64::from(data[i]) | u64::from(data[i + 3]) << 32;
    Caps { effective: join(0), permitted: join(1), inheritable: join(2) }
}

pub fn set_caps(caps: Caps) -> Result<()> {
    let mut header = CAP_HEADER;
    let words = [caps.effective, caps.permitted, caps.inheritable];
    let mut data = [0u32; 6];
    for (i, w) in words.into_iter().enumerate() {
        data[i] = w as u32;
        data[i + 3] = (w >> 32) as u32;
    }
    // SAFETY: both records are only read.
    unsafe { sys!(__NR_capset, header.as_mut_ptr(), data.as_ptr()) }.map(drop)
}
