//! Stored bytes: page data of VMAs and contents of files, pipes and shared memory.

crate::records! {
    /// One run of stored bytes. Extents of one owner are sorted by `addr` and do not overlap.
    pub struct Extent[48] {
        /// Where the bytes belong: a virtual address for a VMA, an offset for a file or object.
        pub addr: u64,
        /// Length in bytes. Page-aligned for VMAs.
        pub len: u64,
        /// Where the bytes, or the compressed block that holds them, are in the image. Page-aligned for VMAs,
        /// unless compressed.
        pub file_offset: u64,
        /// [`crate::checksum`] of the `len` bytes (decompressed).
        pub checksum: u64,
        /// [`extent_flags`].
        pub flags: u32,
        /// Compressed: length of the block in the image, less than `block_len`; else 0.
        pub stored_len: u32,
        /// Compressed: length of the block when decompressed, [`MAX_BLOCK`] at most; else 0.
        pub block_len: u32,
        /// Compressed: where in the decompressed block the bytes start; else 0.
        pub skip: u32,
    }

    /// Says that there are compressed extents, and how they are compressed. One record, or none.
    pub struct Compression[32] {
        /// [`METHOD_LZ4`].
        pub method: u32,
        pub reserved: u32,
        /// Number of blocks, and their bytes before and after.
        pub blocks: u64,
        pub block_bytes: u64,
        pub stored_bytes: u64,
    }
}

/// Longest extent the writer makes, so that a reader can verify each in one cached buffer.
pub const MAX_EXTENT: u64 = 1 << 20;

/// Longest block that is compressed as one.
pub const MAX_BLOCK: u64 = 256 << 10;

/// [`Compression::method`]: the block format of LZ4, without any frame.
pub const METHOD_LZ4: u32 = 1;

/// Bits of [`Extent::flags`].
pub mod extent_flags {
    /// Bytes identical to the named file's, stored so that the image is self-contained: used only
    /// where that file is missing or different at restore.
    pub const EMBEDDED_FILE: u32 = 1;
    /// The bytes are part of a compressed block, which several extents may share.
    pub const COMPRESSED: u32 = 2;
}

/// A compressed block, whose numbers have been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub file_offset: u64,
    pub stored_len: usize,
    pub block_len: usize,
    /// The part of the decompressed block that the extent is.
    pub start: usize,
    pub end: usize,
}

impl Extent {
    pub fn is_compressed(&self) -> bool {
        self.flags & extent_flags::COMPRESSED != 0
    }

    /// How many bytes are in the image for this extent, from `file_offset` on: more than `len`, if the block is
    /// shared with others.
    pub fn stored(&self) -> u64 {
        if self.is_compressed() { u64::from(self.stored_len) } else { self.len }
    }

    /// The block of a compressed extent; `None` if its numbers contradict each other.
    pub fn block(&self) -> Option<Block> {
        let end = u64::from(self.skip).checked_add(self.len)?;
        let sane = self.stored_len > 0
            && self.stored_len < self.block_len
            && u64::from(self.block_len) <= MAX_BLOCK
            && end <= u64::from(self.block_len);
        sane.then_some(Block {
            file_offset: self.file_offset,
            stored_len: self.stored_len as usize,
            block_len: self.block_len as usize,
            start: self.skip as usize,
            end: end as usize,
        })
    }
}

/// Fills `block` from its compressed form; false when that is damaged. Never reads or writes elsewhere.
pub fn decompress(stored: &[u8], block: &mut [u8]) -> bool {
    let len = block.len();
    lz4_flex::block::decompress_into(stored, block).is_ok_and(|n| n == len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_contradict_themselves_are_refused() {
        let good = Extent {
            len: 0x1000,
            flags: extent_flags::COMPRESSED,
            stored_len: 100,
            block_len: 0x3000,
            skip: 0x2000,
            ..Default::default()
        };
        assert_eq!(good.block().map(|b| (b.start, b.end)), Some((0x2000, 0x3000)));
        for bad in [
            Extent { stored_len: 0, ..good },
            Extent { stored_len: 0x3000, ..good },
            Extent { block_len: 0x2fff, ..good },
            Extent { block_len: u32::MAX, ..good },
            Extent { skip: 0x2001, ..good },
            Extent { skip: u32::MAX, len: u64::MAX, ..good },
            Extent { len: u64::MAX, ..good },
        ] {
            assert_eq!(bad.block(), None, "{bad:?}");
        }
    }

    #[test]
    fn decompressing_needs_exactly_the_length() {
        // A literal run of 5 bytes.
        let stored = [0x50, b'h', b'e', b'l', b'l', b'o'];
        let mut five = [0; 5];
        assert!(decompress(&stored, &mut five) && &five == b"hello");
        assert!(!decompress(&stored, &mut [0; 4]) && !decompress(&stored, &mut [0; 6]));
        assert!(!decompress(&stored[..5], &mut five) && !decompress(&[], &mut five));
        // A match before the beginning.
        assert!(!decompress(&[0x10, b'a', 9, 0, 0x50, 1, 2, 3, 4, 5], &mut [0; 10]));
    }
}
