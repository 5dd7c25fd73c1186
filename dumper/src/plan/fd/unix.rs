//! Unix sockets.

use super::{Planner, Sent, queue, socket, unix_pairs};
use crate::collect::fd::outside::in_words;
use crate::collect::fd::regular::NameState;
use crate::collect::fd::unix::{Peer, UnixFacts, name_text};
use crate::collect::fd::{Description, Detail, FdFacts};
use ckpt_format::fd::socket::{UnixSocket, socket_state, unix_flags};
use ckpt_format::{NONE, Object, ObjectKind, Span};
use std::collections::HashMap;

/// What becomes of the connection of a socket.
enum Link {
    None,
    Listening,
    /// To the description of that index.
    Inside(usize),
    /// To the listening description of that index, as the n-th that waits there.
    Waiting(usize, u32),
    /// A datagram socket, to a name.
    Named,
    Broken,
}

/// The description of each socket.
pub fn by_inode(fds: &FdFacts) -> HashMap<u64, usize> {
    fds.descriptions
        .iter()
        .enumerate()
        .filter_map(|(i, d)| if let Detail::Unix(u) = &d.detail { Some((u.ino, i)) } else { None })
        .collect()
}

pub fn socket(p: &mut Planner<'_>, index: usize, d: &Description, facts: &UnixFacts) -> Option<Object> {
    let link = link(p, index, facts);
    let Some(link) = link else {
        let stdio = p.stdio_of(index);
        if !stdio.is_empty() {
            return Some(p.inherit(&stdio, index, NONE));
        }
        let named =
            if facts.remote.is_empty() { String::new() } else { format!(" by {}", name_text(&facts.remote)) };
        let other = if let Peer::Socket(_) = facts.peer { in_words(&facts.outside) } else { String::new() };
        let text = format!(
            "{}: a unix socket connected to another process{named}: {other}; \
             after restore the other end is closed",
            p.name(d)
        );
        p.loss("unix-outside", d, text);
        return Some(record(p, d, facts, &Link::Broken));
    };
    if let (Link::Waiting(..), 1..) = (&link, facts.unreceived) {
        let what = format!("{}: what it has sent waits in a connection not accepted yet, unseen", p.name(d));
        p.refuse(d, what, "let the program accept it before the dump");
    }
    if let Some(problem) = &facts.queue_problem {
        let what = format!("{}: {problem} waits to be received", p.name(d));
        p.refuse(d, what, "let the program receive it before the dump");
    }
    let strangers = facts.waiting.iter().filter(|ino| at(p, **ino).is_none()).count();
    if strangers > 0 {
        let text = format!(
            "{} (unix, listening on {}): {strangers} connection(s) from outside, not accepted yet",
            p.name(d),
            name_text(&facts.name),
        );
        p.loss("unix-outside", d, text);
    }
    Some(record(p, d, facts, &link))
}

/// `None`: connected to the outside.
fn link(p: &Planner<'_>, index: usize, facts: &UnixFacts) -> Option<Link> {
    if facts.listening {
        return Some(Link::Listening);
    }
    let dgram = facts.kind == libc::SOCK_DGRAM;
    match facts.peer {
        Peer::None => Some(Link::None),
        Peer::Gone => Some(Link::Broken),
        Peer::Waiting(listener) => {
            let (listener, facts_there) = at(p, listener)?;
            let order = facts_there.waiting.iter().position(|ino| *ino == facts.ino)?;
            Some(Link::Waiting(listener, order as u32))
        }
        Peer::Socket(ino) => match at(p, ino) {
            Some((other, u)) if !dgram || u.peer == Peer::Socket(facts.ino) => {
                Some(if other == index { Link::Named } else { Link::Inside(other) })
            }
            _ if dgram && !facts.remote.is_empty() => Some(Link::Named),
            _ => None,
        },
        Peer::Unknown if dgram && !facts.remote.is_empty() => Some(Link::Named),
        Peer::Unknown => unix_pairs::other_end(&p.unix, facts, |i| unix_at(p, i))
            .map(Link::Inside)
            .or((!dgram && facts.shutdown == 3).then_some(Link::Broken)),
    }
}

fn at<'a>(p: &Planner<'a>, ino: u64) -> Option<(usize, &'a UnixFacts)> {
    let index = *p.unix.get(&ino)?;
    unix_at(p, index).map(|u| (index, u))
}

fn unix_at<'a>(p: &Planner<'a>, index: usize) -> Option<&'a UnixFacts> {
    if let Detail::Unix(u) = &p.fds.descriptions[index].detail { Some(u) } else { None }
}

fn find<'a>(p: &Planner<'a>, test: impl Fn(&UnixFacts) -> bool) -> Option<(usize, &'a UnixFacts)> {
    p.fds.descriptions.iter().enumerate().find_map(|(i, d)| match &d.detail {
        Detail::Unix(u) if test(u) => Some((i, u)),
        _ => None,
    })
}

fn record(p: &mut Planner<'_>, d: &Description, facts: &UnixFacts, link: &Link) -> Object {
    let state = match link {
        Link::None => socket_state::UNCONNECTED,
        Link::Listening => socket_state::LISTENING,
        Link::Inside(_) | Link::Named => socket_state::CONNECTED,
        Link::Broken => socket_state::BROKEN,
        Link::Waiting(..) => socket_state::WAITING,
    };
    // What connects two processes is made by the first one of all.
    let maker = p.tasks.first().map_or(0, |root| root.pid);
    if matches!(link, Link::Inside(_)) && ![0, maker].contains(&facts.peer_pid) {
        let text = format!(
            "fd {}: that SO_PEERCRED names process {}, and not the first of the tree",
            d.fd, facts.peer_pid
        );
        p.note("peer-credentials", d, &text);
    }
    let mut shutdown = u32::from(facts.shutdown);
    if facts.peer == Peer::Unknown
        && let Link::Inside(other) = link
        && let Detail::Unix(mate) = &p.fds.descriptions[*other].detail
    {
        // What the one cannot read any more, the other has stopped to write.
        shutdown |= (u32::from(mate.shutdown) & 1) << 1;
    }
    let mut r = UnixSocket {
        kind: facts.kind as u32,
        state,
        peer: match link {
            Link::Inside(other) | Link::Waiting(other, _) => p.object_of(*other),
            _ => NONE,
        },
        order: if let Link::Waiting(_, order) = link { *order } else { 0 },
        // Where the kernel does not tell, the largest that it allows by default (somaxconn).
        backlog: if facts.backlog == 0 && matches!(link, Link::Listening) { 4096 } else { facts.backlog },
        options: socket::options(p, d, &facts.options, false),
        ino: facts.ino,
        shutdown,
        ..UnixSocket::default()
    };
    if keeps_name(p, facts, link) {
        bind(p, d, facts, &mut r);
    }
    if matches!(link, Link::Named) {
        r.remote = p.b.blob(&facts.remote);
    }
    let payload = p.b.payload(&r);
    let queue = messages(p, d, facts);
    Object { kind: ObjectKind::UnixSocket as u32, payload, queue, inner: NONE, ..Object::default() }
}

/// What waits to be read.
fn messages(p: &mut Planner<'_>, d: &Description, facts: &UnixFacts) -> Span {
    let mut sent = Vec::with_capacity(facts.queue.len());
    for m in &facts.queue {
        let sender = find(p, |u| u.name == m.from && u.kind == libc::SOCK_DGRAM).map(|(i, _)| i);
        if sender.is_none() && !m.from.is_empty() {
            let what = format!(
                "{}: a datagram from {}, outside, waits to be received",
                p.name(d),
                name_text(&m.from)
            );
            p.refuse(d, what, "let the program receive it before the dump");
        }
        let from = sender.filter(|_| !m.from.is_empty()).map_or(NONE, |i| p.object_of(i));
        let objects = m.fds.iter().map(|i| p.object_of(*i)).collect();
        sent.push(Sent { bytes: &m.bytes, objects, from });
    }
    queue(p.b, sent.into_iter())
}

/// A socket that accept(2) returned shows the name of its listener, which only a connection made
/// through that listener can have again.
fn keeps_name(p: &Planner<'_>, facts: &UnixFacts, link: &Link) -> bool {
    let connected = matches!(link, Link::Inside(_) | Link::Broken) && facts.kind != libc::SOCK_DGRAM;
    if facts.name.is_empty() || !connected {
        return true;
    }
    let listener = find(p, |u| u.listening && u.name == facts.name && u.kind == facts.kind);
    match link {
        Link::Inside(_) => listener.is_some(),
        _ => false,
    }
}

fn bind(p: &mut Planner<'_>, d: &Description, facts: &UnixFacts, r: &mut UnixSocket) {
    r.name = p.b.blob(&facts.name);
    let Some(file) = &facts.file else { return };
    r.dir = p.b.blob(&file.dir);
    (r.mode, r.uid, r.gid) = (file.mode, file.uid, file.gid);
    match file.state {
        NameState::Present | NameState::Hidden => {}
        NameState::Replaced => {
            // A listener's connections show its name, too; they need no file.
            if !matches!(facts.peer, Peer::Socket(_)) {
                let what =
                    format!("{}: another socket has taken its path {}", p.name(d), name_text(&facts.name));
                p.refuse(d, what, "end the program that took it, before the dump");
            }
        }
        NameState::Deleted | NameState::NameLost => r.flags |= unix_flags::UNLINKED,
    }
}
