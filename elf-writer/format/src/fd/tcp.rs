//! TCP connections whose other end is not in the image.

use crate::Span;

crate::records! {
    /// What TCP_REPAIR needs to go on with a connection (`InetSocket::repair`, state REPAIRED). What was
    /// received and not read is the object's `queue`.
    pub struct TcpRepair[80] {
        /// include/net/tcp_states.h.
        pub state: u32,
        /// What both ends had agreed to: `TCPI_OPT_*` of include/uapi/linux/tcp.h (timestamps 1, SACK 2,
        /// window scale 4).
        pub options: u32,
        pub send_scale: u32,
        pub receive_scale: u32,
        /// Largest segment that the other end takes.
        pub mss: u32,
        /// TCP_TIMESTAMP.
        pub timestamp: u32,
        /// Sequence numbers behind all that the program has written, and all that was received, which counts
        /// the end of the stream.
        pub written: u32,
        pub received: u32,
        /// `struct tcp_repair_window`.
        pub window: [u32; 5],
        /// So many bytes at the end of `unacked` were never sent.
        pub unsent: u32,
        /// What was written and not acknowledged.
        pub unacked: Span,
        /// SO_SNDBUF and SO_RCVBUF, as getsockopt(2) says.
        pub send_buffer: u32,
        pub receive_buffer: u32,
    }
}
