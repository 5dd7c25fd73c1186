//! Sockets of IP: TCP, UDP, raw.

use super::datagram::{self, DatagramFacts};
use super::outside::Outside;
use super::socket::{self, OptionFacts};
use super::tcp::{self, TcpFacts};
use super::{Context, Detail, Probe, multicast};
use crate::sys::socket::{local_name, option_int, peer_name};
use anyhow::{Context as _, Result};
use std::os::fd::AsFd;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InetFacts {
    pub family: i32,
    /// SOCK_STREAM, SOCK_DGRAM, SOCK_RAW.
    pub kind: i32,
    pub protocol: i32,
    /// `struct sockaddr_in` or `sockaddr_in6`.
    pub local: Vec<u8>,
    pub remote: Option<Vec<u8>>,
    /// Of a stream socket.
    pub tcp: Option<TcpFacts>,
    /// Who has the other end, when that is outside.
    pub outside: Vec<Outside>,
    /// Who outside has this very socket, when it is a connection to the outside.
    pub sharers: Vec<Outside>,
    pub options: Vec<OptionFacts>,
    /// Of any other.
    pub datagram: Option<DatagramFacts>,
}

const IPPROTO_MPTCP: i32 = 262;

pub fn collect(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    let ours = cx.duplicate(probe)?;
    let fd = ours.as_fd();
    let get = |name| option_int(fd, libc::SOL_SOCKET, name);
    let (family, kind, protocol) = (get(libc::SO_DOMAIN)?, get(libc::SO_TYPE)?, get(libc::SO_PROTOCOL)?);
    let known = match kind {
        libc::SOCK_STREAM => [libc::IPPROTO_TCP, IPPROTO_MPTCP].contains(&protocol),
        libc::SOCK_DGRAM => {
            datagram::is_udp(protocol) || [libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6].contains(&protocol)
        }
        kind => kind == libc::SOCK_RAW,
    };
    if !known {
        return socket::unknown(cx, probe);
    }
    let (local, mut remote) = (local_name(fd).context("getsockname")?, peer_name(fd).context("getpeername")?);
    if kind != libc::SOCK_STREAM && remote.is_none() {
        remote = cx.destination(probe).map(|to| datagram::raw_address(to, family));
    }
    let ends = remote.as_deref().and_then(tcp::address).zip(tcp::address(&local)).map(|(r, l)| (l, r));
    let tcp = if kind == libc::SOCK_STREAM { Some(tcp::collect(cx, probe, fd, ends)?) } else { None };
    let mut datagram = if tcp.is_none() { Some(datagram::collect(fd, kind, protocol)?) } else { None };
    if let Some(datagram) =
        datagram.as_mut().filter(|_| kind == libc::SOCK_DGRAM && datagram::is_udp(protocol))
    {
        let told = cx.shutdowns.of(probe.pid, (family, protocol), probe.stat.ino);
        datagram.shutdown = told.unwrap_or(datagram.shutdown);
    }
    let mut options = socket::options(&mut cx.defaults, fd, (family, kind, protocol))?;
    if tcp.is_none() {
        options.extend(multicast::memberships(probe.pid, fd, family));
    }
    Ok(Detail::Inet(InetFacts {
        family,
        kind,
        protocol,
        local,
        remote,
        tcp,
        outside: Vec::new(),
        sharers: Vec::new(),
        options,
        datagram,
    }))
}
