//! Pipes and FIFOs.

use super::make::Maker;
use super::messages;
use crate::files;
use crate::report::{Error, Result, note};
use crate::sys::{Errno, Fd, fd, object as sys};
use ckpt_format::fd::object_flags;
use ckpt_format::fd::pipe::{Pipe, pipe_flags};
use ckpt_format::{NONE, Object};
use linux_raw_sys::general::*;

const S_IFMT: u32 = 0o170_000;
const S_IFIFO: u32 = 0o010_000;

/// Slots of the pipe object's spare descriptors.
const READ: usize = 0;
const WRITE: usize = 1;

/// One end. The first one that is met makes the pipe with its contents, the last one closes the
/// descriptors that are left over (an end that nobody has).
pub fn end(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    if object.flags & object_flags::NO_WRITER_YET != 0 {
        // When nobody has it open for writing, not even we: `later`.
        return Ok(None);
    }
    let pipe = object.inner;
    let record: &Pipe = o.ctx.image.payload(o.object(pipe)?.payload)?;
    let on = match record.file {
        NONE => o.on(index),
        file => o.ctx.objects.on_path(o.ctx, index, files::path(o.ctx, files::get(o.ctx, file)?)?),
    };
    if o.kept(pipe, READ).is_none() && o.kept(pipe, WRITE).is_none() {
        create(o, pipe, record).map_err(|e| e.on(on))?;
    }
    let flags = object.open_flags & (O_ACCMODE | O_DIRECT | O_NONBLOCK);
    let slot = if flags & O_ACCMODE == O_RDONLY { READ } else { WRITE };
    let fd = match o.kept(pipe, slot) {
        // The descriptor that pipe(2) made is used up by the first end of its kind; the description
        // of a FIFO's helper reads and writes.
        Some(fd) if record.file == NONE && flags & O_ACCMODE != O_RDWR && !is_used(o, pipe, slot, index) => {
            fd::dup_above(fd, o.ctx.high_fd())
        }
        _ => {
            let any = o.kept(pipe, READ).or(o.kept(pipe, WRITE));
            let any = any.ok_or(Error::new("the image is damaged: a pipe without ends"))?;
            files::reopen(any, flags | O_NONBLOCK).and_then(|fd| {
                let high = fd::dup_above(fd, o.ctx.high_fd());
                fd::close(fd);
                high
            })
        }
    };
    let fd = fd.map_err(|e| Error::os("cannot open the pipe")(e).on(on))?;
    finish_end(o, pipe);
    Ok(Some(fd))
}

/// The reading end of a FIFO that nobody has written to.
pub fn later(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    if object.flags & object_flags::NO_WRITER_YET == 0 {
        return Ok(None);
    }
    let record: &Pipe = o.ctx.image.payload(o.object(object.inner)?.payload)?;
    let fd = fifo(o, record, O_RDONLY | O_NONBLOCK).map_err(|e| e.on(o.on(index)))?;
    o.raise(fd).map(Some)
}

/// Whether an earlier object took the end of this kind that pipe(2) made.
fn is_used(o: &Maker, pipe: u32, slot: usize, index: u32) -> bool {
    let earlier = o.ctx.image.objects.iter().take(index as usize).enumerate();
    earlier.filter(|(_, e)| e.kind == ckpt_format::ObjectKind::PipeEnd as u32 && e.inner == pipe).any(
        |(i, e)| {
            let mode = e.open_flags & O_ACCMODE;
            let same = mode == if slot == READ { O_RDONLY } else { O_WRONLY };
            same && o.is_wanted(i as u32) && o.given(i as u32).is_none()
        },
    )
}

fn finish_end(o: &Maker, pipe: u32) {
    let mut ends = o.ends.borrow_mut();
    let Some(left) = ends.get_mut(pipe as usize) else { return };
    *left = left.saturating_sub(1);
    if *left == 0 {
        let (r, w) = (o.kept(pipe, READ), o.kept(pipe, WRITE));
        r.into_iter().for_each(fd::close);
        w.into_iter().filter(|w| Some(*w) != r).for_each(fd::close);
    }
}

/// The pipe with its capacity and contents.
fn create(o: &Maker, pipe: u32, record: &Pipe) -> Result<()> {
    let packets = record.flags & pipe_flags::PACKETS != 0;
    let (r, w) = if record.file == NONE {
        let direct = if packets { O_DIRECT } else { 0 };
        let (r, w) = sys::pipe(O_NONBLOCK | direct).map_err(Error::os("cannot make a pipe"))?;
        (o.raise(r)?, o.raise(w)?)
    } else {
        let fd = o.raise(fifo(o, record, O_RDWR | O_NONBLOCK)?)?;
        (fd, fd)
    };
    o.keep(pipe, READ, Some(r));
    o.keep(pipe, WRITE, Some(w));
    // A new pipe is smaller where the user's pipes take much together (pipe-user-pages-soft).
    let failed = Error::os("cannot read the capacity of the pipe");
    if fd::fcntl(w, F_GETPIPE_SZ, 0).map_err(failed)? != record.capacity as usize
        && let Err(e) = fd::fcntl(w, F_SETPIPE_SZ, record.capacity as usize)
    {
        note(format_args!("a pipe cannot have its capacity of {} bytes: {e}", record.capacity));
    }
    for message in messages(o.ctx, o.object(pipe)?)? {
        fd::write_all(w, message.bytes).map_err(|e| {
            Error::os("cannot put back the contents of the pipe")(e)
                .remedy("raise /proc/sys/fs/pipe-max-size and pipe-user-pages-soft")
        })?;
    }
    Ok(())
}

/// A FIFO with a name, or one that had a name; `flags` do not wait for another process.
fn fifo(o: &Maker, record: &Pipe, flags: u32) -> Result<Fd> {
    let file = files::get(o.ctx, record.file)?;
    let path = files::path(o.ctx, file)?;
    if files::is_recreated(file) {
        return files::reopen(files::recreated(o.ctx, record.file)?, flags)
            .map_err(|e| Error::os("cannot open the deleted FIFO")(e).path(path));
    }
    let fd = fd::open(path, flags | O_NOCTTY, 0).map_err(|e| {
        Error::os("cannot open the FIFO")(e)
            .path(path)
            .remedy("make it (mkfifo), or give another file with --fd NUMBER=PATH")
    })?;
    let stat = fd::fstat(fd).map_err(|e: Errno| Error::os("cannot stat")(e).path(path))?;
    if stat.st_mode & S_IFMT != S_IFIFO {
        return Err(Error::new("is no longer a FIFO:").path(path).remedy("make it again (mkfifo)"));
    }
    Ok(fd)
}
