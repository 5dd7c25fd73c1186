//! What all sockets have: options. And the families that nobody here knows.

use super::{Context, Detail, Probe};
use crate::sys;
use anyhow::Result;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

/// An option whose value differs from a new socket's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionFacts {
    pub level: i32,
    pub name: i32,
    pub value: Vec<u8>,
}

/// Values in the order of [`OPTIONS`]; `None` where the socket has no such option.
type Values = Vec<Option<Vec<u8>>>;

/// Values of new sockets, by family, type, protocol.
#[derive(Default)]
pub struct Defaults(HashMap<(i32, i32, i32), Values>);

/// SOL_SOCKET: buffer sizes are doubled by the kernel when set, and grow by themselves when not.
const SNDBUF: (i32, i32) = (libc::SOL_SOCKET, libc::SO_SNDBUF);
const RCVBUF: (i32, i32) = (libc::SOL_SOCKET, libc::SO_RCVBUF);
/// Which of the two the program has set (include/uapi/linux/socket.h: SOCK_SNDBUF_LOCK 1,
/// SOCK_RCVBUF_LOCK 2); Linux 5.14.
const SO_BUF_LOCK: i32 = 72;

/// Options that setsockopt(2) can set to what getsockopt(2) says. Not here: what describes the
/// moment (SO_ERROR, TCP_INFO, TCP_QUICKACK) or cannot be read (multicast memberships).
const OPTIONS: &[(i32, &[i32])] = &[
    // DEBUG REUSEADDR DONTROUTE BROADCAST SNDBUF RCVBUF KEEPALIVE OOBINLINE NO_CHECK PRIORITY LINGER
    // REUSEPORT PASSCRED RCVLOWAT RCVTIMEO SNDTIMEO BINDTODEVICE TIMESTAMP PASSSEC TIMESTAMPNS MARK
    // TIMESTAMPING RXQ_OVFL PEEK_OFF SELECT_ERR_QUEUE BUSY_POLL ZEROCOPY PASSPIDFD
    (
        libc::SOL_SOCKET,
        &[
            1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 18, 20, 21, 25, 29, 34, 35, 36, 37, 40, 42, 45, 46,
            60, 76,
        ],
    ),
    // TOS TTL PKTINFO MTU_DISCOVER RECVERR RECVTTL RECVTOS FREEBIND TRANSPARENT RECVORIGDSTADDR
    // MINTTL BIND_ADDRESS_NO_PORT MULTICAST_IF MULTICAST_TTL MULTICAST_LOOP MULTICAST_ALL
    (libc::SOL_IP, &[1, 2, 8, 10, 11, 12, 13, 15, 19, 20, 21, 24, 32, 33, 34, 49]),
    // UNICAST_HOPS MULTICAST_IF MULTICAST_HOPS MULTICAST_LOOP MTU_DISCOVER RECVERR V6ONLY
    // MULTICAST_ALL RECVPKTINFO RECVHOPLIMIT DONTFRAG RECVTCLASS TCLASS AUTOFLOWLABEL MINHOPCOUNT
    // RECVORIGDSTADDR TRANSPARENT FREEBIND
    (libc::SOL_IPV6, &[16, 17, 18, 19, 23, 25, 26, 29, 49, 51, 62, 66, 67, 70, 73, 74, 75, 78]),
    // NODELAY CORK KEEPIDLE KEEPINTVL KEEPCNT SYNCNT LINGER2 DEFER_ACCEPT CONGESTION USER_TIMEOUT
    // FASTOPEN NOTSENT_LOWAT SAVE_SYN FASTOPEN_CONNECT INQ
    (libc::SOL_TCP, &[1, 3, 4, 5, 6, 7, 8, 9, 13, 18, 23, 25, 27, 30, 36]),
    // NO_CHECK6_TX NO_CHECK6_RX SEGMENT GRO
    (libc::SOL_UDP, &[101, 102, 103, 104]),
];

/// MULTICAST_IF, _TTL or _HOPS, _LOOP, _ALL: a TCP connection has values there, too, from its first
/// packet, but setsockopt(2) refuses them.
const MULTICAST: &[(i32, &[i32])] = &[(libc::SOL_IP, &[32, 33, 34, 49]), (libc::SOL_IPV6, &[17, 18, 19, 29])];

/// Whether an option means something for a family and type.
fn applies((level, name): (i32, i32), family: i32, kind: i32) -> bool {
    let multicast = MULTICAST.iter().any(|(l, names)| *l == level && names.contains(&name));
    if multicast && kind == libc::SOCK_STREAM {
        return false;
    }
    match level {
        libc::SOL_SOCKET => true,
        libc::SOL_IP => family == libc::AF_INET || family == libc::AF_INET6,
        libc::SOL_IPV6 => family == libc::AF_INET6,
        libc::SOL_TCP => family != libc::AF_UNIX && kind == libc::SOCK_STREAM,
        _ => family != libc::AF_UNIX && kind == libc::SOCK_DGRAM,
    }
}

impl Defaults {
    fn of(&mut self, family: i32, kind: i32, protocol: i32) -> Result<&[Option<Vec<u8>>]> {
        use std::collections::hash_map::Entry;
        Ok(match self.0.entry((family, kind, protocol)) {
            Entry::Occupied(e) => e.into_mut(),
            Entry::Vacant(e) => {
                let fresh = sys::socket::socket(family, kind, protocol)?;
                e.insert(values(fresh.as_fd(), family, kind))
            }
        })
    }
}

fn values(fd: BorrowedFd<'_>, family: i32, kind: i32) -> Values {
    names()
        .map(|(level, name)| {
            let asked = applies((level, name), family, kind);
            asked.then(|| sys::socket::option(fd, level, name).ok()).flatten()
        })
        .collect()
}

fn names() -> impl Iterator<Item = (i32, i32)> {
    OPTIONS.iter().flat_map(|(level, names)| names.iter().map(|n| (*level, *n)))
}

/// Options of a socket that differ from those of a new one.
///
/// # Errors
/// When no socket of this family can be made to compare with.
pub fn options(
    defaults: &mut Defaults,
    fd: BorrowedFd<'_>,
    (family, kind, protocol): (i32, i32, i32),
) -> Result<Vec<OptionFacts>> {
    let fresh = defaults.of(family, kind, protocol)?;
    let lock = sys::socket::option_int(fd, libc::SOL_SOCKET, SO_BUF_LOCK).ok();
    let changed = values(fd, family, kind)
        .into_iter()
        .zip(fresh)
        .zip(names())
        .filter(|((now, new), option)| match (*option, lock) {
            (SNDBUF, Some(lock)) => lock & 1 != 0,
            (RCVBUF, Some(lock)) => lock & 2 != 0,
            _ => now != *new,
        })
        .filter_map(|((now, _), (level, name))| Some(OptionFacts { level, name, value: now? }))
        .collect();
    Ok(changed)
}

/// A family of which nothing can be saved.
pub fn unknown(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    let ours = cx.duplicate(probe)?;
    let family = sys::socket::option_int(ours.as_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN)?;
    let kind = sys::socket::option_int(ours.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE)?;
    let name = FAMILIES.iter().find(|(f, _)| *f == family).map_or("unknown", |(_, n)| *n);
    Ok(Detail::Unknown(format!("a {name} socket (family {family}, type {kind})")))
}

const FAMILIES: &[(i32, &str)] = &[
    (libc::AF_INET, "raw IPv4"),
    (libc::AF_INET6, "raw IPv6"),
    (libc::AF_NETLINK, "netlink"),
    (libc::AF_PACKET, "packet"),
    (libc::AF_ALG, "kernel crypto"),
    (libc::AF_VSOCK, "vsock"),
    (libc::AF_BLUETOOTH, "bluetooth"),
    (libc::AF_CAN, "CAN"),
    (libc::AF_XDP, "XDP"),
    (libc::AF_TIPC, "TIPC"),
    (libc::AF_KEY, "key management"),
];
