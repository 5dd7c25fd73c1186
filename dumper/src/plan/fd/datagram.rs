//! UDP, UDP-Lite, raw and ICMP sockets.

use super::{Planner, Sent, inet, queue};
use crate::collect::fd::Description;
use crate::collect::fd::datagram::{self, DatagramFacts};
use crate::collect::fd::inet::InetFacts;
use crate::collect::fd::socket::OptionFacts;
use ckpt_format::fd::socket::{self, InetSocket, socket_state};
use ckpt_format::{NONE, Object, ObjectKind, Span};
use std::net::IpAddr;
use zerocopy::IntoBytes;

pub fn socket(p: &mut Planner<'_>, d: &Description, facts: &InetFacts, own: &DatagramFacts) -> Object {
    let queue = waiting(p, d, own);
    if facts.options.iter().any(counts) {
        let text = format!(
            "fd {}: the number of what it has sent (SOF_TIMESTAMPING_OPT_ID, SO_ZEROCOPY), which begins at 0",
            d.fd
        );
        p.note("socket-counter", d, &text);
    }
    let connected = facts.remote.is_some();
    let mut record = InetSocket {
        family: facts.family as u32,
        kind: facts.kind as u32,
        protocol: facts.protocol as u32,
        state: if connected { socket_state::CONNECTED } else { socket_state::UNCONNECTED },
        peer: NONE,
        shutdown: own.shutdown,
        options: super::socket::options(p, d, &facts.options, facts.kind == libc::SOCK_RAW),
        ..InetSocket::default()
    };
    // Neither address nor port: never bound.
    if facts.local.get(2..).is_some_and(|b| b.iter().any(|b| *b != 0)) {
        record.local_len = inet::fill(&mut record.local, &facts.local);
    }
    if let Some(remote) = &facts.remote {
        record.remote_len = inet::fill(&mut record.remote, remote);
    }
    let payload = p.b.payload(&record);
    Object { kind: ObjectKind::InetSocket as u32, payload, queue, inner: NONE, ..Object::default() }
}

/// Whether the kernel numbers what is sent.
fn counts(o: &OptionFacts) -> bool {
    const SO_ZEROCOPY: i32 = 60;
    const OPT_ID: i32 = 1 << 7;
    let value = o.value.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
    match (o.level, o.name) {
        (libc::SOL_SOCKET, SO_ZEROCOPY) => value != 0,
        // SO_TIMESTAMPING, old and new.
        (libc::SOL_SOCKET, 37 | 65) => value & OPT_ID != 0,
        _ => false,
    }
}

/// The queue, as the image holds it.
fn waiting(p: &mut Planner<'_>, d: &Description, facts: &DatagramFacts) -> Span {
    for what in &facts.unseen {
        let text = format!("{}: {what}", p.name(d));
        p.loss("socket-data", d, text);
    }
    let inexact: Vec<_> = facts.queue.iter().filter_map(|d| d.inexact).collect();
    if let Some(what) = inexact.first() {
        let text = format!(
            "{}: {} of {} datagrams that wait in it cannot be restored with {what}",
            p.name(d),
            inexact.len(),
            facts.queue.len()
        );
        p.loss("socket-data", d, text);
    }
    if facts.queue.is_empty() {
        return Span::default();
    }
    let all: Vec<Vec<u8>> = facts.queue.iter().map(record).collect();
    queue(p.b, all.iter().map(|bytes| Sent::plain(bytes)))
}

/// A datagram as its record and bytes.
fn record(d: &datagram::Datagram) -> Vec<u8> {
    let mut r = socket::Datagram {
        ttl: d.ttl.map_or(0, u32::from),
        tos: d.tos.map_or(0, u32::from),
        by_loopback: u32::from(d.by_loopback),
        ..socket::Datagram::default()
    };
    r.from_len = inet::fill(&mut r.from, &d.from);
    if let Some(to) = d.to {
        r.to_len = match to {
            IpAddr::V4(ip) => inet::fill(&mut r.to, &ip.octets()),
            IpAddr::V6(ip) => inet::fill(&mut r.to, &ip.octets()),
        };
    }
    [r.as_bytes(), &d.bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    #[test]
    fn record_and_bytes() {
        let d = datagram::Datagram {
            bytes: b"abc".to_vec(),
            from: vec![2, 0, 0, 53, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            to: Some("10.0.0.1".parse().unwrap()),
            ttl: Some(9),
            ..datagram::Datagram::default()
        };
        let bytes = record(&d);
        let (r, rest) = socket::Datagram::read_from_prefix(&bytes).unwrap();
        assert_eq!((r.from_len, r.to_len, r.ttl, rest), (16, 4, 9, &b"abc"[..]));
        assert_eq!(r.to[..4], [10, 0, 0, 1]);
    }
}
