//! Socket options that getsockopt(2) reads and setsockopt(2) can set to what it said: the one list of them,
//! in the order in which they are set again. Numbers of include/uapi/asm-generic/socket.h and
//! include/uapi/linux/{in,in6,tcp,udp,netlink,if_packet,icmp,icmpv6}.h.
//!
//! Not here: what describes the moment (SO_ERROR, TCP_INFO, TCP_QUICKACK, SO_MEMINFO ...) or the socket
//! itself (SO_TYPE, SO_COOKIE ...), second names of the same thing (SO_RCVTIMEO_NEW, SO_BINDTOIFINDEX), and
//! what reading changes (SO_ERROR, PACKET_STATISTICS, SO_PEERPIDFD).

pub const SOL_IP: u32 = 0;
pub const SOL_SOCKET: u32 = 1;
pub const SOL_TCP: u32 = 6;
pub const SOL_UDP: u32 = 17;
pub const SOL_IPV6: u32 = 41;
pub const SOL_ICMPV6: u32 = 58;
pub const SOL_UDPLITE: u32 = 136;
pub const SOL_RAW: u32 = 255;
pub const SOL_PACKET: u32 = 263;
pub const SOL_NETLINK: u32 = 270;

/// An option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub level: u32,
    pub name: u32,
    pub text: &'static str,
    pub of: Of,
}

/// Of which sockets an option is a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    All,
    /// Not of SOCK_STREAM: a TCP connection has a value from its first packet, which cannot be set.
    NotStream,
    /// Not of a connection: it shows what was negotiated instead.
    NotConnected,
    /// Cannot be set again: refused if set.
    Nobody,
}

use Of::{All, Nobody, NotConnected, NotStream};

/// What only filters, memberships and the like have, beyond [`TABLE`]: for messages.
pub const OTHERS: &[Known] = &[
    row(SOL_SOCKET, SO_ATTACH_FILTER, "SO_ATTACH_FILTER", All),
    row(SOL_IP, MCAST_JOIN_GROUP, "MCAST_JOIN_GROUP", All),
    row(SOL_IP, MCAST_MSFILTER, "MCAST_MSFILTER", All),
    row(SOL_IPV6, MCAST_JOIN_GROUP, "MCAST_JOIN_GROUP", All),
    row(SOL_IPV6, MCAST_MSFILTER, "MCAST_MSFILTER", All),
    row(SOL_PACKET, 1, "PACKET_ADD_MEMBERSHIP", All),
    row(SOL_NETLINK, 1, "NETLINK_ADD_MEMBERSHIP", All),
];

pub const SO_SNDBUF: u32 = 7;
pub const SO_RCVBUF: u32 = 8;
pub const SO_PRIORITY: u32 = 12;
/// `struct sock_filter`s of a classic BPF program (SO_GET_FILTER), as the value of the option.
pub const SO_ATTACH_FILTER: u32 = 26;
pub const SO_LOCK_FILTER: u32 = 44;
pub const SO_PEEK_OFF: u32 = 42;
/// Which of the two buffer sizes the program has set (SOCK_SNDBUF_LOCK 1, SOCK_RCVBUF_LOCK 2); Linux 5.14.
pub const SO_BUF_LOCK: u32 = 72;
pub const IP_TOS: u32 = 1;
pub const MCAST_JOIN_GROUP: u32 = 42;
pub const MCAST_MSFILTER: u32 = 48;
pub const PACKET_FANOUT: u32 = 18;

const fn row(level: u32, name: u32, text: &'static str, of: Of) -> Known {
    Known { level, name, text, of }
}

/// Name of an option, for messages.
pub fn text(level: u32, name: u32) -> Option<&'static str> {
    TABLE.iter().chain(OTHERS).find(|k| (k.level, k.name) == (level, name)).map(|k| k.text)
}

#[rustfmt::skip]
pub const TABLE: &[Known] = &[
    row(SOL_IP, IP_TOS, "IP_TOS", All), // sets SO_PRIORITY as well
    row(SOL_IP, 2, "IP_TTL", All),
    row(SOL_IP, 3, "IP_HDRINCL", All),
    row(SOL_IP, 4, "IP_OPTIONS", All),
    row(SOL_IP, 5, "IP_ROUTER_ALERT", All),
    row(SOL_IP, 6, "IP_RECVOPTS", All),
    row(SOL_IP, 7, "IP_RETOPTS", All),
    row(SOL_IP, 8, "IP_PKTINFO", All),
    row(SOL_IP, 10, "IP_MTU_DISCOVER", All),
    row(SOL_IP, 11, "IP_RECVERR", All),
    row(SOL_IP, 12, "IP_RECVTTL", All),
    row(SOL_IP, 13, "IP_RECVTOS", All),
    row(SOL_IP, 15, "IP_FREEBIND", All),
    row(SOL_IP, 18, "IP_PASSSEC", All),
    row(SOL_IP, 19, "IP_TRANSPARENT", All),
    row(SOL_IP, 20, "IP_RECVORIGDSTADDR", All),
    row(SOL_IP, 21, "IP_MINTTL", All),
    row(SOL_IP, 22, "IP_NODEFRAG", All),
    row(SOL_IP, 23, "IP_CHECKSUM", All),
    row(SOL_IP, 24, "IP_BIND_ADDRESS_NO_PORT", All),
    row(SOL_IP, 25, "IP_RECVFRAGSIZE", All),
    row(SOL_IP, 26, "IP_RECVERR_RFC4884", All),
    row(SOL_IP, 32, "IP_MULTICAST_IF", NotStream),
    row(SOL_IP, 33, "IP_MULTICAST_TTL", NotStream),
    row(SOL_IP, 34, "IP_MULTICAST_LOOP", All),
    row(SOL_IP, 49, "IP_MULTICAST_ALL", All),
    row(SOL_IP, 50, "IP_UNICAST_IF", All),
    row(SOL_IP, 51, "IP_LOCAL_PORT_RANGE", All),
    row(SOL_IPV6, 2, "IPV6_2292PKTINFO", All),
    row(SOL_IPV6, 3, "IPV6_2292HOPOPTS", All),
    row(SOL_IPV6, 4, "IPV6_2292DSTOPTS", All),
    row(SOL_IPV6, 5, "IPV6_2292RTHDR", All),
    row(SOL_IPV6, 7, "IPV6_CHECKSUM", All),
    row(SOL_IPV6, 8, "IPV6_2292HOPLIMIT", All),
    row(SOL_IPV6, 11, "IPV6_FLOWINFO", All),
    row(SOL_IPV6, 16, "IPV6_UNICAST_HOPS", All),
    row(SOL_IPV6, 17, "IPV6_MULTICAST_IF", NotStream),
    row(SOL_IPV6, 18, "IPV6_MULTICAST_HOPS", NotStream),
    row(SOL_IPV6, 19, "IPV6_MULTICAST_LOOP", All),
    row(SOL_IPV6, 22, "IPV6_ROUTER_ALERT", Nobody),
    row(SOL_IPV6, 23, "IPV6_MTU_DISCOVER", All),
    row(SOL_IPV6, 25, "IPV6_RECVERR", All),
    row(SOL_IPV6, 26, "IPV6_V6ONLY", All),
    row(SOL_IPV6, 29, "IPV6_MULTICAST_ALL", All),
    row(SOL_IPV6, 30, "IPV6_ROUTER_ALERT_ISOLATE", All),
    row(SOL_IPV6, 31, "IPV6_RECVERR_RFC4884", All),
    row(SOL_IPV6, 33, "IPV6_FLOWINFO_SEND", All),
    row(SOL_IPV6, 36, "IPV6_HDRINCL", All),
    row(SOL_IPV6, 49, "IPV6_RECVPKTINFO", All),
    row(SOL_IPV6, 51, "IPV6_RECVHOPLIMIT", All),
    row(SOL_IPV6, 53, "IPV6_RECVHOPOPTS", All),
    row(SOL_IPV6, 54, "IPV6_HOPOPTS", All),
    row(SOL_IPV6, 57, "IPV6_RTHDR", All),
    row(SOL_IPV6, 55, "IPV6_RTHDRDSTOPTS", All), // kept only beside a routing header
    row(SOL_IPV6, 56, "IPV6_RECVRTHDR", All),
    row(SOL_IPV6, 58, "IPV6_RECVDSTOPTS", All),
    row(SOL_IPV6, 59, "IPV6_DSTOPTS", All),
    row(SOL_IPV6, 60, "IPV6_RECVPATHMTU", All),
    row(SOL_IPV6, 62, "IPV6_DONTFRAG", All),
    row(SOL_IPV6, 66, "IPV6_RECVTCLASS", All),
    row(SOL_IPV6, 67, "IPV6_TCLASS", All),
    row(SOL_IPV6, 70, "IPV6_AUTOFLOWLABEL", All),
    row(SOL_IPV6, 72, "IPV6_ADDR_PREFERENCES", All),
    row(SOL_IPV6, 73, "IPV6_MINHOPCOUNT", All),
    row(SOL_IPV6, 74, "IPV6_RECVORIGDSTADDR", All),
    row(SOL_IPV6, 75, "IPV6_TRANSPARENT", All),
    row(SOL_IPV6, 76, "IPV6_UNICAST_IF", All),
    row(SOL_IPV6, 77, "IPV6_RECVFRAGSIZE", All),
    row(SOL_IPV6, 78, "IPV6_FREEBIND", All),
    row(SOL_SOCKET, 1, "SO_DEBUG", All),
    row(SOL_SOCKET, 2, "SO_REUSEADDR", All),
    row(SOL_SOCKET, 5, "SO_DONTROUTE", All),
    row(SOL_SOCKET, 6, "SO_BROADCAST", All),
    row(SOL_SOCKET, SO_SNDBUF, "SO_SNDBUF", All),
    row(SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF", All),
    row(SOL_SOCKET, 9, "SO_KEEPALIVE", All),
    row(SOL_SOCKET, 10, "SO_OOBINLINE", All),
    row(SOL_SOCKET, 11, "SO_NO_CHECK", All),
    row(SOL_SOCKET, SO_PRIORITY, "SO_PRIORITY", All),
    row(SOL_SOCKET, 13, "SO_LINGER", All),
    row(SOL_SOCKET, 15, "SO_REUSEPORT", All),
    row(SOL_SOCKET, 16, "SO_PASSCRED", All),
    row(SOL_SOCKET, 18, "SO_RCVLOWAT", All),
    row(SOL_SOCKET, 20, "SO_RCVTIMEO", All),
    row(SOL_SOCKET, 21, "SO_SNDTIMEO", All),
    row(SOL_SOCKET, 25, "SO_BINDTODEVICE", All),
    row(SOL_SOCKET, 34, "SO_PASSSEC", All),
    row(SOL_SOCKET, 36, "SO_MARK", All),
    // Old and new timestamps exclude each other; the last one that is set decides.
    row(SOL_SOCKET, 37, "SO_TIMESTAMPING", All),
    row(SOL_SOCKET, 29, "SO_TIMESTAMP", All),
    row(SOL_SOCKET, 35, "SO_TIMESTAMPNS", All),
    row(SOL_SOCKET, 63, "SO_TIMESTAMP_NEW", All),
    row(SOL_SOCKET, 64, "SO_TIMESTAMPNS_NEW", All),
    row(SOL_SOCKET, 65, "SO_TIMESTAMPING_NEW", All),
    row(SOL_SOCKET, 40, "SO_RXQ_OVFL", All),
    row(SOL_SOCKET, 41, "SO_WIFI_STATUS", All),
    row(SOL_SOCKET, SO_PEEK_OFF, "SO_PEEK_OFF", All),
    row(SOL_SOCKET, 43, "SO_NOFCS", All),
    row(SOL_SOCKET, 45, "SO_SELECT_ERR_QUEUE", All),
    row(SOL_SOCKET, 46, "SO_BUSY_POLL", All),
    row(SOL_SOCKET, 47, "SO_MAX_PACING_RATE", All),
    row(SOL_SOCKET, 49, "SO_INCOMING_CPU", NotConnected),
    row(SOL_SOCKET, 60, "SO_ZEROCOPY", All),
    row(SOL_SOCKET, 61, "SO_TXTIME", All),
    row(SOL_SOCKET, 69, "SO_PREFER_BUSY_POLL", All),
    row(SOL_SOCKET, 70, "SO_BUSY_POLL_BUDGET", All),
    row(SOL_SOCKET, 73, "SO_RESERVE_MEM", All),
    row(SOL_SOCKET, 74, "SO_TXREHASH", NotConnected),
    row(SOL_SOCKET, 75, "SO_RCVMARK", All),
    row(SOL_SOCKET, 76, "SO_PASSPIDFD", All),
    row(SOL_SOCKET, 82, "SO_RCVPRIORITY", All),
    row(SOL_SOCKET, 83, "SO_PASSRIGHTS", All),
    row(SOL_SOCKET, 84, "SO_INQ", All),
    row(SOL_SOCKET, SO_BUF_LOCK, "SO_BUF_LOCK", All), // behind what sets it: the sizes
    row(SOL_SOCKET, SO_LOCK_FILTER, "SO_LOCK_FILTER", All), // behind the filter, which comes first
    row(SOL_TCP, 1, "TCP_NODELAY", All),
    row(SOL_TCP, 2, "TCP_MAXSEG", NotConnected),
    row(SOL_TCP, 3, "TCP_CORK", All),
    row(SOL_TCP, 4, "TCP_KEEPIDLE", All),
    row(SOL_TCP, 5, "TCP_KEEPINTVL", All),
    row(SOL_TCP, 6, "TCP_KEEPCNT", All),
    row(SOL_TCP, 7, "TCP_SYNCNT", All),
    row(SOL_TCP, 8, "TCP_LINGER2", All),
    row(SOL_TCP, 9, "TCP_DEFER_ACCEPT", All),
    row(SOL_TCP, 10, "TCP_WINDOW_CLAMP", NotConnected),
    row(SOL_TCP, 13, "TCP_CONGESTION", All),
    row(SOL_TCP, 16, "TCP_THIN_LINEAR_TIMEOUTS", All),
    row(SOL_TCP, 18, "TCP_USER_TIMEOUT", All),
    row(SOL_TCP, 23, "TCP_FASTOPEN", All),
    row(SOL_TCP, 25, "TCP_NOTSENT_LOWAT", All),
    row(SOL_TCP, 27, "TCP_SAVE_SYN", All),
    row(SOL_TCP, 30, "TCP_FASTOPEN_CONNECT", NotConnected),
    row(SOL_TCP, 33, "TCP_FASTOPEN_KEY", NotConnected),
    row(SOL_TCP, 34, "TCP_FASTOPEN_NO_COOKIE", NotConnected),
    row(SOL_TCP, 36, "TCP_INQ", All),
    row(SOL_TCP, 37, "TCP_TX_DELAY", All),
    row(SOL_TCP, 44, "TCP_RTO_MAX_MS", All),
    row(SOL_TCP, 45, "TCP_RTO_MIN_US", All),
    row(SOL_TCP, 46, "TCP_DELACK_MAX_US", All),
    row(SOL_UDP, 1, "UDP_CORK", All),
    row(SOL_UDP, 100, "UDP_ENCAP", Nobody), // a tunnel of the kernel
    row(SOL_UDP, 101, "UDP_NO_CHECK6_TX", All),
    row(SOL_UDP, 102, "UDP_NO_CHECK6_RX", All),
    row(SOL_UDP, 103, "UDP_SEGMENT", All),
    row(SOL_UDP, 104, "UDP_GRO", All),
    row(SOL_UDPLITE, 10, "UDPLITE_SEND_CSCOV", All),
    row(SOL_UDPLITE, 11, "UDPLITE_RECV_CSCOV", All),
    row(SOL_RAW, 1, "ICMP_FILTER", All),
    row(SOL_ICMPV6, 1, "ICMPV6_FILTER", All),
    row(SOL_PACKET, 7, "PACKET_COPY_THRESH", All),
    row(SOL_PACKET, 8, "PACKET_AUXDATA", All),
    row(SOL_PACKET, 9, "PACKET_ORIGDEV", All),
    row(SOL_PACKET, 10, "PACKET_VERSION", All),
    row(SOL_PACKET, 12, "PACKET_RESERVE", All),
    row(SOL_PACKET, 14, "PACKET_LOSS", All),
    row(SOL_PACKET, 15, "PACKET_VNET_HDR", All),
    row(SOL_PACKET, 24, "PACKET_VNET_HDR_SZ", All), // says more than the one before
    row(SOL_PACKET, 17, "PACKET_TIMESTAMP", All),
    row(SOL_PACKET, PACKET_FANOUT, "PACKET_FANOUT", All),
    row(SOL_PACKET, 19, "PACKET_TX_HAS_OFF", All),
    row(SOL_PACKET, 20, "PACKET_QDISC_BYPASS", All),
    row(SOL_PACKET, 23, "PACKET_IGNORE_OUTGOING", All),
    row(SOL_NETLINK, 3, "NETLINK_PKTINFO", All),
    row(SOL_NETLINK, 4, "NETLINK_BROADCAST_ERROR", All),
    row(SOL_NETLINK, 5, "NETLINK_NO_ENOBUFS", All),
    row(SOL_NETLINK, 8, "NETLINK_LISTEN_ALL_NSID", All),
    row(SOL_NETLINK, 10, "NETLINK_CAP_ACK", All),
    row(SOL_NETLINK, 11, "NETLINK_EXT_ACK", All),
    row(SOL_NETLINK, 12, "NETLINK_GET_STRICT_CHK", All),
];
