//! The first note: what this image is and where its tables are.

use crate::Span;

crate::records! {
    /// Description of the first note; `dir_count` [`DirEntry`] follow it immediately.
    pub struct Header[296] {
        /// [`crate::FORMAT_VERSION`] of the writer.
        pub version: u32,
        /// Size of this record as written; newer writers append fields.
        pub header_size: u32,
        pub dir_count: u32,
        /// [`header_flags`].
        pub flags: u32,
        /// [`crate::checksum`] of this record with this field zero, followed by the directory.
        pub checksum: u64,
        /// Length of the image in bytes; a shorter file is truncated.
        pub image_size: u64,
        /// Where the metadata region starts in the image, its length, and its address when mapped.
        pub meta_offset: u64,
        pub meta_len: u64,
        pub meta_addr: u64,
        /// The hole that the stub occupies (text, data, metadata, work area, vDSO parking place).
        /// No VMA of any task overlaps it.
        pub hole_addr: u64,
        pub hole_len: u64,
        pub uuid: [u8; 16],
        /// Boot id of the machine that dumped (`/proc/sys/kernel/random/boot_id`, binary).
        pub boot_id: [u8; 16],
        /// Clocks at the dump, in ns.
        pub time_realtime: u64,
        pub time_monotonic: u64,
        pub time_boottime: u64,
        /// Index in the task table of the root of the tree.
        pub root_task: u32,
        pub page_size: u32,
        /// Required instruction sets and xstate; see [`crate::cpu`].
        pub cpu: crate::cpu::CpuFeatures,
        /// Host name, kernel release, program name, command line (arguments separated by spaces), and
        /// the version of the dumper.
        pub host: Span,
        pub kernel: Span,
        pub program: Span,
        pub command: Span,
        pub dumper: Span,
        /// Populated bytes of anonymous and dirty private memory (information for `--help`).
        pub stored_bytes: u64,
    }

    /// Where one table is.
    pub struct DirEntry[40] {
        /// [`NoteType`].
        pub note: u32,
        /// [`dir_flags`].
        pub flags: u32,
        /// Offset of the note's description from the start of the metadata region; multiple of 8.
        pub offset: u64,
        /// Length of the description in bytes.
        pub len: u64,
        /// [`crate::checksum`] of the description.
        pub checksum: u64,
        /// Size of one record as written (stride). A reader that knows more fields refuses the
        /// table, one that knows fewer skips the rest of each record.
        pub record_size: u32,
        pub reserved: u32,
    }

    /// Something that the image does not hold, allowed by the user at the dump.
    pub struct Loss[40] {
        /// A `--allow` name.
        pub kind: Span,
        /// A sentence: what was lost, of which task and descriptor.
        pub text: Span,
        pub pid: i32,
        pub reserved: u32,
    }
}

/// Bits of [`Header::flags`].
pub mod header_flags {
    /// Contents of file-backed mappings are embedded.
    pub const EMBEDDED: u32 = 1;
    /// The program had an IPC namespace of its own: all of it is in the image.
    pub const OWN_IPC_NAMESPACE: u32 = 2;
    /// There is no stub: ckpt-restore is needed.
    pub const NO_STUB: u32 = 4;
}

/// Bits of [`DirEntry::flags`].
pub mod dir_flags {
    /// A reader that does not know this note type must refuse the image.
    pub const CRITICAL: u32 = 1;
}

/// `n_type` of our notes. Values are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NoteType {
    Header = 0x100,
    Tasks = 0x101,
    Threads = 0x102,
    Mms = 0x103,
    Vmas = 0x104,
    Extents = 0x105,
    Files = 0x106,
    FdTables = 0x107,
    Fds = 0x108,
    Objects = 0x109,
    FsInfos = 0x10a,
    Sighands = 0x10b,
    SigActions = 0x10c,
    PendingSignals = 0x10d,
    PosixTimers = 0x10e,
    Creds = 0x10f,
    Locks = 0x110,
    Losses = 0x111,
    Blobs = 0x112,
    GuardRanges = 0x113,
    SysvShms = 0x114,
    SysvSems = 0x115,
    SysvMsgs = 0x116,
    SemUndos = 0x117,
    Compression = 0x118,
}
