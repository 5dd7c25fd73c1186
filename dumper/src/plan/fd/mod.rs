//! Descriptor tables and objects. One file per kind.
//!
//! Object `base + i` is the open file description `i` of the facts; objects that no description
//! stands for (the buffer of a pipe, the terminal behind an inherited descriptor) follow them.

mod event;
mod inet;
mod pipe;
mod regular;
mod socket;
#[cfg(test)]
mod tests;
mod tty;
mod unix;
mod unknown;

use super::Builder;
use crate::collect::TaskFacts;
use crate::collect::fd::{Description, Detail, FdTableFacts};
use ckpt_format::fd::regular::Inherited;
use ckpt_format::fd::{lock_kind, object_flags};
use ckpt_format::*;
use std::collections::HashMap;

/// Descriptors 0 to 2: those that the caller provides.
const STDIO: std::ops::RangeInclusive<i32> = 0..=2;

/// Adds the task's descriptor table and the objects behind it; returns its index in the fd tables.
pub fn plan(builder: &mut Builder, task: &TaskFacts) -> u32 {
    let table = &task.fds;
    let base = builder.tables.objects.len() as u32;
    let mut fds_of = vec![Vec::new(); table.descriptions.len()];
    for f in &table.fds {
        fds_of[f.description].push(f.fd);
    }
    let blank = Object { inner: NONE, ..Object::default() };
    builder.tables.objects.resize(base as usize + table.descriptions.len(), blank);
    let mut p = Planner {
        b: builder,
        task,
        table,
        base,
        fds_of,
        stdio: HashMap::new(),
        pipes: pipe::by_inode(table),
        unix: unix::by_inode(table),
    };
    for index in 0..table.descriptions.len() {
        p.description(index);
    }
    p.entries()
}

/// The work on one table.
struct Planner<'a> {
    b: &'a mut Builder,
    task: &'a TaskFacts,
    table: &'a FdTableFacts,
    base: u32,
    /// Numbers that refer to each description, sorted.
    fds_of: Vec<Vec<i32>>,
    /// Object that a standard descriptor refers to, where that is not its description's.
    stdio: HashMap<i32, u32>,
    /// Ends of each pipe, by device and inode.
    pipes: HashMap<(u64, u64), Vec<usize>>,
    /// Unix sockets by inode.
    unix: HashMap<u64, usize>,
}

impl<'a> Planner<'a> {
    fn description(&mut self, index: usize) {
        let table = self.table;
        let d = &table.descriptions[index];
        let object = match &d.detail {
            Detail::File(facts) => regular::file(self, index, d, facts),
            Detail::Memfd(facts) => Some(regular::memfd(self, d, facts)),
            Detail::Pipe(_) => pipe::end(self, index, d),
            Detail::EventFd(facts) => Some(event::eventfd(self, d, facts)),
            Detail::TimerFd(facts) => Some(event::timerfd(self, facts)),
            Detail::SignalFd(mask) => Some(event::signalfd(self, *mask)),
            Detail::Epoll(targets) => Some(event::epoll(self, d, targets)),
            Detail::Inet(facts) => inet::socket(self, d, facts),
            Detail::Unix(facts) => unix::socket(self, index, d, facts),
            Detail::Tty(facts) => tty::terminal(self, index, d, facts),
            Detail::Unknown(what) => unknown::refuse(self, d, what),
            Detail::Failed(why) => {
                let what = format!("{}: cannot be observed: {why}", self.name(d));
                self.refuse(what, "close it before the dump");
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
        format!("fd {} ({})", d.fd, d.link_text())
    }

    fn refuse(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.b.refuse(self.task.pid, what, remedy);
    }

    /// See [`Builder::loss`].
    fn loss(&mut self, kind: &'static str, text: impl Into<String>) {
        self.b.loss(kind, self.task.pid, text);
    }

    /// See [`Builder::note`].
    fn note(&mut self, kind: &str, text: &str) {
        self.b.note(kind, self.task.pid, text);
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

    /// Standard descriptors among the numbers of a description.
    fn stdio_of(&self, index: usize) -> Vec<i32> {
        self.fds_of[index].iter().copied().filter(|fd| STDIO.contains(fd)).collect()
    }

    /// The description comes from the caller: each standard descriptor from the one of the same
    /// number, further ones share the lowest. `inner` is the terminal behind it, or NONE.
    fn inherit(&mut self, numbers: &[i32], d: &Description, inner: u32) -> Object {
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
            let index = self.add(*object);
            self.stdio.insert(*fd, index);
        }
        objects[0]
    }

    /// F_SETOWN target, which must be inside the image; as the program knows it.
    fn owner(&mut self, d: &Description) -> (i32, i32) {
        let (kind, id) = d.owner;
        let task = self.task;
        let own = match kind {
            // F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP.
            0 => task.threads.iter().find(|t| t.tid == id).map(|t| t.own_tid),
            1 => (id == task.pid).then_some(task.process.own_pid),
            _ => (id == task.process.seen_pgid).then_some(task.process.pgid),
        };
        if id == 0 {
            return (kind, 0);
        }
        if let Some(own) = own {
            return (kind, own);
        }
        let what = format!("{}: its signals (F_SETOWN) go to {id}, outside the image", self.name(d));
        self.refuse(what, "set another owner before the dump");
        (0, 0)
    }

    fn locks(&mut self, index: usize, d: &Description) {
        for lock in &d.info.locks {
            let kind = match lock.kind.as_str() {
                "FLOCK" => lock_kind::FLOCK,
                "POSIX" => lock_kind::POSIX,
                "OFDLCK" => lock_kind::OFD,
                other => {
                    let what = format!("{}: a file lease or lock of kind {other}", self.name(d));
                    self.refuse(what, "release it before the dump");
                    continue;
                }
            };
            let record = Lock {
                kind,
                mode: if lock.write { libc::F_WRLCK } else { libc::F_RDLCK } as u32,
                start: lock.start,
                len: lock.last.map_or(0, |last| last - lock.start + 1),
                object: self.object_of(index),
                pid: self.task.process.own_pid,
                reserved: 0,
            };
            self.b.tables.locks.push(record);
        }
    }

    /// The table itself.
    fn entries(self) -> u32 {
        let first = self.b.tables.fds.len() as u32;
        for f in &self.table.fds {
            let own = self.object_of(f.description);
            self.b.tables.fds.push(FdEntry {
                fd: f.fd,
                object: self.stdio.get(&f.fd).copied().unwrap_or(own),
                cloexec: u32::from(f.cloexec),
                reserved: 0,
            });
        }
        let fds = Range { first, count: self.table.fds.len() as u32 };
        self.b.tables.fd_tables.push(FdTable { fds });
        (self.b.tables.fd_tables.len() - 1) as u32
    }
}

/// Messages as [`Object::queue`] holds them.
fn queue(b: &mut Builder, messages: &[Vec<u8>]) -> Span {
    let mut bytes = Vec::new();
    for m in messages {
        bytes.extend_from_slice(&(m.len() as u64).to_le_bytes());
        bytes.extend_from_slice(m);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    b.blob(&bytes)
}
