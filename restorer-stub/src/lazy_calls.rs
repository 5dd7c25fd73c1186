//! System calls that a program may make while its memory is being filled (`tracer_lazy`), and the memory that
//! they need.
//!
//! None of them looks at or changes mappings. Those that wait go on by themselves when the tracer stops them at the
//! end (-ERESTARTSYS, -ERESTARTNOHAND, -ERESTART_RESTARTBLOCK), which epoll_wait(2), for instance, does not: it
//! would return EINTR. Nor are there any that may stop half-way (write(2)), or that read files, among which are
//! those of /proc/PID, which tell of memory.

use linux_raw_sys::general::*;

/// Ranges of memory that a call reads or writes: address and length. Some may be empty.
pub type Ranges = [(u64, u64); 4];

const NONE: (u64, u64) = (0, 0);
/// Most descriptors of a poll(2).
const MOST_POLLED: u64 = 1024;
/// Sizes in bytes of `struct timespec` or `timeval`, of `struct rusage`, of a signal set.
const TIME: u64 = 16;
const RUSAGE: u64 = 144;
const SIGNALS: u64 = 8;

/// What a call needs; `None` for one that has to wait until all memory is there.
// The kernel's names of calls.
#[allow(non_upper_case_globals)]
pub fn needs(nr: u64, a: &[u64; 6]) -> Option<Ranges> {
    Some(match u32::try_from(nr).ok()? {
        __NR_sched_yield | __NR_getpid | __NR_gettid | __NR_getppid | __NR_getuid | __NR_geteuid
        | __NR_getgid | __NR_getegid | __NR_getpgid | __NR_getpgrp | __NR_getsid | __NR_kill | __NR_tkill
        | __NR_tgkill => [NONE; 4],
        __NR_clock_gettime | __NR_clock_getres => [(a[1], TIME), NONE, NONE, NONE],
        __NR_gettimeofday => [(a[0], TIME), (a[1], 8), NONE, NONE],
        __NR_time => [(a[0], 8), NONE, NONE, NONE],
        __NR_nanosleep => [(a[0], TIME), (a[1], TIME), NONE, NONE],
        __NR_clock_nanosleep => [(a[2], TIME), (a[3], TIME), NONE, NONE],
        __NR_poll if a[1] <= MOST_POLLED => [(a[0], 8 * a[1]), NONE, NONE, NONE],
        __NR_ppoll if a[1] <= MOST_POLLED => [(a[0], 8 * a[1]), (a[2], TIME), (a[3], SIGNALS), NONE],
        __NR_rt_sigprocmask => [(a[1], SIGNALS), (a[2], SIGNALS), NONE, NONE],
        __NR_wait4 => [(a[1], 4), (a[3], RUSAGE), NONE, NONE],
        __NR_futex => futex(a)?,
        _ => return None,
    })
}

fn futex(a: &[u64; 6]) -> Option<Ranges> {
    const WORD: u64 = 4;
    Some(match a[1] as u32 & FUTEX_CMD_MASK as u32 {
        FUTEX_WAIT | FUTEX_WAIT_BITSET => [(a[0], WORD), (a[3], TIME), NONE, NONE],
        FUTEX_WAKE | FUTEX_WAKE_BITSET => [(a[0], WORD), NONE, NONE, NONE],
        FUTEX_REQUEUE | FUTEX_CMP_REQUEUE | FUTEX_WAKE_OP => [(a[0], WORD), (a[4], WORD), NONE, NONE],
        _ => return None,
    })
}
