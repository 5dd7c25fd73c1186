//! fanotify groups. Marks are the last thing that is made, as inotify's watches are.

use super::inotify::changes_root;
use super::make::Maker;
use super::place::Placer;
use crate::ctx::Mode;
use crate::files;
use crate::report::{Error, Result};
use crate::sys::{CPath, Decimal, Errno, Fd, fanotify as sys, fd, object, process};
use ckpt_format::fd::fanotify::{Fanotify, FanotifyMark, fanotify_flags};
use ckpt_format::{Object, Span};

/// include/uapi/linux/fanotify.h
const FAN_CLOEXEC: u32 = 1;
const FAN_UNLIMITED_QUEUE: u32 = 0x10;
const FAN_MARK_ADD: u32 = 1;
const FAN_MARK_REMOVE: u32 = 2;
const FAN_MARK_DONT_FOLLOW: u32 = 4;
const FAN_MARK_MOUNT: u32 = 0x10;
const FAN_MARK_IGNORED_MASK: u32 = 0x20;
const FAN_MARK_IGNORED_SURV_MODIFY: u32 = 0x40;
const FAN_MARK_EVICTABLE: u32 = 0x200;
const FAN_MARK_IGNORE: u32 = 0x400;
/// FAN_ACCESS, FAN_MODIFY, FAN_CLOSE, FAN_OPEN, FAN_OPEN_EXEC: what every mark takes.
const ANY_MARK: u64 = 0x103b;

const CAP_SYS_ADMIN: u64 = 1 << 21;

pub fn create(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let head: &Fanotify = o.ctx.image.payload(object.payload)?;
    let made =
        if head.state & fanotify_flags::UNPRIVILEGED != 0 { unprivileged(head) } else { privileged(head) };
    let fd = made.map_err(|e| {
        let error = Error::os("cannot make the fanotify group")(e).on(o.on(index));
        match e {
            Errno::EMFILE => error.remedy("raise fs.fanotify.max_user_groups (sysctl)"),
            Errno::EPERM => error.remedy("run the image as root (CAP_SYS_ADMIN)"),
            _ => error,
        }
    })?;
    o.raise(fd).map(Some)
}

/// An ordinary user gets a group that tells less, without a word: a second one that only root can have
/// shows who we are.
fn privileged(head: &Fanotify) -> crate::sys::Result<Fd> {
    fd::close(sys::init(FAN_UNLIMITED_QUEUE | FAN_CLOEXEC, 0)?);
    sys::init(head.flags | FAN_CLOEXEC, head.event_flags)
}

fn unprivileged(head: &Fanotify) -> crate::sys::Result<Fd> {
    let caps = process::caps();
    if caps.effective & CAP_SYS_ADMIN == 0 {
        return sys::init(head.flags | FAN_CLOEXEC, head.event_flags);
    }
    process::set_caps(process::Caps { effective: caps.effective & !CAP_SYS_ADMIN, ..caps })?;
    let made = sys::init(head.flags | FAN_CLOEXEC, head.event_flags);
    process::set_caps(caps)?;
    made
}

/// With the descriptors, where the paths lead elsewhere later.
pub fn mark_early(o: &Placer, fd: Fd, object: &'static Object) -> Result<()> {
    if changes_root(o) { mark_all(o, fd, object) } else { Ok(()) }
}

pub fn mark_late(o: &Placer, fd: Fd, object: &'static Object) -> Result<()> {
    if changes_root(o) { Ok(()) } else { mark_all(o, fd, object) }
}

fn mark_all(o: &Placer, fd: Fd, object: &'static Object) -> Result<()> {
    let head: &Fanotify = o.ctx.image.payload(object.payload)?;
    let len = u64::from(head.count) * size_of::<FanotifyMark>() as u64;
    let span = Span { offset: object.payload.offset + size_of::<Fanotify>() as u64, len };
    for mark in o.ctx.image.records::<FanotifyMark>(span)? {
        mark_one(o, fd, mark)?;
    }
    Ok(())
}

fn mark_one(o: &Placer, fd: Fd, mark: &FanotifyMark) -> Result<()> {
    let file = files::get(o.ctx, mark.file)?;
    let name = files::path(o.ctx, file)?;
    if mark.on == FAN_MARK_MOUNT && o.ctx.mode() == Mode::Ns {
        return Err(Error::new(
            "a fanotify mark is on the mount of the one on, of which a pid namespace needs a copy",
        )
        .path(name)
        .remedy("use --pid same or --pid new"));
    }
    let base = if files::is_recreated(file) { Some(files::recreated(o.ctx, mark.file)?) } else { None };
    let (path, follow) = match base {
        Some(base) => (CPath::concat(&[b"/proc/self/fd/", Decimal::new(base.0 as u64).as_bytes()]), 0),
        None => (CPath::new(name), FAN_MARK_DONT_FOLLOW),
    };
    let path = path.map_err(|e| failed(e, name))?;
    if mark.on != 0 && !sys::is_mount_point(&path).map_err(|e| failed(e, name))? {
        return Err(Error::new("a fanotify mark is on what was mounted at the one on, where nothing is now")
            .path(name)
            .remedy("mount it again"));
    }
    let on = mark.on | follow | mark.flags & FAN_MARK_EVICTABLE;
    ignore(fd, mark, on, &path, name)?;
    if mark.mask != 0 {
        sys::mark(fd, FAN_MARK_ADD | on, mark.mask, &path).map_err(|e| failed(e, name))?;
    }
    Ok(())
}

/// First of all the ignore mask. The kernel leaves it out without a word when somebody has the file open for
/// writing (fanotify_add_inode_mark()): then there is no mark yet.
fn ignore(fd: Fd, mark: &FanotifyMark, on: u32, path: &CPath, name: &'static [u8]) -> Result<()> {
    if mark.ignored == 0 {
        return Ok(());
    }
    let kind = if mark.flags & FAN_MARK_IGNORE != 0 { FAN_MARK_IGNORE } else { FAN_MARK_IGNORED_MASK };
    let flags = FAN_MARK_ADD | on | kind | mark.flags & FAN_MARK_IGNORED_SURV_MODIFY;
    sys::mark(fd, flags, mark.ignored, path).map_err(|e| failed(e, name))?;
    // To remove a bit that it does not have changes nothing, but shows that there is a mark.
    let others = ANY_MARK & !mark.ignored;
    let other = others & others.wrapping_neg();
    if other == 0 {
        return Ok(());
    }
    let flags = FAN_MARK_REMOVE | mark.on | on & FAN_MARK_DONT_FOLLOW | kind;
    let flags = flags | mark.flags & FAN_MARK_IGNORED_SURV_MODIFY;
    match sys::mark(fd, flags, other, path) {
        Err(Errno::ENOENT) => {
            Err(Error::new("events cannot be ignored (fanotify): somebody has it open for writing")
                .path(name)
                .remedy("end that first"))
        }
        r => r.map_err(|e| failed(e, name)),
    }
}

fn failed(e: Errno, path: &'static [u8]) -> Error {
    let error = Error::os("cannot mark (fanotify)")(e).path(path);
    match e {
        Errno::ENOENT => error.remedy("bring it back where it was when the program was dumped"),
        Errno::ENOSPC => error.remedy("raise fs.fanotify.max_user_marks (sysctl)"),
        _ => error,
    }
}

/// When no file is opened or closed any more: what has been heard of so far is our own noise.
pub fn settle(o: &Placer, fd: Fd, _: &'static Object) -> Result<()> {
    drain(fd).map_err(|e| Error::os("cannot empty the fanotify group")(e).on(o.on(fd.0)))
}

/// Reads all that waits, if anything does. Events come with open files.
fn drain(group: Fd) -> crate::sys::Result<()> {
    let mut events = [0u8; 4096];
    let mut waiting = object::waiting_bytes(group)?;
    while waiting > 0 {
        let read = fd::read(group, &mut events);
        if let Ok(len) = read {
            close_files(&events[..len]);
        }
        let before = waiting;
        waiting = object::waiting_bytes(group)?;
        // An event whose file cannot be opened is gone all the same.
        if waiting >= before {
            read?;
        }
    }
    Ok(())
}

/// `struct fanotify_event_metadata`: length, version, reserved, its own length, mask, file, process; then
/// records, among them `struct fanotify_event_info_pidfd`.
fn close_files(mut events: &[u8]) {
    const FAN_EVENT_INFO_TYPE_PIDFD: u8 = 4;
    let close = |bytes: &[u8], at: usize| {
        let number = bytes.get(at..at + 4).map_or(-1, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        if number >= 0 {
            fd::close(Fd(number));
        }
    };
    while events.len() >= 24 {
        let len = u32::from_ne_bytes([events[0], events[1], events[2], events[3]]) as usize;
        let Some((event, rest)) = events.split_at_checked(len.max(24)) else { return };
        close(event, 16);
        let mut infos = event.get(usize::from(u16::from_ne_bytes([event[6], event[7]]))..).unwrap_or(&[]);
        while infos.len() >= 4 {
            let len = usize::from(u16::from_ne_bytes([infos[2], infos[3]])).max(4);
            let Some((info, more)) = infos.split_at_checked(len) else { break };
            if info[0] == FAN_EVENT_INFO_TYPE_PIDFD {
                close(info, 4);
            }
            infos = more;
        }
        events = rest;
    }
}
