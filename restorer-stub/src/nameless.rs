//! Files, directories and FIFOs that had no name any more, or never had one: made anew where they were, or as
//! near to it as there still is a directory.

use crate::ctx::Ctx;
use crate::files::{self, S_IFMT, S_IFREG};
use crate::report::{Error, Printable, Result, note};
use crate::sys::{CPath, Decimal, Errno, Fd, fd};
use ckpt_format::FileIdent;
use ckpt_format::file::file_flags;
use linux_raw_sys::general::*;

const S_IFDIR: u32 = 0o040_000;
const S_IFIFO: u32 = 0o010_000;

/// `__O_TMPFILE`, which comes with O_DIRECTORY.
pub const TMPFILE: u32 = 0o20_000_000;

/// What its owner needs so that we may open it again.
const OWNERS: u32 = 0o600;

/// Makes it, empty; a descriptor to read and write it (of a directory: to read; of a FIFO: O_PATH).
pub fn make(ctx: &Ctx, index: u32, file: &FileIdent, path: &'static [u8]) -> Result<Fd> {
    let made = match file.mode & S_IFMT {
        S_IFDIR => directory(ctx, file, path),
        S_IFIFO => fifo(ctx, file, path),
        _ if file.flags & file_flags::TMPFILE != 0 => {
            unnamed(ctx, index, file, path).or_else(|_| regular(ctx, file, path))
        }
        _ => regular(ctx, file, path),
    };
    let kind = file.mode & S_IFMT;
    match made {
        Ok(fd) => {
            let _ = fd::fchown(fd, file.uid, file.gid);
            Ok(fd)
        }
        Err(e) if [S_IFREG, 0].contains(&kind) => {
            note(format_args!("the deleted file {} is recreated in memory: {e}", Printable(path)));
            files::memfd(path)
        }
        Err(e) => Err(Error::os("cannot recreate what had been deleted:")(e).path(path)),
    }
}

/// Its mode, where that does not allow what we had to do with it.
pub fn set_last_mode(file: &FileIdent, base: Fd) {
    let mode = file.mode & 0o7777;
    if file.flags & file_flags::DELETED == 0 || file.mode & S_IFMT != S_IFREG || mode & OWNERS == OWNERS {
        return;
    }
    // Another process of the tree may have done it, who was the owner.
    if fd::fchmod(base, mode).is_err() && fd::fstat(base).is_ok_and(|s| s.st_mode & 0o7777 != mode) {
        note(format_args!("a deleted file keeps the mode {:o}", mode | OWNERS));
    }
}

/// Runs `f` with a name that is free: the old one, else one beside it; in the nearest directory that is there.
fn with_name<R>(
    ctx: &Ctx,
    path: &'static [u8],
    mut f: impl FnMut(&CPath) -> crate::sys::Result<R>,
) -> crate::sys::Result<R> {
    let mut result = f(&CPath::new(path)?);
    let mut hex = [0u8; 16];
    for (i, b) in ctx.image.header.uuid[..8].iter().enumerate() {
        hex[2 * i] = b"0123456789abcdef"[usize::from(b >> 4)];
        hex[2 * i + 1] = b"0123456789abcdef"[usize::from(b & 15)];
    }
    let pid = Decimal::new(crate::sys::process::getpid() as u64);
    let mut beside = path;
    loop {
        match result {
            Err(Errno::EEXIST) => {}
            Err(Errno::ENOENT | Errno::ENOTDIR) => match beside.iter().rposition(|b| *b == b'/') {
                Some(slash) if slash > 0 => beside = &beside[..slash],
                _ => return result,
            },
            _ => return result,
        }
        result = f(&CPath::concat(&[beside, b".ckpt-", &hex, b"-", pid.as_bytes()])?);
        if matches!(result, Err(Errno::EEXIST)) {
            return result;
        }
    }
}

fn regular(ctx: &Ctx, file: &FileIdent, path: &'static [u8]) -> crate::sys::Result<Fd> {
    let flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW;
    with_name(ctx, path, |name| {
        let fd = fd::open_at(Fd::CWD, name, flags, 0o600)?;
        let _ = fd::unlink(name.as_bytes());
        let _ = fd::fchmod(fd, file.mode & 0o7777 | OWNERS);
        Ok(fd)
    })
}

/// One that never had a name, and can still be given one (linkat(2)).
fn unnamed(ctx: &Ctx, index: u32, file: &FileIdent, path: &'static [u8]) -> crate::sys::Result<Fd> {
    let slash = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
    let dir = CPath::new(if slash == 0 { b"/" } else { &path[..slash] })?;
    let flags = file.open_flags & (O_ACCMODE | O_DSYNC | O_SYNC | O_LARGEFILE) | TMPFILE | O_DIRECTORY;
    let fd = fd::open_at(Fd::CWD, &dir, flags, 0o600)?;
    fd::fchmod(fd, file.mode & 0o7777 | OWNERS)?;
    if flags & O_ACCMODE == O_RDWR {
        return Ok(fd);
    }
    let base = files::reopen(fd, O_RDWR)?;
    files::set_origin(ctx, index, fd).map_err(|_| Errno::EMFILE)?;
    Ok(base)
}

fn directory(ctx: &Ctx, file: &FileIdent, path: &'static [u8]) -> crate::sys::Result<Fd> {
    with_name(ctx, path, |name| {
        fd::mkdir(name, 0o700)?;
        let opened = fd::open_at(Fd::CWD, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        if let Ok(fd) = opened {
            let _ = fd::fchmod(fd, file.mode & 0o7777);
        }
        let _ = fd::rmdir(name);
        opened
    })
}

fn fifo(ctx: &Ctx, file: &FileIdent, path: &'static [u8]) -> crate::sys::Result<Fd> {
    with_name(ctx, path, |name| {
        let mask = fd::umask(0);
        let made = fd::mkfifo(name, file.mode & 0o777 | OWNERS);
        fd::umask(mask);
        made?;
        let opened = fd::open_at(Fd::CWD, name, O_PATH | O_NOFOLLOW, 0);
        let _ = fd::unlink(name.as_bytes());
        opened
    })
}
