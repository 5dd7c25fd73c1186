//! Terminals.

use crate::Span;

crate::records! {
    /// A terminal whose other end is outside: the caller's terminal takes its place.
    pub struct Tty[112] {
        /// Path at the dump (`/dev/pts/3`), for messages.
        pub path: Span,
        /// `struct termios2` of the kernel (TCGETS2), 44 bytes padded.
        pub termios: [u8; 48],
        /// `struct winsize`.
        pub winsize: [u8; 8],
        /// Device number.
        pub rdev: u64,
        /// Object is the controlling terminal of its task.
        pub controlling: u32,
        pub reserved: u32,
        pub reserved2: [u64; 3],
    }
}
