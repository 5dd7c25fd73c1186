//! Descriptors of processes and threads.

crate::records! {
    pub struct Pidfd[16] {
        /// Process or thread of the image; 0 for one that is gone.
        pub tid: i32,
        /// [`pidfd_flags`].
        pub flags: u32,
        /// Of one that is gone: status as wait(2) returns it, which PIDFD_GET_INFO tells.
        pub status: i32,
        pub reserved: u32,
    }
}

/// Bits of [`Pidfd::flags`].
pub mod pidfd_flags {
    /// PIDFD_THREAD.
    pub const THREAD: u32 = 1;
}
