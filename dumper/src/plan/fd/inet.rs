//! TCP and UDP sockets.

use super::{Planner, socket};
use crate::collect::fd::Description;
use crate::collect::fd::inet::{InetFacts, TcpFacts, tcp_state};
use ckpt_format::fd::socket::{InetSocket, socket_state};
use ckpt_format::{NONE, Object, ObjectKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

pub fn socket(p: &mut Planner<'_>, d: &Description, facts: &InetFacts) -> Option<Object> {
    if facts.has_filter {
        let what = format!("{}: the socket has a BPF filter (SO_ATTACH_FILTER)", p.name(d));
        p.refuse(d, what, "detach it before the dump");
    }
    if let Some(problem) = &facts.multicast_problem {
        let what = format!("{}: {problem}", p.name(d));
        p.refuse(d, what, "let the program leave the group before the dump");
    }
    if facts.queued {
        p.note("udp-queue", d, &format!("fd {}: datagrams that had arrived and were not read", d.fd));
    }
    let state = match &facts.tcp {
        Some(tcp) => tcp_state_of(p, d, facts, tcp),
        None if facts.remote.is_some() => socket_state::CONNECTED,
        None => socket_state::UNCONNECTED,
    };
    let mut record = InetSocket {
        family: facts.family as u32,
        kind: facts.kind as u32,
        protocol: facts.protocol as u32,
        state,
        backlog: facts.tcp.map_or(0, |t| t.backlog),
        options: socket::options(p, &facts.options),
        ..InetSocket::default()
    };
    let broken = [socket_state::BROKEN, socket_state::CLOSED].contains(&state);
    if port(&facts.local) != Some(0) && !broken {
        record.local_len = fill(&mut record.local, &facts.local);
    }
    if let Some(remote) = &facts.remote {
        record.remote_len = fill(&mut record.remote, remote);
    }
    let payload = p.b.payload(&record);
    Some(Object { kind: ObjectKind::InetSocket as u32, payload, inner: NONE, ..Object::default() })
}

fn tcp_state_of(p: &mut Planner<'_>, d: &Description, facts: &InetFacts, tcp: &TcpFacts) -> u32 {
    match tcp.state {
        tcp_state::LISTEN => {
            if tcp.waiting > 0 {
                let text = format!(
                    "fd {} (TCP, listening on {}): {} connection(s) not accepted yet",
                    d.fd,
                    address(&facts.local),
                    tcp.waiting
                );
                p.loss("tcp-established", d, text);
            }
            socket_state::LISTENING
        }
        tcp_state::CLOSE if tcp.over => socket_state::CLOSED,
        tcp_state::CLOSE => socket_state::UNCONNECTED,
        _ => {
            let remote = facts.remote.as_deref().map_or_else(|| "a peer".to_owned(), address);
            let text = format!(
                "fd {}: TCP connection from {} to {remote}; after restore it is reset",
                d.fd,
                address(&facts.local)
            );
            p.loss("tcp-established", d, text);
            socket_state::BROKEN
        }
    }
}

fn fill(to: &mut [u8; 32], from: &[u8]) -> u32 {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len as u32
}

/// Port of a `struct sockaddr_in` or `sockaddr_in6`.
fn port(addr: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*addr.get(2)?, *addr.get(3)?]))
}

/// An address for messages.
fn address(addr: &[u8]) -> String {
    let parse = || {
        let port = port(addr)?;
        match addr.len() {
            16 => Some(SocketAddr::from((Ipv4Addr::from(*addr[4..].first_chunk::<4>()?), port))),
            28 => Some(SocketAddr::from((Ipv6Addr::from(*addr[8..].first_chunk::<16>()?), port))),
            _ => None,
        }
    };
    parse().map_or_else(|| "an unknown address".to_owned(), |a| a.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn addresses_in_words() {
        let v4 = [2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(super::address(&v4), "127.0.0.1:8080");
        let mut v6 = [0; 28];
        (v6[0], v6[3], v6[23]) = (10, 80, 1);
        assert_eq!(super::address(&v6), "[::1]:80");
        assert_eq!(super::address(&[]), "an unknown address");
    }
}
