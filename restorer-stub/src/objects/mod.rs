//! Descriptors. One file per kind of object; this one gives every saved descriptor its number.

mod epoll;
mod event;
mod inet;
mod inherited;
mod locks;
mod pipe;
mod regular;
mod socket;
mod tty;
mod unix;

use crate::ctx::Ctx;
use crate::files;
use crate::report::{Error, Result};
use crate::sys::{Errno, Fd, fd, object as sys, process};
use ckpt_format::{FdEntry, Image, Object, ObjectKind, Task};
use linux_raw_sys::general::*;

/// How an object is made: `None` when it is not its turn yet ([`LATER`] makes it).
type Create = fn(&Objects, u32, &'static Object) -> Result<Option<Fd>>;

const KINDS: &[(ObjectKind, Create)] = &[
    (ObjectKind::File, regular::open),
    (ObjectKind::Memfd, regular::open),
    (ObjectKind::PipeEnd, pipe::end),
    (ObjectKind::EventFd, event::eventfd),
    (ObjectKind::TimerFd, event::timerfd),
    (ObjectKind::SignalFd, event::signalfd),
    (ObjectKind::Epoll, epoll::create),
    (ObjectKind::InetSocket, inet::socket),
    (ObjectKind::UnixSocket, unix::socket),
    (ObjectKind::Tty, tty::open),
    (ObjectKind::Inherited, inherited::take),
];

/// What is made when all the others are there.
const LATER: &[(ObjectKind, Create)] = &[(ObjectKind::UnixSocket, unix::accepted)];

/// The work on one descriptor table.
struct Objects {
    ctx: &'static Ctx,
    fds: &'static [FdEntry],
    /// By object: index in `fds` of its first descriptor, + 1; 0 for none.
    first: &'static mut [u32],
    /// By index in `fds`: the next descriptor of the same object, + 1.
    next: &'static mut [u32],
    /// By object: two descriptors that wait for its turn, + 1 (ends of a pipe, a socket's half of a
    /// pair).
    spare: core::cell::RefCell<&'static mut [[i32; 2]]>,
    /// By pipe object: ends that are still to be made.
    ends: core::cell::RefCell<&'static mut [u32]>,
    /// The caller's descriptors 0 to 2, moved out of the way.
    caller: [Option<Fd>; 3],
}

/// Gives the program its descriptors. Runs in the process that becomes the program, with nothing
/// mapped but the stub, before memory and threads. Afterwards exactly the saved descriptors are open,
/// plus the stub's own at `ctx.high_fd()` and above (closed by the stub later).
pub fn restore(ctx: &'static Ctx, task: &Task) -> Result<()> {
    raise_limit(ctx)?;
    let mut o = Objects::new(ctx, task)?;
    o.spare = ctx.work.slice::<[i32; 2]>(ctx.image.objects.len())?.into();
    o.ends = ctx.work.slice::<u32>(ctx.image.objects.len())?.into();
    for number in 0..3 {
        match fd::dup_above(Fd(number), ctx.high_fd()) {
            Ok(high) => o.caller[number as usize] = Some(high),
            Err(Errno::EBADF) => {}
            Err(e) => return Err(Error::os("cannot move the caller's descriptor")(e).fd(number)),
        }
    }
    fd::close_range(0, ctx.high_fd().saturating_sub(1)).map_err(Error::os("cannot close descriptors"))?;
    o.count_ends()?;
    o.create_all(KINDS)?;
    o.create_all(LATER)?;
    o.each(ObjectKind::UnixSocket, unix::connect)?;
    o.each(ObjectKind::Epoll, epoll::fill)?;
    o.caller.into_iter().flatten().for_each(fd::close);
    Ok(())
}

/// What can only be done when memory and threads are there: timers run, owners have ids, no file of
/// ours is closed any more that would take a POSIX lock with it.
pub fn finish(ctx: &'static Ctx, task: &Task) -> Result<()> {
    let o = Objects::new(ctx, task)?;
    o.each(ObjectKind::Memfd, regular::seal)?;
    files::close_recreated(ctx);
    o.each(ObjectKind::TimerFd, event::arm)?;
    for (index, object) in ctx.image.objects.iter().enumerate() {
        if let Some(fd) = o.placed(index as u32) {
            owner(ctx, task, object, fd)?;
        }
    }
    locks::take(&o, task)?;
    tty::modes(&o)
}

/// Room for the program's descriptors and ours; the program's own limits are set later.
fn raise_limit(ctx: &Ctx) -> Result<()> {
    let (soft, hard) = process::getrlimit(RLIMIT_NOFILE).map_err(Error::os("getrlimit"))?;
    if soft < hard {
        let _ = process::setrlimit(RLIMIT_NOFILE, (hard, hard));
    }
    if hard <= u64::from(ctx.high_fd()) {
        return Err(Error::new("the program has more descriptors open than the hard limit allows here")
            .remedy("raise it (ulimit -Hn)"));
    }
    Ok(())
}

impl Objects {
    fn new(ctx: &'static Ctx, task: &Task) -> Result<Self> {
        let table = Image::get(ctx.image.fd_tables, task.fd_table, "descriptor table")?;
        let fds = Image::slice(ctx.image.fds, table.fds, "descriptors")?;
        let count = ctx.image.objects.len();
        let first = ctx.work.slice::<u32>(count)?;
        let next = ctx.work.slice::<u32>(fds.len())?;
        for (i, entry) in fds.iter().enumerate().rev() {
            if u32::try_from(entry.fd).is_ok_and(|n| n < ctx.high_fd()) {
                let head = first.get_mut(entry.object as usize);
                let head = head.ok_or(Error::new("the image is damaged: a descriptor without object"))?;
                next[i] = core::mem::replace(head, i as u32 + 1);
            } else {
                return Err(Error::new("the image is damaged: bad descriptor number"));
            }
        }
        Ok(Self {
            ctx,
            fds,
            first,
            next,
            spare: <&mut [_]>::default().into(),
            ends: <&mut [_]>::default().into(),
            caller: [None; 3],
        })
    }

    /// Descriptors of an object, lowest first.
    fn entries(&self, object: u32) -> impl Iterator<Item = &'static FdEntry> + '_ {
        let mut at = self.first.get(object as usize).copied().unwrap_or(0);
        core::iter::from_fn(move || {
            let index = at.checked_sub(1)? as usize;
            at = self.next[index];
            Some(&self.fds[index])
        })
    }

    /// Lowest number of an object.
    fn placed(&self, object: u32) -> Option<Fd> {
        self.entries(object).next().map(|e| Fd(e.fd))
    }

    /// Lowest number, for messages.
    fn number(&self, object: u32) -> i32 {
        self.placed(object).map_or(-1, |fd| fd.0)
    }

    /// Object of a descriptor number.
    fn object_at(&self, number: i32) -> Option<u32> {
        self.fds.binary_search_by_key(&number, |e| e.fd).ok().map(|i| self.fds[i].object)
    }

    fn object(&self, index: u32) -> Result<&'static Object> {
        Ok(Image::get(self.ctx.image.objects, index, "object")?)
    }

    fn create_all(&self, kinds: &[(ObjectKind, Create)]) -> Result<()> {
        for (index, object) in self.ctx.image.objects.iter().enumerate() {
            let index = index as u32;
            if self.placed(index).is_none() {
                continue;
            }
            let kind = ObjectKind::from_u32(object.kind);
            let made = match kinds.iter().find(|(k, _)| Some(*k) == kind) {
                Some(_) if self.given(index).is_some() && core::ptr::eq(kinds, KINDS) => {
                    regular::given(self, index, object)?
                }
                Some(_) if self.given(index).is_some() => None,
                Some((_, create)) => create(self, index, object)?,
                None if core::ptr::eq(kinds, KINDS) => {
                    return Err(Error::new("the image has an object of unknown kind").fd(self.number(index)));
                }
                None => None,
            };
            if let Some(fd) = made {
                self.place(index, object, fd)?;
            }
        }
        Ok(())
    }

    /// Path that the caller gave for any descriptor of an object (`--fd`).
    fn given(&self, object: u32) -> Option<&'static [u8]> {
        if self.ctx.options.fds().is_empty() {
            return None;
        }
        self.entries(object).find_map(|e| self.ctx.options.fd_path(e.fd))
    }

    /// Runs `f` for every object of a kind that has a descriptor and was not replaced by `--fd`.
    fn each(&self, kind: ObjectKind, f: fn(&Self, u32, &'static Object) -> Result<()>) -> Result<()> {
        for (index, object) in self.ctx.image.objects.iter().enumerate() {
            let index = index as u32;
            if object.kind == kind as u32 && self.placed(index).is_some() && self.given(index).is_none() {
                f(self, index, object)?;
            }
        }
        Ok(())
    }

    /// Sets the status flags of a new descriptor and duplicates it to all of its numbers.
    fn place(&self, index: u32, object: &Object, fd: Fd) -> Result<()> {
        let number = self.number(index);
        let failed = |what| move |e| Error::os(what)(e).fd(number);
        let inherited = object.kind == ObjectKind::Inherited as u32;
        if object.open_flags & O_PATH == 0 && !inherited {
            set_status(fd, object.open_flags).map_err(failed("cannot set the status flags"))?;
        }
        for entry in self.entries(index) {
            fd::dup_to(fd, entry.fd, entry.cloexec != 0).map_err(failed("cannot place the descriptor"))?;
        }
        fd::close(fd);
        Ok(())
    }

    /// Moves a new descriptor out of the way of the program's.
    fn raise(&self, low: Fd) -> Result<Fd> {
        self.ctx.raise(low)
    }

    /// Keeps a descriptor for another object's turn.
    fn keep(&self, object: u32, slot: usize, fd: Option<Fd>) {
        if let Some(spare) = self.spare.borrow_mut().get_mut(object as usize) {
            spare[slot] = fd.map_or(0, |fd| fd.0 + 1);
        }
    }

    fn kept(&self, object: u32, slot: usize) -> Option<Fd> {
        let n = self.spare.borrow().get(object as usize)?[slot];
        (n != 0).then_some(Fd(n - 1))
    }

    fn count_ends(&self) -> Result<()> {
        let mut ends = self.ends.borrow_mut();
        for (index, object) in self.ctx.image.objects.iter().enumerate() {
            let end = object.kind == ObjectKind::PipeEnd as u32;
            if end && self.placed(index as u32).is_some() && self.given(index as u32).is_none() {
                let pipe = ends.get_mut(object.inner as usize);
                *pipe.ok_or(Error::new("the image is damaged: an end without a pipe"))? += 1;
            }
        }
        Ok(())
    }
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

/// F_SETOWN_EX, F_SETSIG, O_ASYNC.
fn owner(ctx: &Ctx, task: &Task, object: &Object, fd: Fd) -> Result<()> {
    const F_OWNER_PGRP: i32 = 2;
    if object.owner != 0 {
        let id = if object.owner_type == F_OWNER_PGRP && object.owner == task.pgid {
            sys::own_group()
        } else {
            ctx.map_id(object.owner)
        };
        sys::set_owner(fd, object.owner_type, id)
            .map_err(|e| Error::os("cannot set who gets the signals of")(e).fd(fd.0))?;
    }
    if object.signal != 0 {
        fd::fcntl(fd, F_SETSIG, object.signal as usize)
            .map_err(|e| Error::os("cannot set the signal of")(e).fd(fd.0))?;
    }
    if object.open_flags & FASYNC != 0 {
        let now = fd::fcntl(fd, F_GETFL, 0).unwrap_or(0);
        fd::fcntl(fd, F_SETFL, now | FASYNC as usize)
            .map_err(|e| Error::os("cannot set O_ASYNC of")(e).fd(fd.0))?;
    }
    Ok(())
}

/// Messages of a queue.
fn messages(ctx: &Ctx, object: &Object) -> Result<impl Iterator<Item = &'static [u8]>> {
    let mut rest = ctx.image.blob(object.queue)?;
    Ok(core::iter::from_fn(move || {
        let (head, after) = rest.split_first_chunk::<8>()?;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let message = after.get(..len)?;
        rest = after.get(len.next_multiple_of(8)..).unwrap_or(&[]);
        Some(message)
    }))
}
