//! Regular files, directories, device nodes; memfds and deleted files.

use super::make::Maker;
use super::place::Placer;
use crate::ctx::Ctx;
use crate::files::{self, S_IFMT, S_IFREG};
use crate::nameless::TMPFILE;
use crate::report::{Error, Result};
use crate::sys::{CPath, Decimal, Errno, Fd, fd, process};
use ckpt_format::fd::regular::{OpenFile, open_file_flags};
use ckpt_format::{FileIdent, Image, Object, ObjectKind};
use linux_raw_sys::general::*;

/// Flags of open(2) that concern the opening, not what is open; O_ASYNC waits for its owner.
const NOT_AGAIN: u32 = O_CREAT | O_EXCL | O_TRUNC | FASYNC;

pub fn open(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let ctx = o.ctx;
    let saved: &OpenFile = ctx.image.payload(object.payload)?;
    let file = files::get(ctx, saved.file)?;
    let path = files::path(ctx, file)?;
    let on = o.ctx.objects.on_path(o.ctx, index, path);
    if saved.flags & open_file_flags::OPEN_LATE != 0 {
        // By the process that has it: `open_late`.
        return Ok(None);
    }
    let flags = object.open_flags & !NOT_AGAIN | O_NOCTTY;
    let fd = if files::is_recreated(file) {
        recreated(o, saved, flags)?
    } else if saved.flags & open_file_flags::OF_PROCESS != 0 {
        let root = process::getpid();
        fd::open_at(Fd::CWD, &of_process(ctx, files::saved_path(ctx, file)?, root)?, flags, 0)
            .map_err(|e| Error::os("cannot open")(e).on(on))?
    } else {
        let create = if is_fresh(ctx, object, file) { O_CREAT } else { 0 };
        by_path(o, path, flags | create, object.open_flags, file)
            .or_else(|e| callers_own(o, index, file).ok_or(e))
            .map_err(|e| e.on(on))?
    };
    let fd = o.raise(fd)?;
    let min_size = if is_fresh(ctx, object, file) { 0 } else { saved.min_size };
    check(o, saved, file, fd, min_size).map_err(|e| e.on(on))?;
    position(object, saved, flags, fd).map_err(|e| e.on(on))?;
    Ok(Some(fd))
}

/// A log that `--path` leads to another place: may be missing there, or shorter. What is only ever written at its
/// end has no offset that counts.
fn is_fresh(ctx: &Ctx, object: &Object, file: &FileIdent) -> bool {
    object.open_flags & (O_ACCMODE | O_APPEND) == O_WRONLY | O_APPEND
        && file.mode & S_IFMT == S_IFREG
        && files::path(ctx, file).ok() != files::saved_path(ctx, file).ok()
}

/// The offset, and whether changes have been seen.
fn position(object: &Object, saved: &OpenFile, flags: u32, fd: Fd) -> Result<()> {
    if flags & O_PATH != 0 || saved.flags & open_file_flags::SEEK_LATE != 0 {
        return Ok(());
    }
    if object.offset == 0 && saved.flags & open_file_flags::SEEN != 0 {
        // A position is found by reading; see kernfs_seq_start() in fs/kernfs/file.c.
        let _ = fd::pread(fd, &mut [0], 0);
    }
    if object.offset != 0 {
        match fd::lseek(fd, object.offset, SEEK_SET) {
            // A device without positions.
            Ok(_) | Err(Errno::ESPIPE) => {}
            Err(e) => return Err(Error::os("cannot set the offset of")(e)),
        }
    }
    Ok(())
}

/// `/proc/PID/...` with the id that the process has now, and the thread's in `task/TID`.
fn of_process(ctx: &Ctx, path: &'static [u8], pid: i32) -> Result<CPath> {
    const TASK: &[u8] = b"/task/";
    let bad = || Error::new("the image is damaged: not a file of a process:").path(path);
    let digits = |s: &'static [u8]| s.iter().take_while(|b| b.is_ascii_digit()).count();
    let number = |s: &[u8]| s.iter().fold(0i32, |n, b| n.wrapping_mul(10).wrapping_add(i32::from(b - b'0')));
    let rest = path.strip_prefix(b"/proc/").ok_or_else(bad)?;
    let rest = &rest[digits(rest)..];
    let pid = Decimal::new(pid as u64);
    let thread = rest.strip_prefix(TASK).filter(|r| digits(r) > 0);
    match thread {
        None => CPath::concat(&[b"/proc/", pid.as_bytes(), rest]),
        Some(thread) => {
            let (tid, rest) = thread.split_at(digits(thread));
            let tid = Decimal::new(ctx.map_id(number(tid)) as u64);
            CPath::concat(&[b"/proc/", pid.as_bytes(), TASK, tid.as_bytes(), rest])
        }
    }
    .map_err(Error::os("bad path in the image"))
}

/// Whether [`open_late`] opens it.
pub fn is_late(ctx: &Ctx, index: u32) -> Result<bool> {
    let object: &Object = Image::get(ctx.image.objects, index, "object")?;
    if object.kind != ObjectKind::File as u32 {
        return Ok(false);
    }
    let saved: &OpenFile = ctx.image.payload(object.payload)?;
    Ok(saved.flags & open_file_flags::OPEN_LATE != 0)
}

/// Files of processes that were not there when everything else was opened, and positions in those that say
/// something else by now.
pub fn open_late(o: &Placer) -> Result<()> {
    for (index, object) in o.ctx.image.objects.iter().enumerate() {
        let index = index as u32;
        if object.kind != ObjectKind::File as u32 || o.given(index).is_some() || !o.is_first(index) {
            continue;
        }
        let saved: &OpenFile = o.ctx.image.payload(object.payload)?;
        let path = files::saved_path(o.ctx, files::get(o.ctx, saved.file)?)?;
        let on = o.ctx.objects.on_path(o.ctx, index, path);
        let flags = object.open_flags & !NOT_AGAIN | O_NOCTTY;
        if saved.flags & open_file_flags::OPEN_LATE != 0 {
            let path = of_process(o.ctx, path, o.ctx.map_id(saved.pid))?;
            let fd = fd::open_at(Fd::CWD, &path, flags, 0).map_err(|e| Error::os("cannot open")(e).on(on))?;
            let fd = o.ctx.raise(fd)?;
            for entry in o.fds.iter().filter(|e| e.object == index) {
                fd::dup_to(fd, entry.fd, entry.cloexec != 0)
                    .map_err(|e| Error::os("cannot place the descriptor")(e).on(on))?;
            }
            fd::close(fd);
        }
        if let Some(fd) = o.placed(index).filter(|_| saved.flags & open_file_flags::SEEK_LATE != 0) {
            fd::lseek(fd, object.offset, SEEK_SET)
                .map_err(|e| Error::os("cannot set the offset of")(e).on(on))?;
        }
    }
    Ok(())
}

fn recreated(o: &Maker, saved: &OpenFile, flags: u32) -> Result<Fd> {
    if flags & TMPFILE != 0 {
        let origin = files::origin(o.ctx, saved.file)?;
        let same = fd::fcntl(origin, F_GETFL, 0).is_ok_and(|now| (now as u32 ^ flags) & O_ACCMODE == 0);
        if same {
            return fd::dup_above(origin, 0).map_err(Error::os("cannot duplicate the recreated file"));
        }
    }
    let flags = if flags & TMPFILE != 0 { flags & !(TMPFILE | O_DIRECTORY) } else { flags };
    match files::open(o.ctx, saved.file, flags) {
        // Without /proc the one description of ours must do.
        Err(_) if flags & O_ACCMODE == O_RDWR => {
            let base = files::recreated(o.ctx, saved.file)?;
            fd::dup_above(base, 0).map_err(Error::os("cannot duplicate the recreated file"))
        }
        other => other,
    }
}

fn by_path(o: &Maker, path: &'static [u8], flags: u32, saved: u32, file: &FileIdent) -> Result<Fd> {
    const REMEDY: &str = "bring the file back, or give another one with --fd NUMBER=PATH or --path OLD=NEW; --ignore-changed-files makes an empty one";
    match fd::open(path, flags, file.mode & 0o777) {
        Ok(fd) => Ok(fd),
        Err(Errno::ENOENT)
            if o.ctx.options.ignore_changed_files
                && file.mode & S_IFMT == S_IFREG
                && saved & O_ACCMODE != O_RDONLY =>
        {
            fd::open(path, flags | O_CREAT, file.mode & 0o777).map_err(Error::os("cannot create"))
        }
        Err(Errno::ENOENT) => Err(Error::os("cannot open")(Errno::ENOENT).remedy(REMEDY)),
        // O_NOATIME is for the file's owner only, and changes nothing that the program sees.
        Err(Errno::EPERM) if flags & O_NOATIME != 0 => {
            fd::open(path, flags & !O_NOATIME, 0).map_err(Error::os("cannot open"))
        }
        Err(e @ (Errno::EACCES | Errno::EPERM)) => Err(Error::os("cannot open")(e).remedy(
            "its mode or flags do not allow any more what it was open for: chmod or chattr it, run the image as root, or give another file with --fd NUMBER=PATH",
        )),
        Err(e) => Err(Error::os("cannot open")(e).remedy("give another file with --fd NUMBER=PATH")),
    }
}

/// Standard input or output that somebody else opened for the program, as a shell of root's does: the
/// caller's descriptor, where that is the same file.
fn callers_own(o: &Maker, index: u32, file: &FileIdent) -> Option<Fd> {
    let number = usize::try_from(o.number(index)).ok()?;
    let given = o.caller.get(number).copied().flatten()?;
    let stat = fd::fstat(given).ok()?;
    if (stat.st_dev, stat.st_ino) != (file.dev, file.ino) {
        return None;
    }
    fd::dup_above(given, o.ctx.high_fd()).ok()
}

/// It must be of the same type, and not shorter.
fn check(o: &Maker, saved: &OpenFile, file: &FileIdent, fd: Fd, min_size: u64) -> Result<()> {
    let stat = fd::fstat(fd).map_err(Error::os("cannot stat"))?;
    if stat.st_mode & S_IFMT != file.mode & S_IFMT {
        return Err(
            Error::new("no longer a file of the same type:").remedy("give another one with --fd NUMBER=PATH")
        );
    }
    // Who restores for another user must not lend that user own rights to what is now under the path.
    let task = o.ctx.task()?;
    let leader = o.ctx.threads(task)?[0];
    let creds = Image::get(o.ctx.image.creds, leader.creds, "credentials")?;
    // What is made anew, or belongs to the process, has no rights to lend.
    let own = files::is_recreated(file) || saved.flags & open_file_flags::OF_PROCESS != 0;
    let same = own || (stat.st_uid, stat.st_gid, stat.st_mode) == (file.uid, file.gid, file.mode);
    if creds.uid[3] != o.ctx.caller.uids[1] && !same {
        return Err(Error::new("owner or mode is not as at the dump, and the program ran as another user:")
            .remedy("run the image as the program's user, or give the file with --fd NUMBER=PATH"));
    }
    if stat.st_rdev != file.rdev && file.mode & S_IFMT != S_IFREG {
        return Err(Error::new("another device now:").remedy("give another one with --fd NUMBER=PATH"));
    }
    if (stat.st_size as u64) < min_size && !o.ctx.options.ignore_changed_files {
        return Err(Error::new("shorter than when the program was dumped:").remedy(
            "bring the file back, give another one with --fd NUMBER=PATH, or go on with --ignore-changed-files",
        ));
    }
    Ok(())
}

/// `--fd N=PATH`: opened as the descriptor was, at its offset, or at the end of a file that is shorter; for writing it is
/// created when missing.
pub fn given(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let path = o.given(index).unwrap_or(b"");
    let on = o.ctx.objects.on_path(o.ctx, index, path);
    let access = object.open_flags & (O_ACCMODE | O_APPEND | O_NONBLOCK);
    let create = if access & O_ACCMODE == O_RDONLY { 0 } else { O_CREAT };
    let fd = fd::open(path, access | create | O_NOCTTY, 0o666)
        .map_err(|e| Error::os("--fd: cannot open")(e).on(on))?;
    let fd = o.raise(fd)?;
    if object.offset != 0 {
        // A new log does not begin with a hole where the old one was.
        let size = fd::fstat(fd)
            .map_or(0, |s| if s.st_mode & S_IFMT == S_IFREG { s.st_size as u64 } else { u64::MAX });
        let _ = fd::lseek(fd, object.offset.min(size), SEEK_SET);
    }
    Ok(Some(fd))
}

/// F_ADD_SEALS, after the mappings that they would forbid.
pub fn seal(o: &Placer, number: Fd, object: &'static Object) -> Result<()> {
    let saved: &OpenFile = o.ctx.image.payload(object.payload)?;
    if saved.seals == 0 {
        return Ok(());
    }
    let base = files::recreated(o.ctx, saved.file)?;
    fd::fcntl(base, F_ADD_SEALS, saved.seals as usize)
        .map(drop)
        .map_err(|e| Error::os("cannot seal the memfd")(e).on(o.on(number.0)))
}
