//! inotify instances.

crate::records! {
    /// Followed by `count` [`InotifyWatch`], sorted by `wd`.
    pub struct Inotify[8] {
        pub count: u32,
        /// [`inotify_flags`].
        pub flags: u32,
    }

    pub struct InotifyWatch[16] {
        pub wd: i32,
        /// Events, IN_EXCL_UNLINK and IN_ONESHOT.
        pub mask: u32,
        /// What is watched: index in the file table.
        pub file: u32,
        pub reserved: u32,
    }
}

/// Bits of [`Inotify::flags`].
pub mod inotify_flags {
    /// Events were waiting, which are lost: IN_Q_OVERFLOW tells the program.
    pub const OVERFLOW: u32 = 1;
}
