//! eventfd, timerfd, signalfd, epoll.

crate::records! {
    pub struct EventFd[16] {
        pub count: u64,
        /// EFD_SEMAPHORE.
        pub semaphore: u32,
        pub reserved: u32,
    }

    pub struct TimerFd[40] {
        pub clock: i32,
        /// TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET.
        pub settime_flags: u32,
        pub interval_ns: u64,
        /// Time to the next expiration; 0 is disarmed.
        pub remaining_ns: u64,
        /// Expirations not yet read.
        pub ticks: u64,
        pub reserved: u64,
    }

    pub struct SignalFd[8] {
        pub mask: u64,
    }

    /// Followed by `count` [`EpollTarget`].
    pub struct Epoll[8] {
        pub count: u32,
        pub reserved: u32,
    }

    pub struct EpollTarget[24] {
        /// Descriptor number it was added with.
        pub fd: i32,
        /// Events, with EPOLLET, EPOLLONESHOT ...; 0 after a one-shot fired.
        pub events: u32,
        pub data: u64,
        /// Object that it watches.
        pub object: u32,
        /// Edge-triggered: events that are true, and of which the program knows already; else 0.
        pub seen: u32,
    }
}
