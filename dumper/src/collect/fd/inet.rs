//! TCP and UDP sockets.

use super::socket::{self, OptionFacts};
use super::{Context, Detail, Probe, multicast};
use crate::sys;
use crate::sys::socket::{local_name, option, option_int, peer_name};
use anyhow::{Context as _, Result};
use std::os::fd::{AsFd, BorrowedFd};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InetFacts {
    pub family: i32,
    /// SOCK_STREAM, SOCK_DGRAM.
    pub kind: i32,
    pub protocol: i32,
    /// `struct sockaddr_in` or `sockaddr_in6`.
    pub local: Vec<u8>,
    pub remote: Option<Vec<u8>>,
    /// Of a stream socket.
    pub tcp: Option<TcpFacts>,
    pub options: Vec<OptionFacts>,
    /// SO_ATTACH_FILTER.
    pub has_filter: bool,
    /// A multicast membership that cannot be had again.
    pub multicast_problem: Option<String>,
    /// Something waits to be read.
    pub queued: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFacts {
    /// [`tcp_state`].
    pub state: u8,
    /// Of a listening socket: connections not accepted yet, and how many of them may wait.
    pub waiting: u32,
    pub backlog: u32,
    /// It was connected and nothing more can be read.
    pub over: bool,
}

/// include/net/tcp_states.h.
pub mod tcp_state {
    pub const CLOSE: u8 = 7;
    pub const LISTEN: u8 = 10;
}

const IPPROTO_MPTCP: i32 = 262;

pub fn collect(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    let ours = cx.duplicate(probe)?;
    let fd = ours.as_fd();
    let get = |name| option_int(fd, libc::SOL_SOCKET, name);
    let (family, kind, protocol) = (get(libc::SO_DOMAIN)?, get(libc::SO_TYPE)?, get(libc::SO_PROTOCOL)?);
    let known = match kind {
        libc::SOCK_STREAM => [libc::IPPROTO_TCP, IPPROTO_MPTCP].contains(&protocol),
        libc::SOCK_DGRAM => protocol == libc::IPPROTO_UDP,
        _ => false,
    };
    if !known {
        return socket::unknown(cx, probe);
    }
    let tcp = if kind == libc::SOCK_STREAM { Some(tcp(fd).context("TCP_INFO")?) } else { None };
    let queued = kind == libc::SOCK_DGRAM && sys::fd::poll_now(fd, libc::POLLIN)? & libc::POLLIN != 0;
    let mut options = socket::options(&mut cx.defaults, fd, (family, kind, protocol))?;
    let joined = if tcp.is_none() { multicast::memberships(probe.pid, fd, family) } else { Ok(Vec::new()) };
    let multicast_problem = joined.map(|groups| options.extend(groups)).err();
    Ok(Detail::Inet(InetFacts {
        family,
        kind,
        protocol,
        local: local_name(fd).context("getsockname")?,
        remote: peer_name(fd).context("getpeername")?,
        tcp,
        options,
        has_filter: sys::socket::has_filter(fd),
        multicast_problem,
        queued,
    }))
}

/// `struct tcp_info` (include/uapi/linux/tcp.h): state is the first byte; of a listening socket
/// `tcpi_unacked` (offset 24) and `tcpi_sacked` (28) are the length and limit of the accept queue.
fn tcp(fd: BorrowedFd<'_>) -> Result<TcpFacts> {
    let info = option(fd, libc::SOL_TCP, libc::TCP_INFO)?;
    let word = |at: usize| info.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    let state = info.first().copied().unwrap_or(tcp_state::CLOSE);
    let over = sys::fd::poll_now(fd, libc::POLLRDHUP)? & libc::POLLRDHUP != 0;
    Ok(TcpFacts { state, waiting: word(24), backlog: word(28), over })
}
