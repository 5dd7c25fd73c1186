//! Sockets of IP: TCP, UDP, raw.

use super::{Planner, Sent, datagram, queue, repair, socket};
use crate::collect::fd::inet::InetFacts;
use crate::collect::fd::tcp::{self, OtherEnd, TcpFacts, state};
use crate::collect::fd::{Description, Detail, FdFacts};
use ckpt_format::fd::socket::{InetSocket, socket_state};
use ckpt_format::{NONE, Object, ObjectKind, Span};
use std::collections::HashMap;
use std::net::SocketAddr;

const IPPROTO_MPTCP: i32 = 262;

/// The connections, by local and remote address.
pub fn by_ends(fds: &FdFacts) -> HashMap<(SocketAddr, SocketAddr), usize> {
    fds.descriptions
        .iter()
        .enumerate()
        .filter_map(|(i, d)| {
            let Detail::Inet(facts) = &d.detail else { return None };
            facts.tcp.as_ref().filter(|tcp| tcp.is_connection())?;
            Some((ends(facts)?, i))
        })
        .collect()
}

fn ends(facts: &InetFacts) -> Option<(SocketAddr, SocketAddr)> {
    Some((tcp::address(&facts.local)?, tcp::address(facts.remote.as_ref()?)?))
}

pub fn socket(p: &mut Planner<'_>, index: usize, d: &Description, facts: &InetFacts) -> Option<Object> {
    if let Some(datagram) = &facts.datagram {
        return Some(datagram::socket(p, d, facts, datagram));
    }
    let mut repair = Span::default();
    let (state, peer) = match &facts.tcp {
        Some(tcp) => tcp_state(p, index, d, facts, tcp, &mut repair),
        None => (socket_state::UNCONNECTED, NONE),
    };
    let tcp = facts.tcp.clone().unwrap_or_default();
    let mut record = InetSocket {
        family: facts.family as u32,
        kind: facts.kind as u32,
        protocol: facts.protocol as u32,
        state,
        peer,
        shutdown: shutdown(p, facts, &tcp),
        backlog: tcp.backlog,
        options: socket::options(p, d, &facts.options, false),
        repair,
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
    // What was received, and what the other end could not send yet.
    let mut waits = tcp.queue;
    if let Some(Detail::Inet(other)) = peer_of(p, facts).map(|i| &p.fds.descriptions[i].detail) {
        waits.extend(other.tcp.iter().filter_map(|t| t.unsent.as_ref()).flatten());
    }
    let keeps = [socket_state::CONNECTED, socket_state::REPAIRED].contains(&state);
    let waits = Some(waits).filter(|w| !w.is_empty() && keeps);
    let queue = waits.map_or(Span::default(), |w| queue(p.b, std::iter::once(Sent::plain(&w))));
    Some(Object { kind: ObjectKind::InetSocket as u32, payload, queue, inner: NONE, ..Object::default() })
}

/// SHUT_RD = 1, SHUT_WR = 2 bits: what the program itself has shut down.
fn shutdown(p: &Planner<'_>, facts: &InetFacts, tcp: &TcpFacts) -> u32 {
    let ended_by_peer = || {
        let other = ends(facts).and_then(|(local, remote)| p.tcp.get(&(remote, local)));
        let other = other.map(|i| &p.fds.descriptions[*i].detail);
        matches!(other, Some(Detail::Inet(o)) if o.tcp.as_ref().is_some_and(TcpFacts::has_ended))
    };
    let reading = tcp.is_connection() && tcp.over && tcp.state != state::CLOSE_WAIT && !ended_by_peer();
    let writing = tcp.has_ended() || tcp.state == state::CLOSE && tcp.over;
    u32::from(reading) | u32::from(writing) << 1
}

/// State, and the object of the other end.
fn tcp_state(
    p: &mut Planner<'_>,
    index: usize,
    d: &Description,
    facts: &InetFacts,
    tcp: &TcpFacts,
    repaired: &mut Span,
) -> (u32, u32) {
    match tcp.state {
        state::LISTEN => {
            let inside = waiting_at(p, facts);
            if tcp.waiting > inside {
                let text = format!(
                    "fd {} ({}, listening on {}): {} connection(s) from outside, not accepted yet",
                    d.fd,
                    protocol(facts),
                    in_words(&facts.local),
                    tcp.waiting - inside
                );
                if p.b.allows("tcp-established") {
                    p.loss("tcp-established", d, text);
                } else {
                    p.refuse(d, text, "let the program accept them; `--tcp reset` dumps without them");
                }
            }
            return (socket_state::LISTENING, NONE);
        }
        // Over, but not yet read to the end.
        state::CLOSE if tcp.over && !tcp.queue.is_empty() => return (socket_state::CONNECTED, NONE),
        state::CLOSE if tcp.over => return (socket_state::CLOSED, NONE),
        state::CLOSE => return (socket_state::UNCONNECTED, NONE),
        _ => {}
    }
    if facts.protocol == IPPROTO_MPTCP {
        let (state, span) = repair::connection(p, d, facts, tcp);
        *repaired = span;
        return (state, NONE);
    }
    if tcp.stuck > 0 && tcp.unsent.is_none() && (peer_of(p, facts).is_some() || listener(p, facts).is_some())
    {
        let what = format!(
            "{}: {} bytes on their way to {}, which has no room for them, cannot be seen",
            p.name(d),
            tcp.stuck,
            facts.remote.as_deref().map_or_else(String::new, in_words)
        );
        p.refuse(d, what, "dump it as root (CAP_NET_ADMIN), or let the other end read before the dump");
    }
    if let Some(other) = peer_of(p, facts).filter(|other| *other != index) {
        return (socket_state::CONNECTED, p.object_of(other));
    }
    if let Some(listener) = listener(p, facts) {
        if tcp.has_sent {
            let text =
                format!("fd {}: what it has sent waits in a connection not accepted yet, unseen", d.fd);
            if p.b.allows("tcp-established") {
                p.loss("tcp-established", d, format!("{text}; after restore it is reset"));
                return (socket_state::BROKEN, NONE);
            }
            p.refuse(d, text, "let the program accept it before the dump, or give it up with `--tcp reset`");
        }
        return (socket_state::WAITING, p.object_of(listener));
    }
    if tcp.state == state::CLOSE_WAIT && tcp.other == OtherEnd::Nobody {
        return (socket_state::CONNECTED, NONE);
    }
    let (state, span) = repair::connection(p, d, facts, tcp);
    *repaired = span;
    (state, NONE)
}

/// In messages.
pub fn protocol(facts: &InetFacts) -> &'static str {
    if facts.protocol == IPPROTO_MPTCP { "MPTCP" } else { "TCP" }
}

/// The other end, when that is inside.
fn peer_of(p: &Planner<'_>, facts: &InetFacts) -> Option<usize> {
    let (local, remote) = ends(facts)?;
    p.tcp.get(&(remote, local)).copied()
}

/// The listening socket inside that has not accepted this connection yet.
fn listener(p: &Planner<'_>, facts: &InetFacts) -> Option<usize> {
    let tcp = facts.tcp.as_ref()?;
    let (_, remote) = ends(facts)?;
    if tcp.state != state::ESTABLISHED || tcp.other != OtherEnd::Nobody {
        return None;
    }
    p.fds.descriptions.iter().position(|d| {
        let Detail::Inet(l) = &d.detail else { return false };
        let here = l.tcp.as_ref().is_some_and(|t| t.state == state::LISTEN && t.waiting > 0);
        let reached = |at: SocketAddr| {
            at.port() == remote.port() && (at.ip().is_unspecified() || at.ip() == remote.ip())
        };
        here && tcp::address(&l.local).is_some_and(reached)
    })
}

/// How many of those that wait at a listening socket are inside.
fn waiting_at(p: &Planner<'_>, facts: &InetFacts) -> u32 {
    let waits = |d: &&Description| {
        let Detail::Inet(client) = &d.detail else { return false };
        let there = listener(p, client).map(|i| &p.fds.descriptions[i].detail);
        matches!(there, Some(Detail::Inet(l)) if l.local == facts.local)
    };
    p.fds.descriptions.iter().filter(waits).count() as u32
}

pub fn fill(to: &mut [u8; 32], from: &[u8]) -> u32 {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len as u32
}

/// Port of a `struct sockaddr_in` or `sockaddr_in6`.
fn port(addr: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*addr.get(2)?, *addr.get(3)?]))
}

/// An address for messages.
pub fn in_words(raw: &[u8]) -> String {
    tcp::address(raw).map_or_else(|| "an unknown address".to_owned(), |a| a.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn addresses_in_words() {
        let v4 = [2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(super::in_words(&v4), "127.0.0.1:8080");
        let mut v6 = [0; 28];
        (v6[0], v6[3], v6[23]) = (10, 80, 1);
        assert_eq!(super::in_words(&v6), "[::1]:80");
        assert_eq!(super::in_words(&[]), "an unknown address");
    }
}
