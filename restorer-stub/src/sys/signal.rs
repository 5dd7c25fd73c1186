//! Signals and timers of the calling process or thread.

use super::{Result, sys};
use ckpt_format::{Itimer, SigAction};
use linux_raw_sys::general::*;

/// Bytes of the kernel's `sigset_t`.
const SIGSET: usize = 8;

/// Sets the blocked signals of the calling thread; gives those that were blocked before.
pub fn set_mask(mask: u64) -> u64 {
    let mut old = 0u64;
    // SAFETY: the one set is only read, the kernel writes the other.
    let _ = unsafe { sys!(__NR_rt_sigprocmask, SIG_SETMASK, &raw const mask, &raw mut old, SIGSET) };
    old
}

/// rt_sigaction(2): the record is the kernel's `struct kernel_sigaction` with the mask last.
pub fn set_action(signal: i32, action: &SigAction) -> Result<()> {
    let record = [action.handler, action.flags, action.restorer, action.mask];
    // SAFETY: the record is only read; handlers run only after the program is back.
    unsafe { sys!(__NR_rt_sigaction, signal, record.as_ptr(), 0, SIGSET) }.map(drop)
}

/// Waits for a signal of `mask` and gives its siginfo.
pub fn wait_info(mask: u64) -> Result<[u8; 128]> {
    let mut info = [0u8; 128];
    // SAFETY: the kernel writes at most one siginfo of 128 bytes.
    unsafe { sys!(__NR_rt_sigtimedwait, &raw const mask, info.as_mut_ptr(), 0, SIGSET) }?;
    Ok(info)
}

/// Drops a pending signal of `mask`; false if there is none.
pub fn discard(mask: u64) -> bool {
    let now = [0u64; 2];
    // SAFETY: the set and the zero timeout are only read; no siginfo is asked for.
    unsafe { sys!(__NR_rt_sigtimedwait, &raw const mask, 0, now.as_ptr(), SIGSET) }.is_ok()
}

/// Queues a signal with its siginfo for the calling process.
pub fn queue_to_process(pid: i32, signal: i32, info: &[u8; 128]) -> Result<()> {
    // SAFETY: the siginfo is only read.
    unsafe { sys!(__NR_rt_sigqueueinfo, pid, signal, info.as_ptr()) }.map(drop)
}

/// Queues a signal with its siginfo for the calling thread.
pub fn queue_to_thread(pid: i32, tid: i32, signal: i32, info: &[u8; 128]) -> Result<()> {
    // SAFETY: the siginfo is only read.
    unsafe { sys!(__NR_rt_tgsigqueueinfo, pid, tid, signal, info.as_ptr()) }.map(drop)
}

/// sigaltstack(2) with the program's values.
pub fn set_altstack(sp: u64, flags: u32, size: u64) -> Result<()> {
    let record = [sp, u64::from(flags), size];
    // SAFETY: the record is only read; the stack is used only after the program is back.
    unsafe { sys!(__NR_sigaltstack, record.as_ptr(), 0) }.map(drop)
}

/// setitimer(2): 0 real, 1 virtual, 2 prof.
pub fn set_itimer(which: u32, timer: &Itimer) -> Result<()> {
    let split = |us: u64| [us / 1_000_000, us % 1_000_000];
    let ([is, iu], [vs, vu]) = (split(timer.interval_us), split(timer.value_us));
    let record = [is, iu, vs, vu];
    // SAFETY: the record is only read.
    unsafe { sys!(__NR_setitimer, which, record.as_ptr(), 0) }.map(drop)
}

/// `struct sigevent` as far as the kernel reads it: 64 bytes.
#[repr(C)]
pub struct SigEvent {
    pub value: u64,
    pub signo: i32,
    pub notify: i32,
    pub tid: i32,
    pub pad: [i32; 11],
}

/// timer_create(2). `id` is what to ask for where PR_TIMER_CREATE_RESTORE_IDS is on.
pub fn timer_create(clock: i32, event: &SigEvent, id: i32) -> Result<i32> {
    let mut id = id;
    // SAFETY: the event is only read, the kernel writes one int.
    unsafe { sys!(__NR_timer_create, clock, core::ptr::from_ref(event), &raw mut id) }?;
    Ok(id)
}

pub fn timer_delete(id: i32) {
    // SAFETY: touches no memory.
    let _ = unsafe { sys!(__NR_timer_delete, id) };
}

/// timer_settime(2), relative, in ns.
pub fn timer_settime(id: i32, interval_ns: u64, value_ns: u64) -> Result<()> {
    const S: u64 = 1_000_000_000;
    let record = [interval_ns / S, interval_ns % S, value_ns / S, value_ns % S];
    // SAFETY: the record is only read.
    unsafe { sys!(__NR_timer_settime, id, 0, record.as_ptr(), 0) }.map(drop)
}
