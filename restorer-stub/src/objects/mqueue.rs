//! POSIX message queues. As with System V IPC, a queue that is there already is used again if it is the
//! same and nobody has it open.

use super::make::Maker;
use super::messages;
use super::place::Placer;
use crate::ctx::Ctx;
use crate::files;
use crate::report::{Error, Result, note};
use crate::sys::mqueue::{self as sys, Limits};
use crate::sys::{CPath, Decimal, Errno, Fd, fd};
use ckpt_format::fd::mqueue::{MessageQueue, QueueNotice, queue_flags};
use ckpt_format::{Object, ObjectKind};
use core::sync::atomic::Ordering;
use linux_raw_sys::general::*;

fn name_of(ctx: &Ctx, record: &MessageQueue) -> Result<&'static [u8]> {
    Ok(ctx.image.blob(record.name)?)
}

fn is_unlinked(record: &MessageQueue) -> bool {
    record.flags & queue_flags::UNLINKED != 0
}

fn limits(record: &MessageQueue) -> Limits {
    Limits { messages: record.max_messages, size: record.message_size }
}

/// All queues of the image.
pub fn queues(ctx: &Ctx) -> impl Iterator<Item = (usize, &'static Object)> + use<> {
    ctx.image.objects.iter().enumerate().filter(|(_, x)| x.kind == ObjectKind::MessageQueue as u32)
}

/// A queue of somebody else that has the name of one of ours.
pub fn in_the_way(ctx: &Ctx) -> Result<Option<Error>> {
    for (_, object) in queues(ctx) {
        let record: &MessageQueue = ctx.image.payload(object.payload)?;
        if is_unlinked(record) {
            continue;
        }
        let name = name_of(ctx, record)?;
        match existing(name, record) {
            Ok(queue) => fd::close(queue),
            Err(Errno::ENOENT) => {}
            Err(_) => return Ok(Some(other(name))),
        }
    }
    Ok(None)
}

fn other(name: &'static [u8]) -> Error {
    Error::new("another POSIX message queue is in the way, or in use:").path(name).remedy(
        "end the program that uses it or remove it (mount -t mqueue none DIR; rm DIR/NAME), or use --pid ns, \
         where the program gets an IPC namespace of its own",
    )
}

/// The queue that is there, if it may be used; else EBUSY.
fn existing(name: &[u8], record: &MessageQueue) -> crate::sys::Result<Fd> {
    let queue = sys::open(name, O_RDWR | O_NONBLOCK)?;
    if sys::limits(queue)? == limits(record) && sys::is_ours_alone(queue) {
        return Ok(queue);
    }
    fd::close(queue);
    Err(Errno::EBUSY)
}

/// A description. The first one of a queue that is met makes the queue.
pub fn open(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let (ctx, on) = (o.ctx, o.on(index));
    let record: &MessageQueue = ctx.image.payload(o.object(object.inner)?.payload)?;
    let base = match o.kept(object.inner, 0) {
        Some(base) => base,
        None => {
            let base = o.raise(create(o, object.inner, record)?)?;
            o.keep(object.inner, 0, Some(base));
            fill(o, object.inner, record, base)?;
            base
        }
    };
    let flags = object.open_flags & O_ACCMODE | O_NONBLOCK;
    let fd = if is_unlinked(record) {
        files::reopen(base, flags)
    } else {
        // The owner may have taken rights from himself: they are given back last.
        sys::open(name_of(ctx, record)?, flags)
    };
    let fd = fd.map_err(|e| Error::os("cannot open the message queue")(e).on(on))?;
    o.raise(fd).map(Some)
}

/// A queue with its name, or without.
fn create(o: &Maker, queue: u32, record: &MessageQueue) -> Result<Fd> {
    let ctx = o.ctx;
    let name = name_of(ctx, record)?;
    let failed = |e| {
        let error = Error::os("cannot make the POSIX message queue")(e).path(name);
        match e {
            Errno::EMFILE => error.remedy("raise the limit of message queues (ulimit -q)"),
            Errno::EINVAL => error.remedy("raise fs.mqueue.msg_max and fs.mqueue.msgsize_max (sysctl)"),
            Errno::ENOSPC => error.remedy("raise fs.mqueue.queues_max (sysctl)"),
            _ => error,
        }
    };
    if is_unlinked(record) {
        let pid = Decimal::new(crate::sys::process::getpid() as u64);
        let number = Decimal::new(u64::from(queue));
        let free = CPath::concat(&[b"ckpt-", pid.as_bytes(), b"-", number.as_bytes()]).map_err(failed)?;
        for name in [name, free.as_bytes()] {
            match sys::create(name, limits(record)) {
                Ok(made) => return sys::unlink(name).map_err(failed).map(|()| made),
                Err(Errno::EEXIST) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        return Err(failed(Errno::EEXIST));
    }
    match sys::create(name, limits(record)) {
        Ok(made) => {
            if let Some(slot) = ctx.sysv.queues.get(queue as usize) {
                slot.store(1, Ordering::SeqCst);
            }
            Ok(made)
        }
        Err(Errno::EEXIST) => existing(name, record).map_err(|_| other(name)),
        Err(e) => Err(failed(e)),
    }
}

fn fill(o: &Maker, queue: u32, record: &MessageQueue, base: Fd) -> Result<()> {
    let name = name_of(o.ctx, record)?;
    let failed = |e| Error::os("cannot put back the messages of the queue")(e).path(name);
    let buf = o.ctx.work.slice::<u8>(record.message_size as usize)?;
    while sys::discard(base, buf).is_ok() {}
    let priorities = o.ctx.image.records::<u32>(record.priorities)?;
    for (message, priority) in messages(o.ctx, o.object(queue)?)?.zip(priorities) {
        sys::send(base, message.bytes, *priority).map_err(failed)?;
    }
    Ok(())
}

/// Rights and owner, when all have opened it; nothing of ours stays open.
pub fn settle(o: &Maker, _: u32, object: &'static Object) -> Result<()> {
    let Some(base) = o.kept(object.inner, 0) else { return Ok(()) };
    let record: &MessageQueue = o.ctx.image.payload(o.object(object.inner)?.payload)?;
    let name = name_of(o.ctx, record)?;
    if let Err(e) = fd::fchown(base, record.uid, record.gid) {
        note(format_args!("a message queue belonged to user {}: {e}", record.uid));
    }
    fd::fchmod(base, record.mode & 0o7777)
        .map_err(|e| Error::os("cannot set the rights of the message queue")(e).path(name))?;
    o.keep(object.inner, 0, None);
    fd::close(base);
    Ok(())
}

/// Notifications, in the processes that wait for them. They end when the process closes any descriptor of
/// the queue, which nobody does any more.
pub fn notify(o: &Placer) -> Result<()> {
    for (i, entry) in o.fds.iter().enumerate() {
        let object = o.object(entry.object)?;
        if object.kind != ObjectKind::OpenQueue as u32 || o.given(entry.object).is_some() {
            continue;
        }
        let notice: &QueueNotice = o.ctx.image.payload(object.payload)?;
        let same = |e: &ckpt_format::FdEntry| o.object(e.object).is_ok_and(|x| x.inner == object.inner);
        if notice.pid != o.task.pid || o.fds[..i].iter().any(same) {
            continue;
        }
        sys::notify(Fd(entry.fd), notice.how, notice.signal)
            .map_err(|e| Error::os("cannot wait for a message (mq_notify)")(e).on(o.on(entry.fd)))?;
    }
    Ok(())
}

/// Removes a queue that was made by a restore that failed.
pub fn remove(ctx: &Ctx, object: &'static Object) {
    let record = ctx.image.payload::<MessageQueue>(object.payload);
    if let Some(name) = record.ok().and_then(|r| name_of(ctx, r).ok()) {
        let _ = sys::unlink(name);
    }
}
