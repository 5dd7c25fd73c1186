//! TCP connections: their state, what waits in them, and which socket of this machine is the other end.

use super::inet::InetFacts;
use super::{Context, Description, Detail, Probe};
use crate::sys;
use crate::sys::socket::{option, option_int, peek};
use crate::sys::tcp::Look;
use anyhow::{Context as _, Result, ensure};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// A stream socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpFacts {
    /// [`state`].
    pub state: u8,
    /// Of a listening socket: connections not accepted yet, and how many of them may wait.
    pub waiting: u32,
    pub backlog: u32,
    /// It was connected and nothing more can be read.
    pub over: bool,
    /// What waits to be read.
    pub queue: Vec<u8>,
    /// Bytes that it has sent and the other end has no room for, and what they are, where that can be seen.
    pub stuck: usize,
    pub unsent: Option<Vec<u8>>,
    /// It has sent something in its life.
    pub has_sent: bool,
    pub other: OtherEnd,
    /// With the other end outside: what it takes to go on with it, or why that cannot be seen.
    pub outside: Option<Result<Look, String>>,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherEnd {
    /// Not of this machine, or none.
    #[default]
    Elsewhere,
    /// Its inode.
    Socket(u64),
    /// No process has it (any more, or yet).
    Nobody,
}

/// include/net/tcp_states.h.
pub mod state {
    pub const ESTABLISHED: u8 = 1;
    pub const FIN_WAIT1: u8 = 4;
    pub const FIN_WAIT2: u8 = 5;
    pub const CLOSE: u8 = 7;
    pub const CLOSE_WAIT: u8 = 8;
    pub const LAST_ACK: u8 = 9;
    pub const LISTEN: u8 = 10;
    pub const CLOSING: u8 = 11;
}

impl TcpFacts {
    /// It has been connected, and shutdown(2) and the other end have not ended that altogether.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        use state::*;
        [ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING].contains(&self.state)
    }

    /// shutdown(SHUT_WR) has been called.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        use state::*;
        [FIN_WAIT1, FIN_WAIT2, LAST_ACK, CLOSING].contains(&self.state)
    }
}

/// What can be told at once; [`settle`] adds the rest.
pub fn collect(cx: &mut Context<'_>, probe: &Probe, fd: BorrowedFd<'_>, ends: Ends) -> Result<TcpFacts> {
    let mut facts = TcpFacts::default();
    facts.look(fd)?;
    if let (true, Some((local, remote))) = (facts.is_connection(), ends) {
        let gone = if remote.ip().is_loopback() { OtherEnd::Nobody } else { OtherEnd::Elsewhere };
        facts.other = cx.tcp_end(probe, remote, local).unwrap_or(gone);
    }
    Ok(facts)
}

impl TcpFacts {
    /// `struct tcp_info` (include/uapi/linux/tcp.h): state is the first byte; of a listening socket
    /// `tcpi_unacked` (offset 24) and `tcpi_sacked` (28) are the length and limit of the accept queue;
    /// `tcpi_data_segs_out` (156).
    fn look(&mut self, fd: BorrowedFd<'_>) -> Result<()> {
        let info = option(fd, libc::SOL_TCP, libc::TCP_INFO)?;
        let word =
            |at: usize| info.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        self.state = info.first().copied().unwrap_or(state::CLOSE);
        (self.waiting, self.backlog, self.has_sent) = (word(24), word(28), word(156) != 0);
        self.over = sys::fd::poll_now(fd, libc::POLLRDHUP)? & libc::POLLRDHUP != 0;
        Ok(())
    }

    /// Its state and what waits, once more.
    pub(super) fn look_again(&mut self, fd: BorrowedFd<'_>) -> Result<()> {
        self.look(fd)?;
        self.look_into(fd)
    }

    /// What waits to be read.
    fn look_into(&mut self, fd: BorrowedFd<'_>) -> Result<()> {
        let waits = sys::fd::readable_bytes(fd).unwrap_or(0);
        self.queue.clear();
        if waits > 0 {
            self.queue = peek(fd, waits)?.map_or(Vec::new(), |p| p.bytes);
            ensure!(
                self.queue.len() == waits,
                "only {} of {waits} received bytes can be read",
                self.queue.len()
            );
        }
        Ok(())
    }
}

/// Longest wait for what is under way: acknowledgements are delayed by up to 40 ms, small packets (Nagle,
/// TCP_CORK) by up to 200 ms.
const UNDER_WAY: Duration = Duration::from_millis(300);
/// Soon enough, if it is but under way.
const ARRIVES: Duration = Duration::from_millis(50);

/// One connection inside: its description, and descriptors of ours for it and for its other end.
struct Pair {
    index: usize,
    own: OwnedFd,
    other: OwnedFd,
}

/// Waits until what the processes have sent to each other has arrived, and only then looks what waits in
/// every socket: until then it moves.
pub fn settle(cx: &Context<'_>, descriptions: &mut [Description]) -> Result<()> {
    let by_inode: HashMap<u64, usize> =
        (0..descriptions.len()).filter_map(|i| Some((tcp(&descriptions[i])?.0, i))).collect();
    let mut pairs = Vec::new();
    for (index, d) in descriptions.iter().enumerate() {
        if let Some((_, TcpFacts { other: OtherEnd::Socket(ino), .. })) = tcp(d)
            && let Some(other) = by_inode.get(ino)
        {
            let (own, other) = (cx.duplicate_of(d)?, cx.duplicate_of(&descriptions[*other])?);
            pairs.push(Pair { index, own, other });
        }
    }
    let start = Instant::now();
    let mut moving: Vec<&Pair> = pairs.iter().collect();
    loop {
        moving.retain(|p| sys::fd::unreceived_bytes(p.own.as_fd()).is_ok_and(|n| n > 0));
        if moving.is_empty() || start.elapsed() > UNDER_WAY {
            break;
        }
        if start.elapsed() > ARRIVES {
            moving.iter().for_each(|p| make_room(p));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    for Pair { index, own, .. } in moving {
        if let Detail::Inet(InetFacts { tcp: Some(tcp), .. }) = &mut descriptions[*index].detail {
            tcp.stuck = sys::fd::unreceived_bytes(own.as_fd())?;
            tcp.unsent = sys::socket::send_queue(own.as_fd(), tcp.stuck).ok();
        }
    }
    for d in descriptions {
        if tcp(d).is_none_or(|(_, facts)| facts.state == state::LISTEN) {
            continue;
        }
        let ours = cx.duplicate_of(d)?;
        if let Detail::Inet(InetFacts { tcp: Some(tcp), .. }) = &mut d.detail {
            let looked = tcp.look(ours.as_fd()).and_then(|()| tcp.look_into(ours.as_fd()));
            looked.with_context(|| format!("PID {} fd {}: looking at what was received", d.pid, d.fd))?;
        }
    }
    Ok(())
}

/// Inode and facts of a TCP socket.
fn tcp(d: &Description) -> Option<(u64, &TcpFacts)> {
    match &d.detail {
        Detail::Inet(InetFacts { tcp: Some(tcp), .. }) => Some((d.stat.ino, tcp)),
        _ => None,
    }
}

/// The receiver is stopped and its buffer may be full. SO_RCVLOWAT makes that larger where it must (up to
/// net.ipv4.tcp_rmem), as reading would; it is put back at once, while the room stays. A look at the first
/// byte tells the sender.
fn make_room(pair: &Pair) {
    let other = pair.other.as_fd();
    let waits = sys::fd::readable_bytes(other).unwrap_or(0);
    let more = sys::fd::unreceived_bytes(pair.own.as_fd()).unwrap_or(0);
    if let Ok(before) = option_int(other, libc::SOL_SOCKET, libc::SO_RCVLOWAT) {
        let wanted = i32::try_from(waits + more).unwrap_or(i32::MAX).saturating_add(1 << 20);
        let _ = sys::socket::set_receive_low_water(other, wanted.max(before));
        let _ = sys::socket::set_receive_low_water(other, before);
    }
    let _ = peek(other, 1);
}

/// Local and remote address of a connection.
pub type Ends = Option<(SocketAddr, SocketAddr)>;

/// A `struct sockaddr_in` or `sockaddr_in6`; IPv4 addresses in IPv6 clothes as what they are.
#[must_use]
pub fn address(raw: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([*raw.get(2)?, *raw.get(3)?]);
    let ip = match raw.len() {
        16 => IpAddr::from(*raw[4..].first_chunk::<4>()?),
        28 => IpAddr::from(*raw[8..].first_chunk::<16>()?).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Inode of each TCP connection of a network namespace, by local and remote address; 0 where no process
/// has it.
pub type TcpTable = HashMap<(SocketAddr, SocketAddr), u64>;

/// Reads `/proc/PID/net/tcp` and `tcp6`.
#[must_use]
pub fn table(pid: i32) -> TcpTable {
    let read = |name| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let (v4, v6) = (read("tcp"), read("tcp6"));
    v4.lines().chain(v6.lines()).filter_map(line).collect()
}

/// `  0: 0100007F:1F90 0100007F:D2A4 01 ...  uid timeout inode ...`: addresses as 32-bit words of this
/// machine's byte order.
fn line(text: &str) -> Option<((SocketAddr, SocketAddr), u64)> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    Some(((hex(fields.get(1)?)?, hex(fields.get(2)?)?), fields.get(9)?.parse().ok()?))
}

/// Address and port of these files.
pub fn hex(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words = (0..ip.len() / 8).map(|i| u32::from_str_radix(ip.get(i * 8..i * 8 + 8)?, 16).ok());
    let bytes: Vec<u8> =
        words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let ip = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
        16 => IpAddr::from(Ipv6Addr::from(*bytes.first_chunk::<16>()?)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_families() {
        let v4 = "   1: 0100007F:1F90 0100007F:D2A4 01 00000000:00000000 00:00000000 00000000  1000 0 4711 1";
        let ends = ("127.0.0.1:8080".parse().unwrap(), "127.0.0.1:53924".parse().unwrap());
        assert_eq!(line(v4), Some((ends, 4711)));
        let v6 = "   0: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000001000000:0050 01 \
                  00000000:00000000 00:00000000 00000000  1000 0 12 1";
        let ends = ("127.0.0.1:8080".parse().unwrap(), "[::1]:80".parse().unwrap());
        assert_eq!(line(v6), Some((ends, 12)));
        assert_eq!(line("  sl  local_address rem_address   st"), None);
    }
}
