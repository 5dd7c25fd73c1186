//! pidfds. Those of processes that are gone are made like everything else; the others when all processes and
//! threads are there, by the first process that has each, which sends it to the others.

use super::make::Maker;
use super::place::Placer;
use super::{Table, first_tasks, set_status};
use crate::ctx::Ctx;
use crate::report::{Error, On, Result};
use crate::signals;
use crate::sys::socket::{self, SOCK_DGRAM};
use crate::sys::{Errno, Fd, fd, process, signal};
use ckpt_format::fd::pidfd::{Pidfd, pidfd_flags};
use ckpt_format::{Object, ObjectKind};
use linux_raw_sys::general::{__WALL, O_EXCL, RLIMIT_CORE};

const SIGKILL: i32 = 9;

/// Whether an object is a pidfd of a process or thread of the image.
pub fn is_late(ctx: &Ctx, object: &'static Object) -> bool {
    object.kind == ObjectKind::Pidfd as u32
        && ctx.image.payload::<Pidfd>(object.payload).is_ok_and(|saved| saved.tid != 0)
}

fn flags(saved: &Pidfd) -> u32 {
    if saved.flags & pidfd_flags::THREAD != 0 { O_EXCL } else { 0 }
}

fn failed(e: Errno) -> Error {
    let error = Error::os("cannot make the pidfd")(e);
    match e {
        Errno::EINVAL => error.remedy("PIDFD_THREAD needs Linux 6.9"),
        _ => error,
    }
}

pub fn create(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let saved: &Pidfd = o.ctx.image.payload(object.payload)?;
    let failed = |e| failed(e).on(o.on(index));
    if saved.tid == 0 {
        return o.raise(gone(saved).map_err(failed)?).map(Some);
    }
    let has_it =
        |task: &&_| super::entries(o.ctx, task).is_ok_and(|all| all.iter().any(|e| e.object == index));
    if first_tasks(o.ctx).filter(has_it).count() > 1 {
        let (sender, receiver) = socket::pair(SOCK_DGRAM).map_err(failed)?;
        let (sender, receiver) = (o.raise(sender)?, o.raise(receiver)?);
        Table::store(o.ctx.objects.sender, index, sender.0 + 1)?;
        Table::store(o.ctx.objects.made, index, receiver.0 + 1)?;
    }
    Ok(None)
}

/// A pidfd of a process that ended with the saved status, and is no more.
fn gone(saved: &Pidfd) -> crate::sys::Result<Fd> {
    let child = process::fork(0, None)?;
    if child == 0 {
        end_with(saved.status);
    }
    let fd = process::pidfd_open_with(child, flags(saved));
    process::wait(child, __WALL)?;
    fd
}

fn end_with(status: i32) -> ! {
    let number = status & 0x7f;
    if number != 0 {
        let _ = process::setrlimit(RLIMIT_CORE, (0, 0));
        signals::reset(number);
        signal::set_mask(0);
        let _ = process::kill(process::getpid(), number);
        let _ = process::kill(process::getpid(), SIGKILL);
    }
    process::exit_group(status >> 8 & 0xff)
}

/// Gives the process its late ones.
pub fn place(o: &Placer) -> Result<()> {
    let late = || {
        let objects = (0u32..).zip(o.ctx.image.objects);
        objects.filter(|(index, object)| {
            is_late(o.ctx, object) && o.given(*index).is_none() && o.placed(*index).is_some()
        })
    };
    let is_first = |index: u32| o.ctx.objects.is_first(index, o.task);
    // First what others wait for.
    for (index, object) in late().filter(|(index, _)| is_first(*index)) {
        let made = open(o, index, object)?;
        if let Some(sender) = o.ctx.objects.sender(index) {
            socket::send_with(sender, b"p", &[], &[made.0]).map_err(|e| failed(e).on(on(o, index)))?;
        }
        put(o, index, made)?;
    }
    for (index, _) in late().filter(|(index, _)| !is_first(*index)) {
        let receiver = o.ctx.objects.made(index).ok_or(Error::new("the image is damaged: a lonely pidfd"))?;
        let made = socket::peek_descriptor(receiver).map_err(|e| failed(e).on(on(o, index)))?;
        put(o, index, o.ctx.raise(made)?)?;
    }
    Ok(())
}

fn on(o: &Placer, index: u32) -> On {
    o.ctx.objects.on(o.ctx, index)
}

fn open(o: &Placer, index: u32, object: &'static Object) -> Result<Fd> {
    let saved: &Pidfd = o.ctx.image.payload(object.payload)?;
    let failed = |e| failed(e).on(on(o, index));
    let made = process::pidfd_open_with(o.ctx.map_id(saved.tid), flags(saved)).map_err(failed)?;
    let made = o.ctx.raise(made)?;
    set_status(made, object.open_flags).map_err(failed)?;
    Ok(made)
}

/// At all its numbers in this table.
fn put(o: &Placer, index: u32, made: Fd) -> Result<()> {
    for entry in o.fds.iter().filter(|e| e.object == index) {
        fd::dup_to(made, entry.fd, entry.cloexec != 0)
            .map_err(|e| Error::os("cannot place the descriptor")(e).on(o.on(entry.fd)))?;
    }
    // For an epoll instance that knows it by another number.
    Table::store(o.ctx.objects.made, index, made.0 + 1)
}
