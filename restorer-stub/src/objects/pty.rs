//! Pseudo-terminals that the program itself provides, and sessions that have them as controlling
//! terminals.

use super::make::Maker;
use super::messages;
use super::place::Placer;
use crate::ctx::Ctx;
use crate::report::{Error, On, Result, note};
use crate::signals;
use crate::sys::{Errno, Fd, fd, object as sys, process, pty};
use ckpt_format::fd::object_flags;
use ckpt_format::fd::tty::{Pty, pty_flags};
use ckpt_format::task::task_flags;
use ckpt_format::{NONE, Object, ObjectKind, Task};
use linux_raw_sys::general::*;

/// Slot of the pair's spare descriptor: the master.
const MASTER: usize = 0;
/// Pairs that are opened at most so that the next one has the wanted number.
const MOST: usize = 512;

pub fn master(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let master = of_pair(o, index, object)?;
    fd::dup_above(master, o.ctx.high_fd())
        .map(Some)
        .map_err(|e| Error::os("cannot keep the pseudo-terminal")(e).on(o.on(index)))
}

pub fn slave(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let master = of_pair(o, index, object)?;
    let flags = object.open_flags & (O_ACCMODE | O_NONBLOCK | O_LARGEFILE);
    let slave = pty::peer(master, flags)
        .map_err(|e| Error::os("cannot open the other end of the pseudo-terminal")(e).on(o.on(index)))?;
    let slave = o.raise(slave)?;
    if object.flags & object_flags::DEV_TTY != 0
        && let Err(e) = by_its_other_name(master, slave, flags)
    {
        note(format_args!("a terminal is open by its own name instead of /dev/tty: {e}"));
    }
    Ok(Some(slave))
}

/// Puts what `/dev/tty` is in a session on this terminal in the place of `slave`. The process that leads
/// that session shares our descriptors, and is gone afterwards.
fn by_its_other_name(master: Fd, slave: Fd, flags: u32) -> crate::sys::Result<()> {
    let helper = process::fork_sharing(CLONE_FILES, 0, None)?;
    if helper != 0 {
        return match process::wait(helper, __WALL)? {
            Some((_, process::Wait::Exited(0))) => Ok(()),
            Some((_, process::Wait::Exited(e))) => Err(Errno(e)),
            _ => Err(Errno::ECHILD),
        };
    }
    signals::block_all();
    let open = || {
        process::setsid()?;
        let terminal = pty::peer(master, O_RDWR)?;
        let named = sys::set_controlling(terminal).and_then(|()| fd::open(b"/dev/tty", flags, 0));
        let placed = named.and_then(|named| {
            let placed = fd::dup_to(named, slave.0, true);
            fd::close(named);
            placed
        });
        // Else its end would hang up the terminal.
        let _ = pty::give_up_controlling(terminal);
        fd::close(terminal);
        placed
    };
    process::exit_group(open().map_or_else(|e| e.0, |()| 0))
}

/// The master of the pair that an end belongs to; the first end that is met makes it.
fn of_pair(o: &Maker, index: u32, object: &Object) -> Result<Fd> {
    if let Some(master) = o.kept(object.inner, MASTER) {
        return Ok(master);
    }
    let record: &Pty = o.ctx.image.payload(o.object(object.inner)?.payload)?;
    let master = create(o, record).map_err(|e| e.on(o.on(index)))?;
    o.keep(object.inner, MASTER, Some(master));
    Ok(master)
}

fn create(o: &Maker, record: &'static Pty) -> Result<Fd> {
    let failed = Error::os("cannot set up the pseudo-terminal");
    let master = with_number(o, record)?;
    pty::lock(master, false).map_err(&failed)?;
    // Of the master, these are the slave's.
    if let Some(termios) = record.termios.first_chunk() {
        sys::set_termios(master, termios).map_err(&failed)?;
    }
    pty::set_winsize(master, &record.winsize).map_err(&failed)?;
    Ok(master)
}

/// A new master, of the pair with the saved number if that is free: programs know its name.
fn with_number(o: &Maker, record: &'static Pty) -> Result<Fd> {
    let mut extra = [None; MOST];
    let mut count = 0;
    let found = loop {
        let (master, number) = open_master(o, record)?;
        if number >= record.number || count == MOST {
            break (master, number);
        }
        // A lower number than the wanted one: kept until that comes.
        extra[count] = Some(master);
        count += 1;
    };
    let mut taken = found;
    if taken.1 != record.number
        && let Some(first) = extra[0].take()
    {
        // Not to be had: the lowest then, as any program would get.
        fd::close(taken.0);
        taken = (first, pty::number(first).unwrap_or(0));
    }
    extra.into_iter().flatten().for_each(fd::close);
    if taken.1 != record.number {
        let name = crate::report::Printable(o.ctx.image.blob(record.path)?);
        note(format_args!("{name} is in use: the program's terminal is /dev/pts/{} now", taken.1));
    }
    Ok(taken.0)
}

fn open_master(o: &Maker, record: &Pty) -> Result<(Fd, u32)> {
    let open = |path: &[u8]| {
        let master = fd::open(path, O_RDWR | O_NOCTTY, 0)?;
        pty::number(master).map(|number| (master, number)).inspect_err(|_| fd::close(master))
    };
    let opened = open(o.ctx.image.blob(record.ptmx)?).or_else(|_| open(b"/dev/ptmx"));
    let (master, number) = opened.or_else(|_| open(b"/dev/pts/ptmx")).map_err(|e| {
        Error::os("cannot open a pseudo-terminal (/dev/ptmx)")(e)
            .remedy("mount devpts at /dev/pts where the image runs; see /proc/sys/kernel/pty/max")
    })?;
    Ok((o.raise(master)?, number))
}

/// When all ends are there: what a process outside might see, and packet mode.
pub fn settle(o: &Maker) -> Result<()> {
    let objects = o.ctx.image.objects.iter().enumerate();
    for (index, pair) in objects.filter(|(_, x)| x.kind == ObjectKind::Pty as u32) {
        let Some(master) = o.kept(index as u32, MASTER) else { continue };
        let record: &Pty = o.ctx.image.payload(pair.payload)?;
        let failed = Error::os("cannot set up the pseudo-terminal");
        // The last close of a slave hangs up the master.
        let is_slave = |x: &Object| x.kind == ObjectKind::PtySlave as u32 && x.inner == index as u32;
        if record.flags & pty_flags::SLAVES_CLOSED != 0 || o.ctx.image.objects.iter().any(is_slave) {
            let slave = pty::peer(master, O_RDWR | O_NONBLOCK).map_err(&failed)?;
            if record.flags & pty_flags::NODE_KNOWN != 0 {
                own(slave, record);
            }
            let put = put_back(o, index as u32, slave, record);
            fd::close(slave);
            put?;
        }
        if record.flags & pty_flags::PACKETS != 0 {
            pty::set_packets(master).map_err(&failed)?;
        }
        fd::close(master);
        o.keep(index as u32, MASTER, None);
    }
    Ok(())
}

/// What nobody had read: written to the slave, without any change on the way, it waits at the master.
fn put_back(o: &Maker, pair: u32, slave: Fd, record: &Pty) -> Result<()> {
    /// In `c_oflag`, the second word.
    const OPOST: u8 = 1;
    let is_master = |x: &&Object| x.kind == ObjectKind::PtyMaster as u32 && x.inner == pair;
    let master = o.ctx.image.objects.iter().find(is_master);
    let Some((master, termios)) = master.filter(|m| m.queue.len > 0).zip(record.termios.first_chunk::<44>())
    else {
        return Ok(());
    };
    let failed = Error::os("cannot put back what waits in the pseudo-terminal");
    let mut raw = *termios;
    raw[4] &= !OPOST;
    sys::set_termios(slave, &raw).map_err(&failed)?;
    for message in messages(o.ctx, master)? {
        // Small pieces take less room than large ones (drivers/tty/tty_buffer.c).
        for piece in message.bytes.chunks(512) {
            write_soon(slave, piece).map_err(&failed)?;
        }
    }
    sys::set_termios(slave, termios).map_err(&failed)
}

/// To a slave that does not wait; what was written before needs a moment to arrive.
fn write_soon(slave: Fd, mut rest: &[u8]) -> crate::sys::Result<()> {
    let mut patience = 5000;
    while !rest.is_empty() {
        match fd::write(slave, rest) {
            Ok(n) => rest = &rest[n..],
            Err(Errno::EAGAIN) if patience > 0 => {
                patience -= 1;
                process::sleep_ms(1);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Owner and mode of the slave's node, as far as it is permitted.
fn own(slave: Fd, record: &Pty) {
    let Ok(now) = fd::fstat(slave) else { return };
    if (now.st_uid, now.st_gid) != (record.uid, record.gid)
        && let Err(e) = fd::fchown(slave, record.uid, record.gid)
    {
        note(format_args!("a pseudo-terminal belongs to user {} now: {e}", now.st_uid));
    }
    if now.st_mode & 0o7777 != record.mode
        && let Err(e) = fd::fchmod(slave, record.mode)
    {
        note(format_args!("a pseudo-terminal has the mode {:o} now: {e}", now.st_mode & 0o7777));
    }
}

/// What forbids to open it, when nobody has to any more.
pub fn close_master(o: &Placer, master: Fd, object: &'static Object) -> Result<()> {
    let record: &Pty = o.ctx.image.payload(o.object(object.inner)?.payload)?;
    let failed = |e| Error::os("cannot lock the pseudo-terminal of")(e).on(o.on(master.0));
    if record.flags & pty_flags::LOCKED != 0 {
        pty::lock(master, true).map_err(failed)?;
    }
    if record.flags & pty_flags::MASTER_EXCLUSIVE != 0 {
        pty::set_exclusive(master).map_err(failed)?;
    }
    Ok(())
}

/// As [`close_master`].
pub fn close_slave(o: &Placer, slave: Fd, object: &'static Object) -> Result<()> {
    let record: &Pty = o.ctx.image.payload(o.object(object.inner)?.payload)?;
    if record.flags & pty_flags::SLAVE_EXCLUSIVE != 0 {
        pty::set_exclusive(slave)
            .map_err(|e| Error::os("cannot have the terminal for itself:")(e).on(o.on(slave.0)))?;
    }
    Ok(())
}

/// Whether a task leads a session on a terminal of the image.
fn leads_on_terminal(task: &Task) -> bool {
    const BOTH: u32 = task_flags::SESSION_LEADER | task_flags::CTTY_INSIDE;
    task.flags & BOTH == BOTH && task.ctty != NONE
}

/// The controlling terminal of a task, opened: while all made objects are at hand.
fn terminal(ctx: &Ctx, task: &Task) -> Result<Fd> {
    let is_master = |x: &Object| x.kind == ObjectKind::PtyMaster as u32 && x.inner == task.ctty;
    let index = ctx.image.objects.iter().position(is_master);
    let master = index.and_then(|i| ctx.objects.made(i as u32));
    let master =
        master.ok_or(Error::new("the image is damaged: no terminal for process").on(On::Pid(task.pid)))?;
    pty::peer(master, O_RDWR)
        .map_err(|e| Error::os("cannot open the terminal of process")(e).on(On::Pid(task.pid)))
}

/// In the leader of a new session: its terminal.
pub fn take_controlling(ctx: &Ctx, task: &Task) -> Result<()> {
    if !leads_on_terminal(task) {
        return Ok(());
    }
    let terminal = terminal(ctx, task)?;
    let taken = sys::set_controlling(terminal);
    fd::close(terminal);
    taken.map_err(|e| Error::os("cannot have its controlling terminal: session")(e).on(On::Pid(task.pid)))
}

/// In the leader of a session, when all groups have their members: who is in the foreground.
pub fn bring_to_foreground(ctx: &Ctx, task: &Task) -> Result<()> {
    let is_member = |t: &Task| t.pgid == task.tty_pgrp;
    if !leads_on_terminal(task) || !ctx.image.tasks.iter().any(is_member) {
        return Ok(());
    }
    let terminal = terminal(ctx, task)?;
    let mask = signals::block_all();
    let set = sys::set_foreground(terminal, task.tty_pgrp);
    crate::sys::signal::set_mask(mask);
    fd::close(terminal);
    set.map_err(|e| {
        Error::os("cannot bring the process group to the foreground")(e).on(On::Pid(task.tty_pgrp))
    })
}
