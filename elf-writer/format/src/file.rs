//! Files that mappings and descriptors refer to by path.

use crate::{Range, Span};

crate::records! {
    /// A file: how to find it again and how to tell that it is still the same.
    pub struct FileIdent[104] {
        /// Path as seen from the task's root, without the kernel's " (deleted)".
        pub path: Span,
        /// GNU build-id of an ELF file; empty where there is none.
        pub build_id: Span,
        /// Device (`st_dev`), inode, size in bytes, mtime in ns since the epoch.
        pub dev: u64,
        pub ino: u64,
        pub size: u64,
        pub mtime_ns: i64,
        /// `st_mode`.
        pub mode: u32,
        pub uid: u32,
        pub gid: u32,
        /// [`file_flags`].
        pub flags: u32,
        /// Extents (offsets in the file) with the contents, when `file_flags::CONTENTS`.
        pub contents: Range,
        /// `st_rdev` of a device node.
        pub rdev: u64,
        /// Number of hard links at the dump.
        pub nlink: u32,
        /// F_GETFL of the description that made it, when `file_flags::TMPFILE`.
        pub open_flags: u32,
    }
}

/// Bits of [`FileIdent::flags`].
pub mod file_flags {
    /// No name any more at the dump: recreated, filled from `contents`, and unlinked again. Also a directory
    /// or FIFO.
    pub const DELETED: u32 = 1;
    /// `contents` is valid (possibly an empty range for an empty file). A file with a name (POSIX shared
    /// memory) is made anew where that name is missing.
    pub const CONTENTS: u32 = 2;
    /// Created by memfd_create (path is its name); `seals` in the payload of its descriptor.
    pub const MEMFD: u32 = 4;
    /// The file at `path` must be identical (size and mtime, or build-id) to be used at restore.
    pub const MUST_BE_IDENTICAL: u32 = 8;
    /// Anonymous shared memory (`/dev/zero (deleted)`): recreated by `MAP_SHARED|MAP_ANONYMOUS`.
    pub const ANON_SHARED: u32 = 16;
    /// A shared huge page file of `2^hugetlb_shift`: anonymous shared hugetlb memory.
    pub const HUGETLB: u32 = 32;
    /// With ANON_SHARED: mapped by several address spaces. Made once, in the stub's shared area, before
    /// there are several tasks; in the order of the table, each aligned to 2 MiB.
    pub const SEVERAL_MMS: u32 = 64;
    /// A System V shared memory segment; `ino` is its id, a record of the shm note says the rest.
    pub const SYSV_SHM: u32 = 128;
    /// With DELETED: never had a name (O_TMPFILE), and may be given one. The path is `#` and a number in the
    /// directory of its file system.
    pub const TMPFILE: u32 = 256;
}
