//! Stored bytes: page data of VMAs and contents of files, pipes and shared memory.

crate::records! {
    /// One run of stored bytes. Extents of one owner are sorted by `addr` and do not overlap.
    pub struct Extent[40] {
        /// Where the bytes belong: a virtual address for a VMA, an offset for a file or object.
        pub addr: u64,
        /// Length in bytes. Page-aligned for VMAs.
        pub len: u64,
        /// Where the bytes are in the image. Page-aligned for VMAs.
        pub file_offset: u64,
        /// [`crate::checksum`] of the `len` bytes.
        pub checksum: u64,
        /// [`extent_flags`].
        pub flags: u32,
        pub reserved: u32,
    }
}

/// Longest extent the writer makes, so that a reader can verify each in one cached buffer.
pub const MAX_EXTENT: u64 = 1 << 20;

/// Bits of [`Extent::flags`].
pub mod extent_flags {
    /// Bytes identical to the named file's, stored so that the image is self-contained: used only
    /// where that file is missing or different at restore.
    pub const EMBEDDED_FILE: u32 = 1;
}
