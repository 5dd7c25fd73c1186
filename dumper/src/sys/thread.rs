//! What can be asked about a thread of another process.

use std::io;

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// get_robust_list(2): address and length of the list head.
///
/// # Errors
/// ESRCH, EPERM.
pub fn robust_list(tid: i32) -> io::Result<(u64, u64)> {
    let (mut head, mut len) = (0u64, 0u64);
    // SAFETY: the kernel stores one word in each place.
    check(unsafe { libc::syscall(libc::SYS_get_robust_list, tid, &raw mut head, &raw mut len) })?;
    Ok((head, len))
}

/// `struct sched_attr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    pub util_min: u32,
    pub util_max: u32,
}

/// sched_getattr(2).
///
/// # Errors
/// ESRCH.
pub fn sched_attr(tid: i32) -> io::Result<SchedAttr> {
    let mut attr = SchedAttr::default();
    let size = size_of::<SchedAttr>();
    // SAFETY: the kernel stores at most `size` bytes in `attr`.
    check(unsafe { libc::syscall(libc::SYS_sched_getattr, tid, &raw mut attr, size, 0) })?;
    Ok(attr)
}

/// Makes way for whoever wakes on the processor of the calling thread, which otherwise waits for up to 3 ms: a longer
/// time slice than that one's lets it in at once, and costs us nothing else (PREEMPT_SHORT, kernel/sched/fair.c, Linux
/// 6.12; before, the slice is ignored, and sleepers come first anyway).
pub fn make_way() {
    const SLICE: u64 = 100_000_000;
    let Ok(attr) = sched_attr(0) else { return };
    if attr.policy == libc::SCHED_OTHER as u32 {
        let attr = SchedAttr { runtime: SLICE, ..attr };
        // SAFETY: the record is only read, as far as its size says, which the kernel has filled in.
        let _ = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    }
}

/// getpriority(2): the nice value, which sched_getattr(2) does not tell of real-time threads.
///
/// # Errors
/// ESRCH.
pub fn nice(tid: i32) -> io::Result<i32> {
    // SAFETY: takes numbers only. The kernel answers 20 - nice.
    check(unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, tid) }).map(|n| 20 - n as i32)
}

/// sched_getaffinity(2): the mask, as long as the kernel has CPUs.
///
/// # Errors
/// ESRCH.
pub fn affinity(tid: i32) -> io::Result<Vec<u8>> {
    let mut mask = vec![0u8; 1 << 13];
    // SAFETY: the kernel stores at most `mask.len()` bytes.
    let len =
        check(unsafe { libc::syscall(libc::SYS_sched_getaffinity, tid, mask.len(), mask.as_mut_ptr()) })?;
    mask.truncate(len as usize);
    Ok(mask)
}

/// ioprio_get(2).
///
/// # Errors
/// ESRCH.
pub fn ioprio(tid: i32) -> io::Result<u32> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid) }).map(|v| v as u32)
}

/// clock_gettime(2) in ns; 0 for a clock that does not exist.
#[must_use]
pub fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
