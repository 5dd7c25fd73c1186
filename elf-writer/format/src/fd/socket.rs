//! Sockets.

use crate::Span;

crate::records! {
    pub struct InetSocket[144] {
        /// AF_INET, AF_INET6; AF_PACKET, AF_NETLINK.
        pub family: u32,
        /// SOCK_STREAM, SOCK_DGRAM, SOCK_RAW.
        pub kind: u32,
        pub protocol: u32,
        /// [`socket_state`].
        pub state: u32,
        /// `struct sockaddr_in` or `sockaddr_in6`; length 0 for none.
        pub local: [u8; 32],
        pub remote: [u8; 32],
        pub local_len: u32,
        pub remote_len: u32,
        pub backlog: u32,
        /// TCP: object of the other end of a connection inside the image, of the listening socket when
        /// WAITING, or NONE.
        pub peer: u32,
        /// Sequence of [`SockOpt`], each followed by its value padded to 8 bytes.
        pub options: Span,
        /// SHUT_RD = 1, SHUT_WR = 2 bits.
        pub shutdown: u32,
        pub reserved: u32,
        /// [`super::tcp::TcpRepair`] when REPAIRED.
        pub repair: Span,
        pub reserved2: u64,
    }

    /// In front of the bytes of each message in the queue of a UDP socket.
    pub struct Datagram[88] {
        /// Sender: `struct sockaddr_in` or `sockaddr_in6`.
        pub from: [u8; 32],
        pub from_len: u32,
        /// Length of `to`: 4, 16, or 0 for any address of the socket.
        pub to_len: u32,
        pub to: [u8; 32],
        /// Time to live (hop limit), 0 for any; type of service (traffic class).
        pub ttl: u32,
        pub tos: u32,
        /// IP_PKTINFO tells that it came in by the loopback.
        pub by_loopback: u32,
        pub reserved: u32,
    }

    pub struct UnixSocket[120] {
        /// SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET.
        pub kind: u32,
        /// [`socket_state`].
        pub state: u32,
        /// Bound name: a path, or abstract (first byte NUL); empty for unnamed.
        pub name: Span,
        /// Where a relative `name` starts; empty for an absolute or abstract one.
        pub dir: Span,
        /// Name of the other end, outside the image, that a datagram socket is connected to.
        pub remote: Span,
        /// Object of the other end of a pair or connection inside the image, of the listening socket when
        /// WAITING, or NONE.
        pub peer: u32,
        pub backlog: u32,
        pub options: Span,
        /// Inode number at the dump, for messages.
        pub ino: u64,
        /// SHUT_RD = 1, SHUT_WR = 2 bits.
        pub shutdown: u32,
        /// Place among the connections that wait at `peer`, when WAITING.
        pub order: u32,
        /// Mode, owner of the socket file.
        pub mode: u32,
        pub uid: u32,
        pub gid: u32,
        /// [`unix_flags`].
        pub flags: u32,
        pub reserved2: u64,
    }

    /// An option that differs from what a new socket has ([`super::options`]).
    pub struct SockOpt[16] {
        pub level: u32,
        pub name: u32,
        pub len: u32,
        /// [`option_stage`].
        pub stage: u32,
    }
}

/// [`SockOpt::stage`].
pub mod option_stage {
    /// Before the socket gets its name.
    pub const FIRST: u32 = 0;
    /// When it has its name, its destination and what waits in it.
    pub const LAST: u32 = 1;
}

/// [`InetSocket::state`], [`UnixSocket::state`].
pub mod socket_state {
    /// New, or bound.
    pub const UNCONNECTED: u32 = 1;
    pub const LISTENING: u32 = 2;
    /// To `peer`, to `remote`, or (UDP) with a default destination. TCP without `peer`: the other end has
    /// been closed, which is still to be read.
    pub const CONNECTED: u32 = 3;
    /// The other end is gone: reading gives what is queued, then end of file (unix) or ECONNRESET
    /// once (TCP); writing gives EPIPE.
    pub const BROKEN: u32 = 4;
    /// TCP, over and read to the end: end of file on reading, EPIPE on writing.
    pub const CLOSED: u32 = 5;
    /// Connected to the listening `peer`, which has not accepted it yet.
    pub const WAITING: u32 = 6;
    /// TCP, connected to an end that is not in the image, and goes on with that by TCP_REPAIR.
    pub const REPAIRED: u32 = 7;
}

/// Bits of [`UnixSocket::flags`].
pub mod unix_flags {
    /// The socket file had been deleted: bind and unlink.
    pub const UNLINKED: u32 = 1;
}
