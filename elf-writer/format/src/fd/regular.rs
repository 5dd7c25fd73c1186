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
        pub reserved: u64,
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
