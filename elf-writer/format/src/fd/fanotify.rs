//! fanotify groups.

crate::records! {
    /// Followed by `count` [`FanotifyMark`].
    pub struct Fanotify[16] {
        /// As of fanotify_init(2), FAN_CLOEXEC and FAN_NONBLOCK among them.
        pub flags: u32,
        /// Of the files that its events come with (O_*).
        pub event_flags: u32,
        pub count: u32,
        /// [`fanotify_flags`].
        pub state: u32,
    }

    pub struct FanotifyMark[32] {
        pub mask: u64,
        pub ignored: u64,
        /// What is marked: 0 the inode, FAN_MARK_MOUNT, FAN_MARK_FILESYSTEM.
        pub on: u32,
        /// FAN_MARK_IGNORED_SURV_MODIFY, FAN_MARK_EVICTABLE, FAN_MARK_IGNORE.
        pub flags: u32,
        /// The inode, or where it is mounted: index in the file table.
        pub file: u32,
        pub reserved: u32,
    }
}

/// Bits of [`Fanotify::state`].
pub mod fanotify_flags {
    /// Made without CAP_SYS_ADMIN: its events do not tell the ids of other processes.
    pub const UNPRIVILEGED: u32 = 1;
}
