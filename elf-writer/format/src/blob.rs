//! References: spans of bytes in the blob note, ranges of records in a table.

crate::records! {
    /// Bytes in the [`crate::NoteType::Blobs`] note. An empty span is "absent" unless said otherwise.
    pub struct Span[16] {
        /// Offset from the start of the blob note's description, in bytes; multiple of 8.
        pub offset: u64,
        /// Length in bytes.
        pub len: u64,
    }

    /// Consecutive records of a table (which one, the field's documentation says).
    pub struct Range[8] {
        pub first: u32,
        pub count: u32,
    }
}

impl Range {
    /// The indices, as usize, for iteration.
    pub fn indices(&self) -> core::ops::Range<usize> {
        self.first as usize..self.first as usize + self.count as usize
    }
}
