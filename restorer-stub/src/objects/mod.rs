//! Descriptors. One file per kind of object; `make` makes every object of the image, once for all
//! processes, `place` gives each process its numbers, and what only it can do.

mod datagram;
mod epoll;
mod event;
mod fanotify;
mod fin;
mod held;
mod inet;
mod inherited;
mod inotify;
mod locks;
mod make;
pub mod mqueue;
mod netlink;
mod pidfd;
mod pipe;
mod place;
pub mod ports;
mod pty;
mod regular;
pub mod repair;
mod socket;
mod tcp;
mod tty;
mod unix;

use crate::ctx::Ctx;
use crate::mem::work::Work;
use crate::report::{Error, On, Result};
use crate::sys::{Fd, fd};
use ckpt_format::fd::Message;
use ckpt_format::{FdEntry, Image, Object, Task};
use core::sync::atomic::{AtomicI32, Ordering};
pub use inet::shown as inet_address;
use linux_raw_sys::general::*;
pub use make::create_all;
pub use place::{finish, place};
pub use pty::{bring_to_foreground, take_controlling};
pub use unix::remove_made;
use zerocopy::FromBytes;

/// What is known of each object while there are several processes; by index. Every process has its
/// own copy.
pub struct Table {
    /// Descriptor that the object was made as, + 1; 0 for none.
    made: &'static [AtomicI32],
    /// Lowest number, + 1, in the first table that has it; 0 where no descriptor refers to it.
    number: &'static [AtomicI32],
    /// Saved id of the first process that has it; [`IN_A_MESSAGE`] for what is only in a queue.
    holder: &'static [AtomicI32],
    /// Socket by which its first process sends it to the others, + 1; 0 for none. What they receive it by
    /// is in `made`.
    sender: &'static [AtomicI32],
}

const IN_A_MESSAGE: i32 = -1;

impl Table {
    pub fn new(work: &Work, count: usize) -> Result<Self> {
        Ok(Self {
            made: work.slice(count)?,
            number: work.slice(count)?,
            holder: work.slice(count)?,
            sender: work.slice(count)?,
        })
    }

    fn load(of: &[AtomicI32], index: u32) -> i32 {
        of.get(index as usize).map_or(0, |n| n.load(Ordering::Relaxed))
    }

    fn store(of: &[AtomicI32], index: u32, value: i32) -> Result<()> {
        let slot = of.get(index as usize);
        slot.ok_or(Error::new("the image is damaged: a descriptor without object"))?
            .store(value, Ordering::Relaxed);
        Ok(())
    }

    fn made(&self, object: u32) -> Option<Fd> {
        Self::load(self.made, object).checked_sub(1).filter(|n| *n >= 0).map(Fd)
    }

    fn sender(&self, object: u32) -> Option<Fd> {
        Self::load(self.sender, object).checked_sub(1).filter(|n| *n >= 0).map(Fd)
    }

    /// Lowest number in the first table that has it.
    fn number(&self, object: u32) -> Option<i32> {
        Self::load(self.number, object).checked_sub(1).filter(|n| *n >= 0)
    }

    fn is_wanted(&self, object: u32) -> bool {
        Self::load(self.holder, object) != 0
    }

    /// Whether `task` is the first process that has it: what is to be done once is done there.
    fn is_first(&self, object: u32, task: &Task) -> bool {
        Self::load(self.holder, object) == task.pid
    }

    /// An object with the path of its file.
    fn on_path(&self, ctx: &Ctx, object: u32, path: &'static [u8]) -> On {
        let number = self.number(object).unwrap_or(-1);
        match ctx.image.tasks.len() {
            1 => On::FdPath(number, path),
            _ => On::FdPathOf(number, path, Self::load(self.holder, object)),
        }
    }

    /// An object in words: its descriptor, and of which process.
    fn on(&self, ctx: &Ctx, object: u32) -> On {
        let Some(number) = self.number(object) else { return On::Bytes(b" (a descriptor in a message)") };
        match ctx.image.tasks.len() {
            1 => On::Fd(number),
            _ => On::FdOf(number, Self::load(self.holder, object)),
        }
    }
}

/// The descriptors of a table.
fn entries(ctx: &Ctx, task: &Task) -> Result<&'static [FdEntry]> {
    let table = Image::get(ctx.image.fd_tables, task.fd_table, "descriptor table")?;
    Ok(Image::slice(ctx.image.fds, table.fds, "descriptors")?)
}

/// Processes with descriptors: the first one of each table.
fn first_tasks(ctx: &Ctx) -> impl Iterator<Item = &'static Task> {
    let tasks = ctx.image.tasks;
    tasks.iter().enumerate().filter_map(move |(i, task)| {
        let known = tasks[..i].iter().any(|t| t.fd_table == task.fd_table);
        (task.fd_table != ckpt_format::NONE && !known).then_some(task)
    })
}

/// Whether a process is the first one of its table.
fn is_first_of_table(ctx: &Ctx, task: &Task) -> bool {
    ctx.image.tasks.iter().find(|t| t.fd_table == task.fd_table).is_some_and(|t| t.pid == task.pid)
}

/// Path that the caller gave (`--fd`, with a number of the root's) for an object.
fn given(ctx: &Ctx, object: u32) -> Option<&'static [u8]> {
    if ctx.options.fds().is_empty() {
        return None;
    }
    let root = ctx.image.tasks.get(ctx.image.header.root_task as usize);
    let fds = root.and_then(|root| entries(ctx, root).ok()).unwrap_or(&[]);
    fds.iter().filter(|e| e.object == object).find_map(|e| ctx.options.fd_path(e.fd))
}

/// F_SETFL where it changes something. O_ASYNC waits for the owner.
fn set_status(fd: Fd, flags: u32) -> crate::sys::Result<()> {
    const SETTABLE: u32 = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;
    let now = fd::fcntl(fd, F_GETFL, 0)? as u32;
    if (now ^ flags) & SETTABLE == 0 {
        return Ok(());
    }
    fd::fcntl(fd, F_SETFL, (now & !SETTABLE | flags & SETTABLE) as usize).map(drop)
}

/// A message of a queue.
#[derive(Clone, Copy)]
struct Queued {
    bytes: &'static [u8],
    /// Objects that it carries.
    objects: &'static [u32],
    /// Socket that sent it, or NONE.
    from: u32,
}

/// Messages of a queue.
fn messages(ctx: &Ctx, object: &Object) -> Result<impl Iterator<Item = Queued>> {
    let mut rest = ctx.image.blob(object.queue)?;
    Ok(core::iter::from_fn(move || {
        let (head, after) = Message::ref_from_prefix(rest).ok()?;
        let (objects, after) = <[u32]>::ref_from_prefix_with_elems(after, head.fds as usize).ok()?;
        let after = after.get(head.fds as usize % 2 * 4..)?;
        let bytes = after.get(..head.len as usize)?;
        rest = after.get(bytes.len().next_multiple_of(8)..).unwrap_or(&[]);
        Some(Queued { bytes, objects, from: head.from })
    }))
}
