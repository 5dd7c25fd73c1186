//! Handlers, pending signals, timers.

crate::records! {
    /// `struct kernel_sigaction` (rt_sigaction(2), x86-64).
    pub struct SigAction[32] {
        /// 0 is SIG_DFL, 1 is SIG_IGN.
        pub handler: u64,
        pub flags: u64,
        pub restorer: u64,
        pub mask: u64,
    }

    /// A queued signal.
    pub struct PendingSignal[128] {
        /// `siginfo_t`.
        pub siginfo: [u8; 128],
    }

    /// setitimer(2), in microseconds.
    pub struct Itimer[16] {
        pub interval_us: u64,
        /// Remaining; 0 is disarmed.
        pub value_us: u64,
    }

    /// timer_create(2).
    pub struct PosixTimer[64] {
        pub id: i32,
        pub clock: i32,
        /// SIGEV_*, with SIGEV_THREAD_ID.
        pub notify: i32,
        pub signo: i32,
        /// `sigev_value`.
        pub value: u64,
        /// Target of SIGEV_THREAD_ID.
        pub tid: i32,
        pub overrun: i32,
        pub interval_ns: u64,
        /// Remaining; 0 is disarmed.
        pub remaining_ns: u64,
        pub reserved: [u64; 2],
    }
}
