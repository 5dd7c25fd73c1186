//! TCP connections: their state, what waits in them, and which socket of this machine is the other end.

use super::{Context, Probe};
use crate::sys;
use crate::sys::socket::{option, peek};
use anyhow::{Context as _, Result, ensure};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
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
    /// Bytes that it has sent and the other end has no room for.
    pub stuck: usize,
    /// It has sent something in its life.
    pub has_sent: bool,
    pub other: OtherEnd,
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

/// Longest wait for what is under way: acknowledgements are delayed by up to 40 ms, small packets (Nagle,
/// TCP_CORK) by up to 200 ms.
const UNDER_WAY: Duration = Duration::from_millis(300);

/// `struct tcp_info` (include/uapi/linux/tcp.h): state is the first byte; of a listening socket
/// `tcpi_unacked` (offset 24) and `tcpi_sacked` (28) are the length and limit of the accept queue;
/// `tcpi_data_segs_out` (156).
pub fn collect(cx: &mut Context<'_>, probe: &Probe, fd: BorrowedFd<'_>, ends: Ends) -> Result<TcpFacts> {
    let info = option(fd, libc::SOL_TCP, libc::TCP_INFO)?;
    let word = |at: usize| info.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    let mut facts = TcpFacts {
        state: info.first().copied().unwrap_or(state::CLOSE),
        waiting: word(24),
        backlog: word(28),
        over: sys::fd::poll_now(fd, libc::POLLRDHUP)? & libc::POLLRDHUP != 0,
        has_sent: word(156) != 0,
        ..TcpFacts::default()
    };
    if facts.state == state::LISTEN {
        return Ok(facts);
    }
    if facts.is_connection() {
        if let Some((local, remote)) = ends {
            let gone = if remote.ip().is_loopback() { OtherEnd::Nobody } else { OtherEnd::Elsewhere };
            facts.other = cx.tcp_end(probe, remote, local).unwrap_or(gone);
        }
        facts.stuck = settled(fd)?;
        // What arrived meanwhile may have been the other end's last.
        facts.over = sys::fd::poll_now(fd, libc::POLLRDHUP)? & libc::POLLRDHUP != 0;
    }
    let waits = sys::fd::readable_bytes(fd).unwrap_or(0);
    if waits > 0 {
        facts.queue =
            peek(fd, waits).context("looking at what was received")?.map_or(Vec::new(), |p| p.bytes);
        ensure!(
            facts.queue.len() == waits,
            "only {} of {waits} received bytes can be read",
            facts.queue.len()
        );
    }
    Ok(facts)
}

/// Waits until the other end has what was sent; what it has no room for.
fn settled(fd: BorrowedFd<'_>) -> Result<usize> {
    let until = Instant::now() + UNDER_WAY;
    loop {
        match sys::fd::unreceived_bytes(fd)? {
            0 => return Ok(0),
            n if Instant::now() >= until => return Ok(n),
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
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

fn hex(text: &str) -> Option<SocketAddr> {
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
