//! Descriptor tables and objects. One file per kind.
//!
//! Object `base + i` is the open file description `i` of the facts; objects that no description
//! stands for (the buffer of a pipe, the terminal behind an inherited descriptor) follow them.

mod datagram;
mod event;
mod fanotify;
mod inet;
mod inotify;
mod mqueue;
mod netlink;
mod packet;
mod pidfd;
mod pipe;
mod pty;
mod regular;
mod repair;
mod socket;
#[cfg(test)]
mod tests;
mod tty;
mod unix;
mod unix_pairs;
mod unknown;

use super::Builder;
use crate::collect::fd::{Description, Detail, FdFacts, LockFacts};
use crate::collect::{Facts, TaskFacts, ZombieFacts};
use crate::error::Descriptor;
use ckpt_format::fd::regular::Inherited;
use ckpt_format::fd::{lock_kind, object_flags};
use ckpt_format::*;
use std::collections::HashMap;
use std::net::SocketAddr;
use zerocopy::IntoBytes;

/// Descriptors 0 to 2: those that the caller provides.
const STDIO: std::ops::RangeInclusive<i32> = 0..=2;

/// Adds all descriptor tables and the objects behind them; returns the index of each in the fd tables.
pub fn plan(builder: &mut Builder, facts: &Facts) -> Vec<u32> {
    let fds = &facts.fds;
    let base = builder.tables.objects.len() as u32;
    let mut held = vec![Vec::new(); fds.descriptions.len()];
    for (table, t) in fds.tables.iter().enumerate() {
        for f in &t.fds {
            held[f.description].push((table, f.fd));
        }
    }
    let blank = Object { inner: NONE, ..Object::default() };
    builder.tables.objects.resize(base as usize + fds.descriptions.len(), blank);
    let mut p = Planner {
        b: builder,
        tasks: &facts.tasks,
        zombies: &facts.zombies,
        fds,
        base,
        held,
        stdio: HashMap::new(),
        claims: [None; 3],
        pipes: pipe::by_inode(fds),
        unix: unix::by_inode(fds),
        queues: HashMap::new(),
        ptys: HashMap::new(),
        tcp: inet::by_ends(fds),
    };
    for index in 0..fds.descriptions.len() {
        p.description(index);
    }
    p.posix_locks();
    p.entries()
}

/// The work on all tables.
struct Planner<'a> {
    b: &'a mut Builder,
    tasks: &'a [TaskFacts],
    zombies: &'a [ZombieFacts],
    fds: &'a FdFacts,
    base: u32,
    /// Table and number of all that refer to each description, sorted.
    held: Vec<Vec<(usize, i32)>>,
    /// Object that a standard descriptor (description, number) refers to, where that is not its
    /// description's.
    stdio: HashMap<(usize, i32), u32>,
    /// Device and inode of what each of the caller's descriptors stands for: the first that needs it.
    claims: [Option<(u64, u64)>; 3],
    /// Ends of each pipe, by device and inode.
    pipes: HashMap<(u64, u64), Vec<usize>>,
    /// Unix sockets by inode.
    unix: HashMap<u64, usize>,
    /// Objects of message queues, by device and inode.
    queues: HashMap<(u64, u64), u32>,
    /// Object of each pseudo-terminal, by the description of its master.
    ptys: HashMap<usize, u32>,
    /// TCP connections by local and remote address.
    tcp: HashMap<(SocketAddr, SocketAddr), usize>,
}

impl<'a> Planner<'a> {
    fn description(&mut self, index: usize) {
        let d = &self.fds.descriptions[index];
        let object = match &d.detail {
            Detail::File(facts) => regular::file(self, index, d, facts),
            Detail::Memfd(facts) => Some(regular::memfd(self, d, facts)),
            Detail::MessageQueue(facts) => mqueue::open(self, d, facts),
            Detail::Pipe(_) => pipe::end(self, index, d),
            Detail::Pidfd(facts) => pidfd::pidfd(self, d, facts),
            Detail::Inotify(facts) => Some(inotify::inotify(self, d, facts)),
            Detail::Fanotify(facts) => fanotify::fanotify(self, d, facts),
            Detail::EventFd(facts) => Some(event::eventfd(self, d, facts)),
            Detail::TimerFd(facts) => Some(event::timerfd(self, facts)),
            Detail::SignalFd(mask) => Some(event::signalfd(self, *mask)),
            Detail::Epoll(targets) => Some(event::epoll(self, d, targets)),
            Detail::Inet(facts) => inet::socket(self, index, d, facts),
            Detail::Unix(facts) => unix::socket(self, index, d, facts),
            Detail::Netlink(facts) => netlink::socket(self, d, facts),
            Detail::Packet(facts) => Some(packet::socket(self, d, facts)),
            Detail::Tty(facts) => match facts.master {
                Some(master) => Some(pty::slave(self, d, facts, master)),
                None => tty::terminal(self, index, d, facts),
            },
            Detail::PtyMaster(facts) => Some(pty::master(self, index, d, facts)),
            Detail::Unknown(what) => unknown::refuse(self, d, what),
            Detail::Failed(why) => {
                let what = format!("{}: cannot be observed: {why}", self.name(d));
                self.refuse(d, what, "close it before the dump");
                None
            }
        };
        let Some(object) = object else { return };
        let (owner_type, owner) = self.owner(d);
        self.b.tables.objects[self.base as usize + index] =
            Object { open_flags: d.info.flags, owner_type, owner, signal: d.signal, ..object };
        self.locks(index, d);
    }

    /// A descriptor, for messages.
    fn name(&self, d: &Description) -> String {
        match d.on_the_way_to {
            None => format!("fd {} ({})", d.fd, d.link_text()),
            Some((_, socket)) => format!("descriptor ({}) in a message for fd {socket}", d.link_text()),
        }
    }

    fn refuse(&mut self, d: &Description, what: impl Into<String>, remedy: impl Into<String>) {
        self.b.refuse(pid_of(d), what, remedy);
        self.name_holders(d);
    }

    /// In the obstacle that was added last: which descriptors it is about.
    fn name_holders(&mut self, d: &Description) {
        let index = self.fds.descriptions.iter().position(|e| (e.pid, e.fd) == (d.pid, d.fd));
        let Some(obstacle) = self.b.obstacles.last_mut() else { return };
        let pid = |table: usize| {
            let task = self.fds.tables.get(table).and_then(|t| t.tasks.first());
            task.and_then(|t| self.tasks.get(*t)).map_or(0, |t| t.pid)
        };
        let held = index.and_then(|i| self.held.get(i)).into_iter().flatten();
        let all = held.map(|(table, fd)| Descriptor { pid: pid(*table), fd: *fd });
        obstacle.also = all.filter(|o| (o.pid, o.fd) != (d.pid, d.fd)).collect();
        obstacle.fd = Some(d.on_the_way_to.map_or(d.fd, |(_, socket)| socket));
    }

    /// See [`Builder::loss`].
    fn loss(&mut self, kind: &'static str, d: &Description, text: impl Into<String>) {
        let before = self.b.obstacles.len();
        self.b.loss(kind, pid_of(d), text);
        if self.b.obstacles.len() > before {
            self.name_holders(d);
        }
    }

    /// See [`Builder::note`].
    fn note(&mut self, kind: &str, d: &Description, text: &str) {
        self.b.note(kind, pid_of(d), text);
    }

    /// Index of the object that stands for a description.
    fn object_of(&self, description: usize) -> u32 {
        self.base + description as u32
    }

    /// Adds an object that no description stands for.
    fn add(&mut self, object: Object) -> u32 {
        self.b.tables.objects.push(object);
        (self.b.tables.objects.len() - 1) as u32
    }

    /// Standard descriptors among the numbers of a description, of any process, but for those that
    /// stand for something else: the root's, or those of an earlier process.
    fn stdio_of(&self, index: usize) -> Vec<i32> {
        let free = |fd: i32| self.claims[fd as usize].is_none_or(|c| c == self.inode(index));
        let is_held = |fd: &i32| self.held[index].iter().any(|(_, n)| n == fd);
        STDIO.filter(|fd| is_held(fd) && free(*fd)).collect()
    }

    /// Whether the root has it as a standard descriptor.
    fn is_roots_stdio(&self, index: usize) -> bool {
        self.held[index].iter().any(|(table, fd)| *table == 0 && STDIO.contains(fd))
    }

    fn inode(&self, index: usize) -> (u64, u64) {
        let stat = &self.fds.descriptions[index].stat;
        (stat.dev, stat.ino)
    }

    /// The description comes from the caller: each standard descriptor from the one of the same
    /// number, further ones share the lowest. `inner` is the terminal behind it, or NONE.
    fn inherit(&mut self, numbers: &[i32], index: usize, inner: u32) -> Object {
        let d = &self.fds.descriptions[index];
        let was = self.b.blob(&d.link);
        let objects: Vec<Object> = numbers
            .iter()
            .map(|fd| Object {
                kind: ObjectKind::Inherited as u32,
                flags: object_flags::INHERITED,
                open_flags: d.info.flags,
                payload: self.b.payload(&Inherited { from_fd: *fd, reserved: 0, was }),
                inner,
                ..Object::default()
            })
            .collect();
        for (fd, object) in numbers.iter().zip(&objects).skip(1) {
            let added = self.add(*object);
            self.stdio.insert((index, *fd), added);
        }
        for fd in numbers {
            self.claims[*fd as usize].get_or_insert((d.stat.dev, d.stat.ino));
        }
        objects[0]
    }

    /// F_SETOWN target, which must be inside the image; as the program knows it.
    fn owner(&mut self, d: &Description) -> (i32, i32) {
        let (kind, id) = d.owner;
        if id == 0 {
            return (kind, 0);
        }
        let mut tasks = self.tasks.iter();
        let own = match kind {
            // F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP.
            0 => tasks.flat_map(|t| &t.threads).find(|t| t.tid == id).map(|t| t.own_tid),
            1 => tasks.find(|t| t.pid == id).map(|t| t.process.own_pid),
            _ => tasks.find(|t| t.process.seen_pgid == id).map(|t| t.process.pgid),
        };
        if let Some(own) = own {
            return (kind, own);
        }
        let what = format!("{}: its signals (F_SETOWN) go to {id}, outside the image", self.name(d));
        self.refuse(d, what, "set another owner before the dump");
        (0, 0)
    }

    /// A process or thread of the image, by the id that we see, as the program knows it.
    fn own_id(&self, seen: i32) -> Option<i32> {
        let mut threads = self.tasks.iter().flat_map(|t| &t.threads);
        let living = threads.find(|t| t.tid == seen).map(|t| t.own_tid);
        living.or_else(|| self.zombies.iter().find(|z| z.pid == seen).map(|z| z.own_pid))
    }

    /// Locks that belong to the description; [`Self::posix_locks`] adds the others.
    fn locks(&mut self, index: usize, d: &Description) {
        let Some((table, _)) = self.held[index].first().copied() else {
            if !d.info.locks.is_empty() {
                let what = format!("{}: a file lock that no process can take again", self.name(d));
                self.refuse(d, what, "let the program receive it before the dump");
            }
            return;
        };
        for lock in &d.info.locks {
            let kind = match lock.kind.as_str() {
                "FLOCK" => lock_kind::FLOCK,
                "OFDLCK" => lock_kind::OFD,
                "LEASE" if !lock.breaking => lock_kind::LEASE,
                "LEASE" => {
                    let what =
                        format!("{}: a file lease that another process waits to be given back", self.name(d));
                    self.refuse(d, what, "release it before the dump");
                    continue;
                }
                "POSIX" => continue,
                other => {
                    let what = format!("{}: a file lease or lock of kind {other}", self.name(d));
                    self.refuse(d, what, "release it before the dump");
                    continue;
                }
            };
            self.lock(kind, lock, index, table);
        }
    }

    /// They belong to the processes of a table.
    fn posix_locks(&mut self) {
        for (table, t) in self.fds.tables.iter().enumerate() {
            for (description, lock) in &t.posix_locks {
                self.lock(lock_kind::POSIX, lock, *description, table);
            }
        }
    }

    /// A lock that is taken by the first process of a table.
    fn lock(&mut self, kind: u32, lock: &LockFacts, description: usize, table: usize) {
        let record = Lock {
            kind,
            mode: if lock.write { libc::F_WRLCK } else { libc::F_RDLCK } as u32,
            start: lock.start,
            len: lock.last.map_or(0, |last| last - lock.start + 1),
            object: self.object_of(description),
            pid: self.first_task(table).map_or(0, |t| t.process.own_pid),
            reserved: 0,
        };
        self.b.tables.locks.push(record);
    }

    /// The first process that has a table.
    fn first_task(&self, table: usize) -> Option<&'a TaskFacts> {
        let index = self.fds.tables.get(table)?.tasks.first()?;
        self.tasks.get(*index)
    }

    /// The tables themselves.
    fn entries(self) -> Vec<u32> {
        let mut indices = Vec::with_capacity(self.fds.tables.len());
        for table in &self.fds.tables {
            let first = self.b.tables.fds.len() as u32;
            for f in &table.fds {
                let own = self.object_of(f.description);
                self.b.tables.fds.push(FdEntry {
                    fd: f.fd,
                    object: self.stdio.get(&(f.description, f.fd)).copied().unwrap_or(own),
                    cloexec: u32::from(f.cloexec),
                    reserved: 0,
                });
            }
            indices.push(self.b.tables.fd_tables.len() as u32);
            let fds = Range { first, count: table.fds.len() as u32 };
            self.b.tables.fd_tables.push(FdTable { fds });
        }
        indices
    }
}

/// The process that a message about a description names.
fn pid_of(d: &Description) -> i32 {
    d.on_the_way_to.map_or(d.pid, |(pid, _)| pid)
}

/// A message, with the objects that it carries and the one that sent it.
struct Sent<'a> {
    bytes: &'a [u8],
    objects: Vec<u32>,
    from: u32,
}

impl<'a> Sent<'a> {
    fn plain(bytes: &'a [u8]) -> Self {
        Self { bytes, objects: Vec::new(), from: NONE }
    }
}

/// Messages as [`Object::queue`] holds them.
fn queue<'a>(b: &mut Builder, messages: impl Iterator<Item = Sent<'a>>) -> Span {
    let mut bytes = Vec::new();
    for m in messages {
        let (len, fds) = (m.bytes.len() as u32, m.objects.len() as u32);
        bytes.extend_from_slice(fd::Message { len, fds, from: m.from, reserved: 0 }.as_bytes());
        for part in [m.objects.as_bytes(), m.bytes] {
            bytes.extend_from_slice(part);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
    }
    b.blob(&bytes)
}
