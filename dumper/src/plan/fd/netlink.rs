//! Netlink sockets.

use super::{Planner, inet, socket};
use crate::collect::fd::Description;
use crate::collect::fd::netlink::NetlinkFacts;
use ckpt_format::fd::socket::{InetSocket, socket_state};
use ckpt_format::{NONE, Object, ObjectKind};

/// Protocols (include/uapi/linux/netlink.h) whose sockets are no more than what their facts say.
const PROTOCOLS: &[(i32, &str)] = &[
    (0, "NETLINK_ROUTE"),
    (2, "NETLINK_USERSOCK"),
    (4, "NETLINK_SOCK_DIAG"),
    (6, "NETLINK_XFRM"),
    (7, "NETLINK_SELINUX"),
    (AUDIT, "NETLINK_AUDIT"),
    (11, "NETLINK_CONNECTOR"),
    (12, "NETLINK_NETFILTER"),
    (15, "NETLINK_KOBJECT_UEVENT"),
    (GENERIC, "NETLINK_GENERIC"),
    (21, "NETLINK_CRYPTO"),
];
const AUDIT: i32 = 9;
const GENERIC: i32 = 16;

pub fn socket(p: &mut Planner<'_>, d: &Description, facts: &NetlinkFacts) -> Option<Object> {
    let known = PROTOCOLS.iter().find(|(number, _)| *number == facts.protocol);
    let Some((_, name)) = known else {
        let what = format!(
            "{}: a netlink socket of protocol {}, of which nothing is known here",
            p.name(d),
            facts.protocol
        );
        p.refuse(d, what, "close it before the dump");
        return None;
    };
    if let Some(role) = problem(facts) {
        let what = format!("{}: a netlink socket ({name}): {role}", p.name(d));
        p.refuse(d, what, "close it before the dump");
    }
    if facts.waits {
        let text = format!("{}: messages that wait in a netlink socket ({name})", p.name(d));
        p.loss("socket-data", d, text);
    }
    let mut record = InetSocket {
        family: libc::AF_NETLINK as u32,
        kind: facts.kind as u32,
        protocol: facts.protocol as u32,
        state: socket_state::UNCONNECTED,
        peer: NONE,
        options: socket::options(p, d, &facts.options, false),
        ..InetSocket::default()
    };
    if facts.port != 0 {
        // `struct sockaddr_nl`; groups are joined one by one.
        let mut name = [0; 12];
        name[..2].copy_from_slice(&(libc::AF_NETLINK as u16).to_ne_bytes());
        name[4..8].copy_from_slice(&facts.port.to_ne_bytes());
        record.local_len = inet::fill(&mut record.local, &name);
    }
    if let Some(remote) = &facts.remote {
        record.remote_len = inet::fill(&mut record.remote, remote);
    }
    let payload = p.b.payload(&record);
    Some(Object { kind: ObjectKind::NetlinkSocket as u32, payload, inner: NONE, ..Object::default() })
}

fn problem(facts: &NetlinkFacts) -> Option<&'static str> {
    match facts.protocol {
        // Numbers are given out at each boot.
        GENERIC if !facts.groups.is_empty() => {
            Some("the groups that it has joined have other numbers after the next boot")
        }
        AUDIT if facts.groups.is_empty() && facts.port != 0 => {
            Some("the kernel may know it as the audit daemon's")
        }
        _ => facts.role,
    }
}
