//! Gives a process its descriptors, and what of them only it can have.

use super::make::is_direct;
use super::*;
use crate::files;
use crate::sys::object as sys;
use ckpt_format::ObjectKind;

/// The work on one descriptor table.
pub struct Placer {
    pub ctx: &'static Ctx,
    pub task: &'static Task,
    pub fds: &'static [FdEntry],
    /// By object: lowest number in this table, + 1; 0 for none.
    lowest: &'static [i32],
}

/// Gives a process its numbers: exactly the saved descriptors are open afterwards, but for those of what is
/// not there yet, plus the stub's own at `ctx.high_fd()` and above.
pub fn place(ctx: &'static Ctx, task: &'static Task) -> Result<()> {
    if !is_first_of_table(ctx, task) {
        return Ok(());
    }
    let o = Placer::new(ctx, task)?;
    if !is_direct(ctx) {
        fd::close_range(0, ctx.high_fd().saturating_sub(1)).map_err(Error::os("cannot close descriptors"))?;
    }
    for entry in o.fds {
        if o.given(entry.object).is_none() && pidfd::is_late(ctx, o.object(entry.object)?) {
            continue;
        }
        let Some(made) = ctx.objects.made(entry.object) else {
            if regular::is_late(ctx, entry.object)? {
                continue;
            }
            return Err(Error::new("the image is damaged: an object that was not made").fd(entry.fd));
        };
        fd::dup_to(made, entry.fd, entry.cloexec != 0)
            .map_err(|e| Error::os("cannot place the descriptor")(e).on(o.on(entry.fd)))?;
    }
    o.each_first(ObjectKind::Inotify, inotify::watch_early)?;
    o.each_first(ObjectKind::Fanotify, fanotify::mark_early)
}

/// Descriptors by which objects were made.
fn close_made(ctx: &Ctx) {
    for index in 0..ctx.image.objects.len() as u32 {
        if let Some(made) = ctx.objects.made(index).filter(|fd| fd.0 as u32 >= ctx.high_fd()) {
            fd::close(made);
        }
    }
}

/// What can only be done when all processes have their memory and threads: timers run, owners have
/// ids, no file of ours is closed any more that would take a POSIX lock with it.
pub fn finish(ctx: &'static Ctx, task: &'static Task) -> Result<()> {
    if !is_first_of_table(ctx, task) {
        return Ok(());
    }
    let o = Placer::new(ctx, task)?;
    o.each_first(ObjectKind::Memfd, regular::seal)?;
    pidfd::place(&o)?;
    o.each_first(ObjectKind::TimerFd, event::arm)?;
    epoll::fill_all(&o)?;
    close_made(ctx);
    o.each_first(ObjectKind::Inotify, inotify::watch_late)?;
    o.each_first(ObjectKind::Fanotify, fanotify::mark_late)?;
    files::close_recreated(ctx);
    regular::open_late(&o)?;
    o.each_first(ObjectKind::Inotify, inotify::settle)?;
    o.each_first(ObjectKind::Fanotify, fanotify::settle)?;
    for (index, object) in ctx.image.objects.iter().enumerate() {
        let index = index as u32;
        if let Some(fd) = o.placed(index).filter(|_| ctx.objects.is_first(index, task)) {
            owner(ctx, task, object, fd)?;
        }
    }
    locks::take(&o)?;
    mqueue::notify(&o)?;
    o.each_first(ObjectKind::InetSocket, repair::go_on)?;
    o.each_first(ObjectKind::PtyMaster, pty::close_master)?;
    o.each_first(ObjectKind::PtySlave, pty::close_slave)?;
    tty::modes(&o)
}

impl Placer {
    fn new(ctx: &'static Ctx, task: &'static Task) -> Result<Self> {
        let fds = entries(ctx, task)?;
        let lowest = ctx.work.slice::<i32>(ctx.image.objects.len())?;
        for entry in fds.iter().rev() {
            let slot = lowest.get_mut(entry.object as usize);
            *slot.ok_or(Error::new("the image is damaged: a descriptor without object"))? = entry.fd + 1;
        }
        Ok(Self { ctx, task, fds, lowest })
    }

    /// Lowest number of an object in this table.
    pub fn placed(&self, object: u32) -> Option<Fd> {
        self.lowest.get(object as usize).filter(|n| **n > 0).map(|n| Fd(*n - 1))
    }

    /// Whether this process is the first that has it.
    pub fn is_first(&self, object: u32) -> bool {
        self.ctx.objects.is_first(object, self.task)
    }

    /// A descriptor in words.
    pub fn on(&self, number: i32) -> On {
        match self.ctx.image.tasks.len() {
            1 => On::Fd(number),
            _ => On::FdOf(number, self.task.pid),
        }
    }

    /// Object of a descriptor number.
    pub fn object_at(&self, number: i32) -> Option<u32> {
        self.fds.binary_search_by_key(&number, |e| e.fd).ok().map(|i| self.fds[i].object)
    }

    pub fn object(&self, index: u32) -> Result<&'static Object> {
        Ok(Image::get(self.ctx.image.objects, index, "object")?)
    }

    pub fn given(&self, index: u32) -> Option<&'static [u8]> {
        given(self.ctx, index)
    }

    /// Runs `f` for every object of a kind that this process is the first to have, and that was not
    /// replaced by `--fd`.
    fn each_first(&self, kind: ObjectKind, f: fn(&Self, Fd, &'static Object) -> Result<()>) -> Result<()> {
        for (index, object) in self.ctx.image.objects.iter().enumerate() {
            let index = index as u32;
            if object.kind == kind as u32
                && self.ctx.objects.is_first(index, self.task)
                && self.given(index).is_none()
                && let Some(fd) = self.placed(index)
            {
                f(self, fd, object)?;
            }
        }
        Ok(())
    }
}

/// F_SETOWN_EX, F_SETSIG, O_ASYNC.
fn owner(ctx: &Ctx, task: &Task, object: &Object, fd: Fd) -> Result<()> {
    if object.owner != 0 {
        sys::set_owner(fd, object.owner_type, owner_id(ctx, task, object))
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

/// A process group may be the caller's by now: it is that of a process which was in it.
fn owner_id(ctx: &Ctx, task: &Task, object: &Object) -> i32 {
    const F_OWNER_PGRP: i32 = 2;
    if object.owner_type != F_OWNER_PGRP {
        return ctx.map_id(object.owner);
    }
    if task.pgid == object.owner {
        return sys::own_group();
    }
    let member = ctx.image.tasks.iter().find(|t| t.pgid == object.owner);
    let group = member.and_then(|t| sys::group_of(ctx.map_id(t.pid)).ok());
    group.unwrap_or_else(|| ctx.map_id(object.owner))
}
