//! What all sockets have: options. And the families that nobody here knows.

use super::datagram::is_udp;
use super::{Context, Detail, Probe};
use crate::sys;
use anyhow::{Context as _, Result};
use ckpt_format::fd::options::*;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

/// An option whose value differs from a new socket's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionFacts {
    pub level: i32,
    pub name: i32,
    pub value: Vec<u8>,
}

/// Values in the order of [`TABLE`]; `None` where the socket has no such option.
type Values = Vec<Option<Vec<u8>>>;

/// Values of new sockets, by family, type, protocol.
#[derive(Default)]
pub struct Defaults(HashMap<(i32, i32, i32), Values>);

/// Whether an option means something for a family, type and protocol.
fn applies(known: &Known, (family, kind, protocol): (i32, i32, i32)) -> bool {
    let inet = family == libc::AF_INET || family == libc::AF_INET6;
    let stream = kind == libc::SOCK_STREAM;
    if known.of == Of::NotStream && stream {
        return false;
    }
    match known.level {
        SOL_SOCKET => true,
        SOL_IP => inet,
        SOL_IPV6 => family == libc::AF_INET6,
        SOL_TCP => inet && stream,
        SOL_UDP => inet && kind == libc::SOCK_DGRAM && is_udp(protocol),
        SOL_UDPLITE => inet && kind == libc::SOCK_DGRAM && protocol == UDPLITE,
        SOL_RAW => family == libc::AF_INET && protocol == libc::IPPROTO_ICMP,
        SOL_ICMPV6 => family == libc::AF_INET6 && protocol == libc::IPPROTO_ICMPV6,
        SOL_PACKET => family == libc::AF_PACKET,
        SOL_NETLINK => family == libc::AF_NETLINK,
        _ => false,
    }
}

const UDPLITE: i32 = 136;

impl Defaults {
    fn of(&mut self, of: (i32, i32, i32)) -> Result<&[Option<Vec<u8>>]> {
        use std::collections::hash_map::Entry;
        Ok(match self.0.entry(of) {
            Entry::Occupied(e) => e.into_mut(),
            Entry::Vacant(e) => {
                let ping = of.1 == libc::SOCK_DGRAM && !is_udp(of.2);
                let fresh = match sys::socket::socket(of.0, of.1, of.2) {
                    // Not even root may have it where nobody may ping (net.ipv4.ping_group_range).
                    Err(_) if ping && of.0 != libc::AF_UNIX => sys::socket::socket(of.0, of.1, 0),
                    made => made,
                };
                let fresh = fresh.context("a new socket of this kind, to compare its options with")?;
                e.insert(values(fresh.as_fd(), of))
            }
        })
    }
}

fn values(fd: BorrowedFd<'_>, of: (i32, i32, i32)) -> Values {
    TABLE
        .iter()
        .map(|k| {
            let asked = applies(k, of);
            asked.then(|| sys::socket::option(fd, k.level as i32, k.name as i32).ok()).flatten()
        })
        .collect()
}

/// Options of a socket that differ from those of a new one, and its filter: in the order in which they are
/// to be set.
///
/// # Errors
/// When no socket of this family can be made to compare with; a filter that cannot be read.
pub fn options(defaults: &mut Defaults, fd: BorrowedFd<'_>, of: (i32, i32, i32)) -> Result<Vec<OptionFacts>> {
    let fresh = defaults.of(of)?;
    let stream = of.1 == libc::SOCK_STREAM && of.0 != libc::AF_UNIX;
    // Or was.
    let over = || sys::fd::poll_now(fd, libc::POLLRDHUP).is_ok_and(|got| got & libc::POLLRDHUP != 0);
    let connected = stream && (sys::socket::peer_name(fd).is_ok_and(|peer| peer.is_some()) || over());
    let now = values(fd, of);
    let lock = TABLE.iter().zip(&now).find(|(k, _)| k.name == SO_BUF_LOCK && k.level == SOL_SOCKET);
    let lock = lock.and_then(|(_, value)| value.as_ref()?.first().copied());
    let changed = |k: &Known, differs: bool| match (k.name, lock) {
        _ if k.of == Of::NotConnected && connected => false,
        // Those of a TCP connection grow by themselves, unless the program has set them.
        (SO_SNDBUF, Some(lock)) if k.level == SOL_SOCKET => lock & 1 != 0 || !connected && differs,
        (SO_RCVBUF, Some(lock)) if k.level == SOL_SOCKET => lock & 2 != 0 || !connected && differs,
        _ => differs,
    };
    let mut wanted: Vec<bool> =
        TABLE.iter().zip(now.iter().zip(fresh)).map(|(k, (now, new))| changed(k, now != new)).collect();
    also(&mut wanted, IP_TOS, SOL_IP, SO_PRIORITY);
    also(&mut wanted, SO_SNDBUF, SOL_SOCKET, SO_BUF_LOCK);
    also(&mut wanted, SO_RCVBUF, SOL_SOCKET, SO_BUF_LOCK);
    let mut options = Vec::new();
    if let Some(value) = sys::socket::filter(fd).context("reading its BPF filter (SO_GET_FILTER)")? {
        options.push(OptionFacts { level: libc::SOL_SOCKET, name: SO_ATTACH_FILTER as i32, value });
    }
    for ((k, value), _) in TABLE.iter().zip(now).zip(wanted).filter(|(_, wanted)| *wanted) {
        options.extend(value.map(|value| OptionFacts { level: k.level as i32, name: k.name as i32, value }));
    }
    Ok(options)
}

/// What setting one option changes as well must be set, too (`then`, of SOL_SOCKET).
fn also(wanted: &mut [bool], when: u32, level: u32, then: u32) {
    let at = |level, name| TABLE.iter().position(|k| (k.level, k.name) == (level, name));
    if let (Some(when), Some(then)) = (at(level, when), at(SOL_SOCKET, then)) {
        wanted[then] |= wanted[when];
    }
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
    (libc::AF_INET, "IPv4"),
    (libc::AF_INET6, "IPv6"),
    (libc::AF_PACKET, "packet"),
    (libc::AF_ALG, "kernel crypto"),
    (libc::AF_VSOCK, "vsock"),
    (libc::AF_BLUETOOTH, "bluetooth"),
    (libc::AF_CAN, "CAN"),
    (libc::AF_XDP, "XDP"),
    (libc::AF_TIPC, "TIPC"),
    (libc::AF_KEY, "key management"),
];
