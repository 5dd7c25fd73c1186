//! Files reopened by path.

use crate::Span;

crate::records! {
    pub struct OpenFile[24] {
        /// Index in the file table.
        pub file: u32,
        /// memfd seals (F_GET_SEALS).
        pub seals: u32,
        /// Smallest size at which the file is accepted at restore (it may have grown, not shrunk).
        pub min_size: u64,
        /// [`open_file_flags`].
        pub flags: u32,
        /// Process (saved id) whose file it is, when OF_PROCESS.
        pub pid: i32,
    }

    /// A descriptor that the caller provides.
    pub struct Inherited[24] {
        /// Number in the caller (0, 1 or 2).
        pub from_fd: i32,
        pub reserved: u32,
        /// What it was at the dump, in words.
        pub was: Span,
    }
}

/// Bits of [`OpenFile::flags`].
pub mod open_file_flags {
    /// Of a file that tells of changes by poll(2) (sysfs, cgroup): none is new, it has been read.
    pub const SEEN: u32 = 1;
    /// What it says depends on processes, threads and memory: the offset is set when they are there.
    pub const SEEK_LATE: u32 = 2;
    /// Below `/proc/PID`, with `pid` in the place of that number.
    pub const OF_PROCESS: u32 = 4;
    /// With OF_PROCESS: of another process than the root of the tree, or of one thread: opened when they are
    /// there, by the one process that has it.
    pub const OPEN_LATE: u32 = 8;
}
