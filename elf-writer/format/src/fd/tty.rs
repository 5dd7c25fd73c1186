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
    /// A pseudo-terminal that the program itself provides: both ends are in the image.
    pub struct Pty[136] {
        /// Name of the slave at the dump (`/dev/pts/3`), and of what the master was opened as.
        pub path: Span,
        pub ptmx: Span,
        /// `struct termios2` of the kernel (TCGETS2), 44 bytes padded.
        pub termios: [u8; 48],
        /// `struct winsize`.
        pub winsize: [u8; 8],
        /// Device number of the slave.
        pub rdev: u64,
        /// Number of the pair (TIOCGPTN).
        pub number: u32,
        /// [`pty_flags`].
        pub flags: u32,
        /// Owner and mode of the slave's node.
        pub uid: u32,
        pub gid: u32,
        pub mode: u32,
        pub reserved: u32,
        pub reserved2: [u64; 2],
    }
}

/// Bits of [`Pty::flags`].
pub mod pty_flags {
    /// TIOCPKT on the master.
    pub const PACKETS: u32 = 1;
    /// TIOCSPTLCK: the slave cannot be opened.
    pub const LOCKED: u32 = 2;
    /// TIOCEXCL on the master, on the slave.
    pub const MASTER_EXCLUSIVE: u32 = 4;
    pub const SLAVE_EXCLUSIVE: u32 = 8;
    /// The slave had been opened, and nobody has it open any more: the master is hung up.
    pub const SLAVES_CLOSED: u32 = 16;
    /// Owner and mode are known.
    pub const NODE_KNOWN: u32 = 32;
}
