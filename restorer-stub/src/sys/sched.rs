//! Scheduling of the calling thread.

use super::{Result, sys};
use ckpt_format::Thread;
use linux_raw_sys::general::SCHED_NORMAL;

/// `struct sched_attr`, SCHED_ATTR_SIZE_VER1 with the utilization clamps, VER0 without.
#[derive(Default)]
#[repr(C)]
struct Attr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

/// Makes way for whoever wakes on our processor, which otherwise waits for up to 3 ms: a longer time slice than
/// that one's lets it in at once, and costs us nothing else (PREEMPT_SHORT, kernel/sched/fair.c, Linux 6.12;
/// before, the slice is ignored, and sleepers come first anyway).
pub fn make_way() {
    const SLICE: u64 = 100_000_000;
    if policy() == SCHED_NORMAL {
        let attr = Attr { size: 48, policy: SCHED_NORMAL, nice: nice(), runtime: SLICE, ..Attr::default() };
        // SAFETY: the record is only read, as far as its size says.
        let _ = unsafe { sys!(__NR_sched_setattr, 0, &raw const attr, 0) };
    }
}

/// sched_setattr(2) with the record's values.
pub fn set_attr(t: &Thread) -> Result<()> {
    const CLAMPS: u64 = 0x20 | 0x40;
    let size = if t.sched_flags & CLAMPS != 0 { 56 } else { 48 };
    let attr = Attr {
        size,
        policy: t.sched_policy,
        flags: t.sched_flags,
        nice: t.sched_nice,
        priority: t.sched_priority,
        runtime: t.sched_runtime,
        deadline: t.sched_deadline,
        period: t.sched_period,
        util_min: t.sched_util_min,
        util_max: t.sched_util_max,
    };
    // SAFETY: the record is only read, as far as its size says.
    unsafe { sys!(__NR_sched_setattr, 0, &raw const attr, 0) }.map(drop)
}

/// setpriority(2). sched_setattr(2) sets the nice value only together with the policies that use it
/// (`__setscheduler_params` in kernel/sched/syscalls.c), but every thread has one.
pub fn set_nice(nice: i32) -> Result<()> {
    // SAFETY: touches no memory. PRIO_PROCESS = 0, the calling thread.
    unsafe { sys!(__NR_setpriority, 0, 0, nice) }.map(drop)
}

/// The calling thread's nice value, whatever its policy.
pub fn nice() -> i32 {
    // SAFETY: touches no memory. The kernel answers 20 - nice.
    unsafe { sys!(__NR_getpriority, 0, 0) }.map_or(0, |n| 20 - n as i32)
}

/// The calling thread's policy.
pub fn policy() -> u32 {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_sched_getscheduler, 0) }.unwrap_or(0) as u32
}

pub fn set_affinity(mask: &[u8]) -> Result<()> {
    // SAFETY: the mask is only read.
    unsafe { sys!(__NR_sched_setaffinity, 0, mask.len(), mask.as_ptr()) }.map(drop)
}

/// The affinity mask of the calling thread; the part of `buf` that was filled.
pub fn affinity(buf: &mut [u8]) -> Result<&mut [u8]> {
    // SAFETY: the kernel writes at most `buf.len()` bytes.
    let n = unsafe { sys!(__NR_sched_getaffinity, 0, buf.len(), buf.as_mut_ptr()) }?;
    Ok(&mut buf[..n])
}

pub fn ioprio() -> Result<u32> {
    // SAFETY: touches no memory. IOPRIO_WHO_PROCESS = 1.
    unsafe { sys!(__NR_ioprio_get, 1, 0) }.map(|n| n as u32)
}

pub fn set_ioprio(value: u32) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_ioprio_set, 1, 0, value) }.map(drop)
}
