//! Files of the image's file table: found again by path and told apart, or recreated (deleted files
//! and memfds) once, however many descriptors and mappings share them.

use crate::args::Options;
use crate::ctx::Ctx;
use crate::mem::blocks::{self, Blocks};
use crate::mem::work::{Buffer, Work};
use crate::paths;
use crate::report::{Error, Result, note};
use crate::sys::{CPath, Decimal, Errno, Fd, fd};
use ckpt_format::content::MAX_EXTENT;
use ckpt_format::file::file_flags;
use ckpt_format::{FileIdent, Image, ObjectKind, checksum};
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use linux_raw_sys::general::*;

/// `struct stat::st_mode`.
pub const S_IFMT: u32 = 0o170_000;
pub const S_IFREG: u32 = 0o100_000;

/// One descriptor per recreated file.
pub struct Files {
    /// Paths that `--path` changes, by index in the file table.
    renamed: &'static [Option<&'static &'static [u8]>],
    /// Number + 1, by index in the file table; 0 is "not yet". Each process has its own.
    fds: &'static [AtomicI32],
    /// The same for the description that O_TMPFILE made, where that is not the one above.
    origins: &'static [AtomicI32],
    /// By the same index: 1 for a file that was missing, and made under its name. Known to all, so that
    /// it can be removed if the restore fails.
    made: &'static [AtomicU32],
    /// For copying contents.
    buffer: Buffer,
    /// The same for compressed ones.
    blocks: Buffer,
}

impl Files {
    pub fn new(work: &Work, image: &Image<'static>, options: &Options) -> Result<Self> {
        let count = image.files.len();
        Ok(Self {
            renamed: paths::of_files(work, image, options)?,
            fds: work.slice(count)?,
            origins: work.slice(count)?,
            made: work.shared_slice(count)?,
            buffer: Buffer::new(work, MAX_EXTENT as usize)?,
            blocks: Buffer::new(work, blocks::ROOM)?,
        })
    }
}

impl Files {
    /// The buffer, for as long as nothing else is copied.
    #[allow(clippy::mut_from_ref)]
    pub fn buffer(&self, len: u64) -> Option<&mut [u8]> {
        self.buffer.take(len).ok()
    }
}

/// The record of a file.
pub fn get(ctx: &Ctx, index: u32) -> Result<&'static FileIdent> {
    Ok(Image::get(ctx.image.files, index, "file")?)
}

/// Path of a file, as the caller wants it (`--path`).
pub fn path(ctx: &Ctx, file: &FileIdent) -> Result<&'static [u8]> {
    let first = ctx.image.files.as_ptr() as usize;
    let index = (core::ptr::from_ref(file) as usize).wrapping_sub(first) / size_of::<FileIdent>();
    match ctx.files.renamed.get(index) {
        Some(Some(path)) => Ok(path),
        _ => saved_path(ctx, file),
    }
}

/// The path that it had.
pub fn saved_path(ctx: &Ctx, file: &FileIdent) -> Result<&'static [u8]> {
    Ok(ctx.image.blob(file.path)?)
}

/// Whether a file has no name of its own and is made anew.
pub fn is_recreated(file: &FileIdent) -> bool {
    file.flags & (file_flags::DELETED | file_flags::MEMFD) != 0
}

/// Opens a file for the program: a new open file description with `flags` (O_*), at some number.
pub fn open(ctx: &Ctx, index: u32, flags: u32) -> Result<Fd> {
    let file = get(ctx, index)?;
    let path = path(ctx, file)?;
    if is_recreated(file) {
        let base = recreated(ctx, index)?;
        return reopen(base, flags)
            .map_err(Error::os("cannot reopen the recreated file"))
            .map_err(|e| e.path(path).remedy("mount /proc where the image runs"));
    }
    fd::open(path, flags, 0).map_err(|e| Error::os("cannot open")(e).path(path))
}

/// A new open file description of an open file.
pub fn reopen(base: Fd, flags: u32) -> crate::sys::Result<Fd> {
    let path = CPath::concat(&[b"/proc/self/fd/", Decimal::new(base.0 as u64).as_bytes()])?;
    fd::open_at(Fd::CWD, &path, flags & !(O_CREAT | O_EXCL | O_TRUNC), 0)
}

/// Whether an open file is the one that was saved: size and mtime, or size and build-id.
pub fn is_identical(ctx: &Ctx, file: &FileIdent, fd: Fd) -> bool {
    let Ok(stat) = fd::fstat(fd) else { return false };
    if stat.st_size as u64 != file.size {
        return false;
    }
    let mtime = (stat.st_mtime as i64).wrapping_mul(1_000_000_000).wrapping_add(stat.st_mtime_nsec as i64);
    if mtime == file.mtime_ns {
        return true;
    }
    let saved = ctx.image.blob(file.build_id).unwrap_or(&[]);
    let mut id = [0u8; 64];
    !saved.is_empty() && build_id(fd, &mut id).is_some_and(|found| found == saved)
}

/// The GNU build-id of an ELF file.
fn build_id(fd: Fd, out: &mut [u8; 64]) -> Option<&[u8]> {
    const PT_NOTE: u32 = 4;
    const NT_GNU_BUILD_ID: u32 = 3;
    let word = |b: &[u8], at: usize| b.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let half = |b: &[u8], at: usize| b.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let mut ehdr = [0u8; 64];
    fd::pread_exact(fd, &mut ehdr, 0).ok()?;
    if !ehdr.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let phoff = word(&ehdr, 32)?;
    let phnum = u16::from_le_bytes([ehdr[56], ehdr[57]]);
    for i in 0..u64::from(phnum) {
        let mut phdr = [0u8; 56];
        fd::pread_exact(fd, &mut phdr, phoff.checked_add(i * 56)?).ok()?;
        if half(&phdr, 0)? != PT_NOTE {
            continue;
        }
        let (mut at, len) = (word(&phdr, 8)?, word(&phdr, 32)?);
        let end = at.checked_add(len)?;
        while at.checked_add(16)? <= end {
            let mut note = [0u8; 16];
            fd::pread_exact(fd, &mut note, at).ok()?;
            let (name, desc, kind) = (half(&note, 0)?, half(&note, 4)?, half(&note, 8)?);
            let desc_at = at + 12 + u64::from(name).next_multiple_of(4);
            if kind == NT_GNU_BUILD_ID && name == 4 && &note[12..] == b"GNU\0" {
                let id = out.get_mut(..desc as usize)?;
                fd::pread_exact(fd, id, desc_at).ok()?;
                return Some(id);
            }
            at = desc_at + u64::from(desc).next_multiple_of(4);
        }
    }
    None
}

/// The one descriptor of a deleted file or memfd, created and filled at the first call. Read and
/// write; above the program's descriptors; closed before the program goes on.
pub fn recreated(ctx: &Ctx, index: u32) -> Result<Fd> {
    let slot = ctx.files.fds.get(index as usize).ok_or(Error::new("the image is damaged: bad file index"))?;
    let known = slot.load(Ordering::Relaxed);
    if known != 0 {
        return Ok(Fd(known - 1));
    }
    let file = get(ctx, index)?;
    let path = path(ctx, file)?;
    let fd = if file.flags & file_flags::MEMFD != 0 {
        let fd = memfd(path)?;
        // Before its seals: F_SEAL_EXEC forbids it, and adds others to what can be executed.
        if file.mode != 0 {
            let _ = fd::fchown(fd, file.uid, file.gid);
            let _ = fd::fchmod(fd, file.mode & 0o7777);
        }
        fd
    } else {
        crate::nameless::make(ctx, index, file, path)?
    };
    let fd = ctx.raise(fd)?;
    // The mode is 0 of what was only mapped, which an ordinary user cannot ask about.
    if [S_IFREG, 0].contains(&(file.mode & S_IFMT)) {
        fill(ctx, file, fd)?;
    }
    slot.store(fd.0 + 1, Ordering::Relaxed);
    Ok(fd)
}

/// The description that O_TMPFILE made, of a file that such a one was open of.
pub fn origin(ctx: &Ctx, index: u32) -> Result<Fd> {
    let base = recreated(ctx, index)?;
    let known = ctx.files.origins.get(index as usize).map_or(0, |slot| slot.load(Ordering::Relaxed));
    Ok(if known != 0 { Fd(known - 1) } else { base })
}

/// Keeps it for [`origin`].
pub fn set_origin(ctx: &Ctx, index: u32, fd: Fd) -> Result<()> {
    let fd = ctx.raise(fd)?;
    if let Some(slot) = ctx.files.origins.get(index as usize) {
        slot.store(fd.0 + 1, Ordering::Relaxed);
    }
    Ok(())
}

/// Recreates every file that has no name, so that all processes to come share it.
pub fn recreate_all(ctx: &Ctx) -> Result<()> {
    for (index, file) in ctx.image.files.iter().enumerate() {
        if is_recreated(file) && file.flags & file_flags::CONTENTS != 0 {
            recreated(ctx, index as u32)?;
        }
    }
    Ok(())
}

/// Makes the files that are missing, but whose contents are in the image: POSIX shared memory, after a
/// boot. By the root, alone.
pub fn make_missing(ctx: &Ctx) -> Result<()> {
    for (file, made) in ctx.image.files.iter().zip(ctx.files.made) {
        if file.flags & file_flags::CONTENTS == 0 || is_unnamed(file) {
            continue;
        }
        let path = path(ctx, file)?;
        let name = CPath::new(path).map_err(Error::os("bad path in the image"))?;
        let flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW;
        let fd = match fd::open_at(Fd::CWD, &name, flags, 0o600) {
            Err(Errno::EEXIST) => continue,
            r => r.map_err(|e| Error::os("cannot make the missing file")(e).path(path))?,
        };
        made.store(1, Ordering::SeqCst);
        fill(ctx, file, fd)?;
        let _ = fd::fchown(fd, file.uid, file.gid);
        let _ = fd::fchmod(fd, file.mode & 0o7777);
        fd::close(fd);
        note(format_args!("made {} again", crate::report::Printable(path)));
    }
    Ok(())
}

/// Of a restore that failed: removes them.
pub fn remove_made(ctx: &Ctx) {
    for (file, made) in ctx.image.files.iter().zip(ctx.files.made) {
        if made.swap(0, Ordering::SeqCst) != 0
            && let Ok(path) = path(ctx, file)
        {
            let _ = fd::unlink(path);
        }
    }
}

/// Memory or a file that no name leads to.
pub fn is_unnamed(file: &FileIdent) -> bool {
    is_recreated(file)
        || file.path.len == 0
        || file.flags & (file_flags::ANON_SHARED | file_flags::SYSV_SHM) != 0
}

/// When their memory is mapped, deleted files are kept by O_PATH only, the end of which no inotify watch
/// (or fanotify mark) hears of: some process will be the last one to close.
pub fn hush(ctx: &Ctx) -> Result<()> {
    let watchers = [ObjectKind::Inotify as u32, ObjectKind::Fanotify as u32];
    if !ctx.image.objects.iter().any(|x| watchers.contains(&x.kind)) {
        return Ok(());
    }
    for (file, slot) in ctx.image.files.iter().zip(ctx.files.fds) {
        let base = slot.load(Ordering::Relaxed);
        if base == 0 || file.flags & file_flags::DELETED == 0 {
            continue;
        }
        // Without /proc they stay as they are.
        if let Ok(quiet) = reopen(Fd(base - 1), O_PATH) {
            let placed = fd::dup_to(quiet, base - 1, true);
            fd::close(quiet);
            placed.map_err(Error::os("cannot keep a recreated file"))?;
        }
    }
    Ok(())
}

/// Closes the descriptors of recreated files: what needs them has its own by now.
pub fn close_recreated(ctx: &Ctx) {
    for (file, slot) in ctx.image.files.iter().zip(ctx.files.fds) {
        let fd = slot.swap(0, Ordering::Relaxed);
        if fd != 0 {
            crate::nameless::set_last_mode(file, Fd(fd - 1));
            fd::close(Fd(fd - 1));
        }
    }
    for slot in ctx.files.origins {
        let fd = slot.swap(0, Ordering::Relaxed);
        if fd != 0 {
            fd::close(Fd(fd - 1));
        }
    }
}

pub fn memfd(name: &'static [u8]) -> Result<Fd> {
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let name = name.strip_prefix(b"memfd:").unwrap_or(name);
    fd::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)
        .map_err(|e| Error::os("cannot create the memfd")(e).path(name))
}

/// Gives a new file its size and contents.
pub fn fill(ctx: &Ctx, file: &FileIdent, fd: Fd) -> Result<()> {
    let path = path(ctx, file)?;
    let failed = |what| move |e| Error::os(what)(e).path(path);
    fd::ftruncate(fd, file.size).map_err(failed("cannot size the recreated file"))?;
    if file.flags & file_flags::CONTENTS == 0 {
        return Ok(());
    }
    copy_extents(ctx, file.contents, path, |bytes, offset| fd::pwrite_all(fd, bytes, offset))
}

/// Reads extents of the image piece by piece, checks them and gives each to `put` with its `addr`.
pub fn copy_extents(
    ctx: &Ctx,
    range: ckpt_format::Range,
    what: &'static [u8],
    mut put: impl FnMut(&[u8], u64) -> crate::sys::Result<()>,
) -> Result<()> {
    let mut blocks = Blocks::new(ctx.files.blocks.take(blocks::ROOM as u64)?);
    for extent in Image::slice(ctx.image.extents, range, "extents")? {
        let bytes = match extent.is_compressed() {
            true => blocks.bytes(ctx.image_fd, extent).map_err(|e| e.path(what))?,
            false => {
                let bytes = ctx.files.buffer.take(extent.len)?;
                fd::pread_exact(ctx.image_fd, bytes, extent.file_offset)
                    .map_err(|e| Error::os("cannot read the image for")(e).path(what))?;
                bytes
            }
        };
        if !ctx.options.no_verify && checksum(bytes) != extent.checksum {
            return Err(Error::new("the image is damaged: wrong checksum of the contents of")
                .path(what)
                .remedy("copy or dump it again; --no-verify skips the check"));
        }
        put(bytes, extent.addr).map_err(|e| Error::os("cannot write the contents of")(e).path(what))?;
    }
    Ok(())
}
