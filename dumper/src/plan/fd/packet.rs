//! Packet sockets.

use super::{Planner, inet, socket};
use crate::collect::fd::Description;
use crate::collect::fd::packet::PacketFacts;
use ckpt_format::fd::socket::{InetSocket, socket_state};
use ckpt_format::{NONE, Object, ObjectKind};

pub fn socket(p: &mut Planner<'_>, d: &Description, facts: &PacketFacts) -> Object {
    if let Some(problem) = facts.problem {
        let what = format!("{}: a packet socket: {problem}", p.name(d));
        p.refuse(d, what, "close it before the dump");
    }
    if facts.waits {
        let text = format!("{}: packets that wait in a packet socket", p.name(d));
        p.loss("socket-data", d, text);
    }
    let mut record = InetSocket {
        family: libc::AF_PACKET as u32,
        kind: facts.kind as u32,
        // The protocol is part of the name: without it, nothing comes in before all is set.
        protocol: 0,
        state: socket_state::UNCONNECTED,
        peer: NONE,
        options: socket::options(p, d, &facts.options, false),
        ..InetSocket::default()
    };
    // `struct sockaddr_ll`: family, protocol, interface. The rest describes that interface.
    let bound = facts.local.get(2..8).is_some_and(|b| b.iter().any(|b| *b != 0));
    if bound {
        let mut name = [0; 20];
        name[..8].copy_from_slice(&facts.local[..8]);
        record.local_len = inet::fill(&mut record.local, &name);
    }
    let payload = p.b.payload(&record);
    Object { kind: ObjectKind::PacketSocket as u32, payload, inner: NONE, ..Object::default() }
}
