//! Pipes and FIFOs: one buffer, one or two ends.

crate::records! {
    pub struct Pipe[24] {
        /// F_GETPIPE_SZ, in bytes.
        pub capacity: u32,
        /// Index in the file table of a FIFO that has a name; NONE for pipe(2).
        pub file: u32,
        /// Inode number at the dump, for messages.
        pub ino: u64,
        /// [`pipe_flags`].
        pub flags: u32,
        pub reserved: u32,
    }
}

/// Bits of [`Pipe::flags`].
pub mod pipe_flags {
    /// Messages of the queue are packets (O_DIRECT), each written by one write(2).
    pub const PACKETS: u32 = 1;
}
