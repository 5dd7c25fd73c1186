//! inotify instances. Watches are the last thing that is made: what the restore itself does to files is
//! nothing that the program should hear of.

use super::make::Maker;
use super::place::Placer;
use crate::files;
use crate::report::{Error, Result};
use crate::sys::{CPath, Decimal, Errno, Fd, fd, object as sys};
use ckpt_format::fd::inotify::{Inotify, InotifyWatch, inotify_flags};
use ckpt_format::{Image, Object, Span};
use linux_raw_sys::general::{IN_ATTRIB, IN_CLOEXEC, IN_DELETE_SELF, IN_DONT_FOLLOW, MFD_CLOEXEC};

pub fn create(o: &Maker, index: u32, _: &'static Object) -> Result<Option<Fd>> {
    let fd = sys::inotify_init(IN_CLOEXEC).map_err(|e| {
        let error = Error::os("cannot make the inotify instance")(e).on(o.on(index));
        match e {
            Errno::EMFILE => error.remedy("raise fs.inotify.max_user_instances (sysctl)"),
            _ => error,
        }
    })?;
    o.raise(fd).map(Some)
}

/// Whether the process will have another root directory when it has its memory: paths are the caller's.
pub(super) fn changes_root(o: &Placer) -> bool {
    let root = Image::get(o.ctx.image.fs_infos, o.task.fs, "root").and_then(|fs| o.ctx.image.blob(fs.root));
    root.is_ok_and(|root| !root.is_empty() && root != b"/")
}

/// With the descriptors, where the paths lead elsewhere later.
pub fn watch_early(o: &Placer, fd: Fd, object: &'static Object) -> Result<()> {
    if changes_root(o) { watch(o, fd, object) } else { Ok(()) }
}

pub fn watch_late(o: &Placer, fd: Fd, object: &'static Object) -> Result<()> {
    if changes_root(o) { Ok(()) } else { watch(o, fd, object) }
}

/// When no file is opened or closed any more: what has been heard of so far is our own noise.
pub fn settle(o: &Placer, fd: Fd, object: &'static Object) -> Result<()> {
    let head: &Inotify = o.ctx.image.payload(object.payload)?;
    let failed = |e| Error::os("cannot empty the inotify instance")(e).on(o.on(fd.0));
    drain(fd).map_err(failed)?;
    if head.flags & inotify_flags::OVERFLOW != 0 {
        overflow(fd).map_err(|e| Error::os("cannot have events overflow")(e).on(o.on(fd.0)))?;
    }
    Ok(())
}

/// All watches with their numbers, which the kernel gives in ascending order (inotify_add_to_idr): those in
/// between are used up by a watch that is removed at once.
fn watch(o: &Placer, fd: Fd, object: &'static Object) -> Result<()> {
    let head: &Inotify = o.ctx.image.payload(object.payload)?;
    let len = u64::from(head.count) * size_of::<InotifyWatch>() as u64;
    let span = Span { offset: object.payload.offset + size_of::<Inotify>() as u64, len };
    let mut next = 1;
    for watch in o.ctx.image.records::<InotifyWatch>(span)? {
        let file = files::get(o.ctx, watch.file)?;
        let name = files::path(o.ctx, file)?;
        let failed = |e| error(e, name);
        use_up(fd, &mut next, watch.wd).map_err(failed)?;
        let wd = if files::is_recreated(file) {
            let base = files::recreated(o.ctx, watch.file)?;
            let path = CPath::concat(&[b"/proc/self/fd/", Decimal::new(base.0 as u64).as_bytes()]);
            path.and_then(|path| sys::inotify_add(fd, &path, watch.mask))
        } else {
            CPath::new(name).and_then(|path| sys::inotify_add(fd, &path, watch.mask | IN_DONT_FOLLOW))
        }
        .map_err(failed)?;
        if wd != watch.wd {
            return Err(Error::new("another inotify watch has the number of the one on").path(name));
        }
        next = wd + 1;
    }
    Ok(())
}

fn error(e: Errno, path: &'static [u8]) -> Error {
    let error = Error::os("cannot watch (inotify)")(e).path(path);
    match e {
        Errno::ENOENT => error.remedy("bring it back where it was when the program was dumped"),
        Errno::ENOSPC => error.remedy("raise fs.inotify.max_user_watches (sysctl)"),
        _ => error,
    }
}

/// Removed watches leave an event each, and the queue has room for so many.
const DRAIN_EVERY: i32 = 1000;

fn use_up(fd: Fd, next: &mut i32, wanted: i32) -> crate::sys::Result<()> {
    let here = CPath::new(b".")?;
    while *next < wanted {
        let wd = sys::inotify_add(fd, &here, IN_DELETE_SELF)?;
        sys::inotify_remove(fd, wd)?;
        if wd >= wanted || wd < *next {
            return Err(Errno::EBUSY);
        }
        *next = wd + 1;
        if *next % DRAIN_EVERY == 0 {
            drain(fd)?;
        }
    }
    Ok(())
}

/// Reads all that waits, if anything does.
fn drain(fd: Fd) -> crate::sys::Result<()> {
    let mut events = [0u8; 4096];
    while sys::waiting_bytes(fd)? > 0 {
        fd::read(fd, &mut events)?;
    }
    Ok(())
}

/// Leaves IN_Q_OVERFLOW in the queue, and nothing else: the queue is filled until that comes, with events of
/// two watches in turn, as equal ones are merged. (Since Linux 6.14 nobody hears of writes to a memfd, but
/// of changes to its mode.)
fn overflow(fd: Fd) -> crate::sys::Result<()> {
    /// `struct inotify_event` without a name.
    const EVENT: usize = 16;
    const ROUND: usize = 512;
    const MOST_ROUNDS: usize = 1 << 13;
    let watched = [watched_memfd(fd)?, watched_memfd(fd)?];
    let mut full = 0;
    for round in 1..=MOST_ROUNDS {
        for i in 0..ROUND {
            fd::fchmod(watched[i % 2].0, 0o600)?;
        }
        full = sys::waiting_bytes(fd)?;
        if full < round * ROUND * EVENT {
            break;
        }
    }
    for (file, wd) in watched {
        // That event is dropped, as the queue is full.
        sys::inotify_remove(fd, wd)?;
        fd::close(file);
    }
    let mut events = [0u8; 256 * EVENT];
    let mut rest = full.saturating_sub(EVENT);
    while rest > 0 {
        let len = rest.min(events.len());
        rest = rest.saturating_sub(fd::read(fd, &mut events[..len])?);
    }
    Ok(())
}

fn watched_memfd(fd: Fd) -> crate::sys::Result<(Fd, i32)> {
    let file = fd::memfd_create(b"ckpt", MFD_CLOEXEC)?;
    let path = CPath::concat(&[b"/proc/self/fd/", Decimal::new(file.0 as u64).as_bytes()])?;
    Ok((file, sys::inotify_add(fd, &path, IN_ATTRIB)?))
}
