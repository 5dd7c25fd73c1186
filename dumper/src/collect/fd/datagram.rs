//! Sockets of IP without connections: UDP, UDP-Lite, raw, ICMP ("ping"). What waits in them.

use super::tcp;
use crate::sys;
use crate::sys::socket::{Control, PeekWalk, Peeked, peek};
use anyhow::{Context as _, Result};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// What waits in such a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatagramFacts {
    /// UDP: what waits to be read, oldest first.
    pub queue: Vec<Datagram>,
    /// What waits in it and cannot be seen, in words.
    pub unseen: Vec<String>,
    /// SHUT_RD = 1, SHUT_WR = 2 bits.
    pub shutdown: u32,
}

/// A datagram, with what the program would see of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Datagram {
    pub bytes: Vec<u8>,
    /// `struct sockaddr_in` or `sockaddr_in6`.
    pub from: Vec<u8>,
    /// Where it was sent to, if the program wants to know (IP_PKTINFO).
    pub to: Option<IpAddr>,
    /// IP_PKTINFO says that it came in by the loopback; it says so only if it was on by then.
    pub by_loopback: bool,
    /// IP_RECVTTL, IP_RECVTOS and the like.
    pub ttl: Option<u8>,
    pub tos: Option<u8>,
    /// What of it cannot be had again, in words.
    pub inexact: Option<&'static str>,
}

/// Whether what waits can be put back: it has the address of its sender only.
#[must_use]
pub fn is_udp(protocol: i32) -> bool {
    const UDPLITE: i32 = 136;
    [libc::IPPROTO_UDP, UDPLITE].contains(&protocol)
}

pub fn collect(fd: BorrowedFd<'_>, kind: i32, protocol: i32) -> Result<DatagramFacts> {
    let mut facts = DatagramFacts::default();
    let events = sys::fd::poll_now(fd, libc::POLLIN | libc::POLLRDHUP)?;
    facts.shutdown = match (events & libc::POLLHUP != 0, events & libc::POLLRDHUP != 0) {
        (true, _) => 3,
        (false, true) => 1,
        _ => 0,
    };
    // Any look into the queue would take the error away.
    if events & libc::POLLERR != 0 {
        facts.unseen.push("an error that it has not been told of yet, and what else waits in it".into());
    } else if kind == libc::SOCK_DGRAM && is_udp(protocol) {
        facts.queue = queue(fd).context("looking at waiting datagrams")?;
    } else if events & libc::POLLIN != 0 && facts.shutdown == 0 {
        facts.unseen.push("packets that it has not read".into());
    }
    let begun = unsent(fd);
    if begun > 0 {
        facts.unseen.push("a packet that it has begun to write (UDP_CORK, MSG_MORE)".into());
    }
    Ok(facts)
}

/// Where sockets are connected to that getpeername(2) does not tell, as there is no port in it: by inode.
pub type Destinations = HashMap<u64, SocketAddr>;

/// Reads `/proc/PID/net/raw` and the like.
#[must_use]
pub fn destinations(pid: i32) -> Destinations {
    let mut all = Destinations::new();
    for name in ["raw", "icmp", "udp", "udplite"].iter().flat_map(|n| [(*n).to_owned(), format!("{n}6")]) {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
        all.extend(text.lines().filter_map(destination));
    }
    all
}

/// `  1: 0100007F:0001 0200007F:0000 01 ... inode ...`: state 1 is connected.
fn destination(line: &str) -> Option<(u64, SocketAddr)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let to = tcp::hex(fields.get(2)?).filter(|to| to.port() == 0 && !to.ip().is_unspecified())?;
    (*fields.get(3)? == "01").then_some((fields.get(9)?.parse().ok()?, to))
}

/// As `struct sockaddr_in`, or `sockaddr_in6` for a socket of that family.
#[must_use]
pub fn raw_address(to: SocketAddr, family: i32) -> Vec<u8> {
    let port = to.port().to_be_bytes();
    let mut raw = (family as u16).to_ne_bytes().to_vec();
    raw.extend_from_slice(&port);
    match to.ip() {
        IpAddr::V4(ip) if family == libc::AF_INET => {
            raw.extend_from_slice(&ip.octets());
            raw.resize(16, 0);
        }
        ip => {
            let ip = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            raw.extend_from_slice(&[0; 4]);
            raw.extend_from_slice(&ip.octets());
            raw.resize(28, 0);
        }
    }
    raw
}

/// Memory of what was written and has not left the machine: that of devices goes away by itself.
fn unsent(fd: BorrowedFd<'_>) -> usize {
    const LEAVES: Duration = Duration::from_millis(100);
    let start = Instant::now();
    loop {
        match sys::fd::unreceived_bytes(fd).unwrap_or(0) {
            0 => return 0,
            n if start.elapsed() > LEAVES => return n,
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Largest datagram, and more.
const LARGEST: usize = 1 << 17;

fn queue(fd: BorrowedFd<'_>) -> Result<Vec<Datagram>> {
    let walk = PeekWalk::start(fd)?;
    let mut all = Vec::new();
    while let Some(message) = peek(walk.fd(), LARGEST)? {
        // After shutdown(SHUT_RD) there is always one more, of nobody.
        if message.from.is_empty() {
            break;
        }
        all.push(datagram(message));
    }
    Ok(all)
}

fn datagram(message: Peeked) -> Datagram {
    let mut d = Datagram { bytes: message.bytes, from: message.from, ..Datagram::default() };
    if let Some(SocketAddr::V6(from)) = tcp::address(&d.from)
        && from.ip().is_unicast_link_local()
    {
        d.inexact = Some("the interface that it came in by");
    }
    if message.truncated {
        d.inexact = Some("some of what comes with it");
    }
    message.control.iter().for_each(|c| note(&mut d, c));
    d
}

/// What the program wanted to know with each datagram. Numbers of include/uapi/linux/{in,in6,udp}.h and
/// asm-generic/socket.h.
fn note(d: &mut Datagram, c: &Control) {
    /// What is sent over the loopback comes in by its interface, the first of every namespace.
    const LOOPBACK: u32 = 1;
    let int = c.bytes.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
    let byte = c.bytes.first().copied();
    let word =
        |at: usize| c.bytes.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    match (c.level, c.kind) {
        (libc::SOL_IP, libc::IP_TTL) | (libc::SOL_IPV6, libc::IPV6_HOPLIMIT) => {
            d.ttl = u8::try_from(int).ok()
        }
        (libc::SOL_IP, libc::IP_TOS) => d.tos = byte,
        (libc::SOL_IPV6, libc::IPV6_TCLASS) => d.tos = u8::try_from(int).ok(),
        // `struct in_pktinfo`: interface, own address, destination; the last two differ for broadcasts.
        (libc::SOL_IP, libc::IP_PKTINFO) => {
            let to = c.bytes.get(8..12).and_then(|b| Some(IpAddr::from(*b.first_chunk::<4>()?)));
            d.by_loopback = word(0) == LOOPBACK;
            if word(0) > LOOPBACK || word(4) != word(8) {
                d.inexact = Some("the interface that it came in by");
            }
            d.to = to.filter(|_| word(4) == word(8));
        }
        // `struct in6_pktinfo`: destination, interface.
        (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
            let to = c.bytes.first_chunk::<16>().map(|b| IpAddr::from(*b).to_canonical());
            d.by_loopback = word(16) == LOOPBACK;
            if word(16) > LOOPBACK || to.is_none_or(|ip| ip.is_multicast()) {
                d.inexact = Some("the interface that it came in by");
            }
            d.to = to.filter(|ip| !ip.is_multicast());
        }
        (libc::SOL_SOCKET, 29 | 35 | 37 | 63 | 64 | 65) => d.inexact = Some("its time of arrival"),
        (libc::SOL_UDP, _) => d.inexact = Some("that it is several in one (UDP_GRO)"),
        _ => d.inexact = Some("some of what comes with it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn destinations_without_port() {
        let line = "   1: 0100007F:0001 0200007F:0000 01 00000000:00000000 00:00000000 00000000     0        0 4711 2";
        assert_eq!(destination(line), Some((4711, "127.0.0.2:0".parse().unwrap())));
        assert_eq!(destination(&line.replace(" 01 ", " 07 ")), None);
        let v4 = raw_address("127.0.0.2:0".parse().unwrap(), libc::AF_INET);
        assert_eq!((v4.len(), &v4[..8]), (16, &[2, 0, 0, 0, 127, 0, 0, 2][..]));
        let v6 = raw_address("127.0.0.2:0".parse().unwrap(), libc::AF_INET6);
        assert_eq!((v6.len(), v6[0], &v6[18..24]), (28, 10, &[0xff, 0xff, 127, 0, 0, 2][..]));
    }

    #[test]
    fn waiting_datagrams_are_seen_and_stay() {
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        for text in ["one", "", "three"] {
            from.send_to(text.as_bytes(), to.local_addr().unwrap()).unwrap();
        }
        let facts = collect(to.as_fd(), libc::SOCK_DGRAM, libc::IPPROTO_UDP).unwrap();
        let texts: Vec<&[u8]> = facts.queue.iter().map(|d| &d.bytes[..]).collect();
        assert_eq!(texts, [&b"one"[..], b"", b"three"]);
        assert_eq!(tcp::address(&facts.queue[2].from), Some(from.local_addr().unwrap()));
        assert!(facts.unseen.is_empty());
        let mut room = [0; 9];
        assert_eq!(to.recv(&mut room).unwrap(), 3);
    }
}
