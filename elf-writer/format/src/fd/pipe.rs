//! Pipes: one buffer, one or two ends.

crate::records! {
    pub struct Pipe[16] {
        /// F_GETPIPE_SZ, in bytes.
        pub capacity: u32,
        pub reserved: u32,
        /// Inode number at the dump, for messages.
        pub ino: u64,
    }
}
