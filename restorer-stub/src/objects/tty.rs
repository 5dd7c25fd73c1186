//! Terminals: the caller's takes the place of the one at the dump.

use super::make::Maker;
use super::place::Placer;
use crate::files;
use crate::report::{Error, Result, note};
use crate::sys::{Fd, fd, object as sys, process};
use ckpt_format::fd::tty::Tty;
use ckpt_format::{NONE, Object, ObjectKind};
use linux_raw_sys::general::*;

/// `/dev/tty`, as `st_rdev`.
const DEV_TTY: u64 = 5 << 8;

/// A descriptor for the terminal that is not standard input, output or error, nor shares theirs.
pub fn open(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let saved: &Tty = o.ctx.image.payload(object.payload)?;
    let flags = object.open_flags & (O_ACCMODE | O_APPEND | O_NONBLOCK) | O_NOCTTY;
    let path = o.ctx.image.blob(saved.path)?;
    let terminal = o.caller.iter().flatten().copied().find(|fd| sys::is_terminal(*fd));
    let from_caller = |fd| files::reopen(fd, flags).or_else(|_| fd::dup_above(fd, o.ctx.high_fd()));
    let made = match terminal {
        Some(fd) if saved.rdev != DEV_TTY => from_caller(fd),
        Some(fd) => fd::open(b"/dev/tty", flags, 0).or_else(|_| from_caller(fd)),
        None => fd::open(b"/dev/tty", flags, 0),
    };
    let fd = made.map_err(|e| {
        Error::os("the program needs a terminal for")(e)
            .on(o.ctx.objects.on_path(o.ctx, index, path))
            .remedy("run the image from a terminal, or give a file with --fd NUMBER=PATH")
    })?;
    o.raise(fd).map(Some)
}

/// Gives the caller's terminal the program's modes, and tells the program that its window may have
/// another size, so that it draws the screen again. Not from the background, where the terminal
/// belongs to somebody else.
pub fn modes(o: &Placer) -> Result<()> {
    for (index, object) in o.ctx.image.objects.iter().enumerate() {
        let index = index as u32;
        let terminal = match ObjectKind::from_u32(object.kind) {
            Some(ObjectKind::Tty) => object,
            Some(ObjectKind::Inherited) if object.inner != NONE => o.object(object.inner)?,
            _ => continue,
        };
        let Some(fd) = o.placed(index).filter(|fd| sys::is_terminal(*fd)) else { continue };
        let saved: &Tty = o.ctx.image.payload(terminal.payload)?;
        let foreground = sys::foreground(fd).unwrap_or(0);
        if let Some(termios) = saved.termios.first_chunk::<44>()
            && termios.iter().any(|b| *b != 0)
            && o.ctx.objects.is_first(index, o.task)
            && is_ours(o, foreground)
            && let Err(e) = sys::set_termios(fd, termios)
        {
            note(format_args!("cannot set the modes of the terminal: {e}"));
        }
        const SIGWINCH: i32 = 28;
        let _ = process::kill(process::getpid(), SIGWINCH);
        return Ok(());
    }
    Ok(())
}

/// Whether a process group is one of the program's.
fn is_ours(o: &Placer, group: i32) -> bool {
    let of = |pid| sys::group_of(pid).is_ok_and(|g| g == group);
    group == sys::own_group() || o.ctx.image.tasks.iter().any(|t| of(o.ctx.map_id(t.pid)))
}
