//! Regular files, directories, device nodes; memfds and deleted files.

use super::make::Maker;
use super::place::Placer;
use crate::files;
use crate::report::{Error, Result};
use crate::sys::{Errno, Fd, fd};
use ckpt_format::fd::regular::OpenFile;
use ckpt_format::{FileIdent, Image, Object};
use linux_raw_sys::general::*;

/// Flags of open(2) that concern the opening, not what is open; O_ASYNC waits for its owner.
const NOT_AGAIN: u32 = O_CREAT | O_EXCL | O_TRUNC | FASYNC;
/// `__O_TMPFILE`, which comes with O_DIRECTORY.
const TMPFILE: u32 = 0o20_000_000;

/// `struct stat::st_mode`.
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;

pub fn open(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let ctx = o.ctx;
    let saved: &OpenFile = ctx.image.payload(object.payload)?;
    let file = files::get(ctx, saved.file)?;
    let path = files::path(ctx, file)?;
    let on = o.ctx.objects.on_path(o.ctx, index, path);
    let mut flags = object.open_flags & !NOT_AGAIN | O_NOCTTY;
    if flags & TMPFILE != 0 {
        flags &= !(TMPFILE | O_DIRECTORY);
    }
    let fd = if files::is_recreated(file) {
        recreated(o, saved, flags)?
    } else {
        by_path(o, path, flags, object.open_flags, file)
            .or_else(|e| callers_own(o, index, file).ok_or(e))
            .map_err(|e| e.on(on))?
    };
    let fd = o.raise(fd)?;
    check(o, saved, file, fd).map_err(|e| e.on(on))?;
    if object.offset != 0 && flags & O_PATH == 0 {
        match fd::lseek(fd, object.offset, SEEK_SET) {
            // A device without positions.
            Ok(_) | Err(Errno::ESPIPE) => {}
            Err(e) => return Err(Error::os("cannot set the offset of")(e).on(on)),
        }
    }
    Ok(Some(fd))
}

fn recreated(o: &Maker, saved: &OpenFile, flags: u32) -> Result<Fd> {
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
    const REMEDY: &str = "bring the file back, or give another one with --fd NUMBER=PATH; --ignore-changed-files makes an empty one";
    match fd::open(path, flags, 0) {
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
fn check(o: &Maker, saved: &OpenFile, file: &FileIdent, fd: Fd) -> Result<()> {
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
    let same = (stat.st_uid, stat.st_gid, stat.st_mode) == (file.uid, file.gid, file.mode);
    if creds.uid[3] != o.ctx.caller.uids[1] && !same {
        return Err(Error::new("owner or mode is not as at the dump, and the program ran as another user:")
            .remedy("run the image as the program's user, or give the file with --fd NUMBER=PATH"));
    }
    if stat.st_rdev != file.rdev && file.mode & S_IFMT != S_IFREG {
        return Err(Error::new("another device now:").remedy("give another one with --fd NUMBER=PATH"));
    }
    if (stat.st_size as u64) < saved.min_size && !o.ctx.options.ignore_changed_files {
        return Err(Error::new("shorter than when the program was dumped:").remedy(
            "bring the file back, give another one with --fd NUMBER=PATH, or go on with --ignore-changed-files",
        ));
    }
    Ok(())
}

/// `--fd N=PATH`: opened as the descriptor was; for writing it is created when missing.
pub fn given(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let path = o.given(index).unwrap_or(b"");
    let on = o.ctx.objects.on_path(o.ctx, index, path);
    let access = object.open_flags & (O_ACCMODE | O_APPEND | O_NONBLOCK);
    let create = if access & O_ACCMODE == O_RDONLY { 0 } else { O_CREAT };
    let fd = fd::open(path, access | create | O_NOCTTY, 0o666)
        .map_err(|e| Error::os("--fd: cannot open")(e).on(on))?;
    let fd = o.raise(fd)?;
    if object.offset != 0 {
        let _ = fd::lseek(fd, object.offset, SEEK_SET);
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
