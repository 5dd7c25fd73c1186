//! Maps every VMA of the program, and afterwards gives it its final rights and flags.
//!
//! A VMA is mapped in one piece, so that it stays one. Where contents will be filled in, and where
//! the program once could write (the kernel's accounting shows it), it is mapped writable first.

use super::{aio, map_image::Mapped, shared};
use crate::ctx::Ctx;
use crate::files;
use crate::report::{self, Error, On, Printable, Result, note};
use crate::sys::{Fd, fd, mm};
use ckpt_format::file::file_flags;
use ckpt_format::header::header_flags;
use ckpt_format::mm::GuardRange;
use ckpt_format::{Image, Mm, Vma, VmaKind, vma_flags};
use linux_raw_sys::general::*;

/// The VMAs of an address space.
pub fn vmas(ctx: &Ctx, mm: &Mm) -> Result<&'static [Vma]> {
    Ok(Image::slice(ctx.image.vmas, mm.vmas, "VMAs")?)
}

/// Private anonymous memory that need not be there before the program runs. Not stacks, which grow; what is locked has to
/// be read anyway; MADV_WIPEONFORK needs anonymous memory that is there.
pub fn is_plain(v: &Vma) -> bool {
    const NOT: u64 = vma_flags::HUGETLB
        | vma_flags::DROPPABLE
        | vma_flags::GROWSDOWN
        | vma_flags::WIPEONFORK
        | vma_flags::LOCKED
        | vma_flags::SEALED;
    v.kind == VmaKind::Anonymous as u32 && v.flags & NOT == 0
}

pub fn len(vma: &Vma) -> usize {
    (vma.end - vma.start) as usize
}

pub fn on(vma: &Vma) -> On {
    On::Range(vma.start, vma.end)
}

/// Rights while contents are being filled in.
pub fn filling_prot(vma: &Vma) -> u32 {
    let writable = vma.prot | PROT_READ | PROT_WRITE;
    let was_writable = vma.flags & vma_flags::ACCOUNT != 0 && vma.prot & PROT_WRITE == 0;
    if vma.dirty.count > 0 || was_writable { writable } else { vma.prot }
}

/// Maps everything, empty or from files. Nothing but the stub and the vDSO is mapped before.
pub fn map_all(ctx: &Ctx, mm: &Mm) -> Result<()> {
    let vmas = vmas(ctx, mm)?;
    let mapped = Mapped::of(ctx, vmas)?;
    let mut source = Source::default();
    let mut done = 0;
    for (i, vma) in vmas.iter().enumerate() {
        if i < done {
            continue;
        }
        match VmaKind::from_u32(vma.kind) {
            Some(VmaKind::Anonymous) => {
                done = i + alike(&vmas[i..]);
                anonymous(&Vma { end: vmas[done - 1].end, ..*vma })?;
                if let Some(mapped) = mapped {
                    vmas[i..done].iter().try_for_each(|v| mapped.lay(ctx, v))?;
                }
            }
            Some(VmaKind::FilePrivate) => from_file(ctx, vmas, vma, MAP_PRIVATE, &mut source)?,
            // Never writable, so a copy serves as well.
            Some(VmaKind::FileShared) if vma.embedded.count > 0 => {
                from_file(ctx, vmas, vma, MAP_SHARED, &mut source)?
            }
            Some(VmaKind::FileShared) => file_shared(ctx, vma)?,
            Some(VmaKind::SharedObject) => shared::reserve(vma)?,
            // Until its contents are there.
            Some(VmaKind::AioRing) => anonymous(vma)?,
            None => return Err(Error::new("the image has a mapping of unknown kind").on(on(vma))),
        }
        report::detail(format_args!("mapped{} {}", on(vma), Shown(ctx, vma)));
    }
    source.close();
    shared::map_objects(ctx, vmas)
}

/// A VMA for the log.
struct Shown<'a>(&'a Ctx, &'a Vma);

impl core::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self(ctx, vma) = *self;
        for (bit, letter) in [(PROT_READ, 'r'), (PROT_WRITE, 'w'), (PROT_EXEC, 'x')] {
            core::fmt::Write::write_char(f, if vma.prot & bit != 0 { letter } else { '-' })?;
        }
        match (VmaKind::from_u32(vma.kind), files::get(ctx, vma.file).and_then(|file| files::path(ctx, file)))
        {
            (Some(kind), Ok(path)) => write!(f, " {kind:?} {}", Printable(path)),
            (Some(kind), Err(_)) => write!(f, " {kind:?}"),
            (None, _) => Ok(()),
        }
    }
}

/// # Safety
/// The range of the VMA is free of anything of ours.
pub unsafe fn map(vma: &Vma, prot: u32, flags: u32, from: Option<(Fd, u64)>) -> Result<()> {
    let (fd, offset) = from.map_or((None, 0), |(fd, offset)| (Some(fd), offset));
    // SAFETY: the caller's.
    let at = unsafe { mm::mmap(vma.start as usize, len(vma), prot, flags | MAP_FIXED, fd, offset) };
    at.map_err(|e| {
        let e2 = Error::os("cannot map")(e).on(on(vma));
        match e {
            crate::sys::Errno::ENOMEM => {
                e2.remedy("free memory, or raise vm.overcommit_memory, vm.max_map_count, vm.nr_hugepages")
            }
            crate::sys::Errno::EPERM if vma.start < 0x10000 => {
                e2.remedy("lower vm.mmap_min_addr to what it was at the dump")
            }
            _ => e2,
        }
    })
    .map(drop)
}

/// How many anonymous VMAs, from the first on, are mapped alike one after the other. The kernel would make one of
/// them in any case; their own rights, flags and names part them when they are filled.
fn alike(vmas: &[Vma]) -> usize {
    const APART: u64 = vma_flags::GROWSDOWN
        | vma_flags::HUGETLB
        | vma_flags::DROPPABLE
        | vma_flags::HUGEPAGE
        | vma_flags::NOHUGEPAGE;
    let plain = |v: &Vma| v.kind == VmaKind::Anonymous as u32 && v.flags & APART == 0;
    let same = |a: &Vma, b: &Vma| {
        a.end == b.start && common_flags(a) == common_flags(b) && filling_prot(a) == filling_prot(b)
    };
    if !vmas.first().is_some_and(plain) {
        return 1;
    }
    1 + vmas.windows(2).take_while(|w| plain(&w[1]) && same(&w[0], &w[1])).count()
}

pub fn common_flags(vma: &Vma) -> u32 {
    if vma.flags & vma_flags::NORESERVE != 0 { MAP_NORESERVE } else { 0 }
}

fn anonymous(vma: &Vma) -> Result<()> {
    let mut flags = MAP_ANONYMOUS | common_flags(vma);
    if vma.flags & vma_flags::GROWSDOWN != 0 {
        flags |= MAP_GROWSDOWN;
    }
    if vma.flags & vma_flags::HUGETLB != 0 {
        flags |= MAP_HUGETLB | vma.hugetlb_shift << MAP_HUGE_SHIFT;
    }
    let prot = filling_prot(vma);
    // SAFETY: the plan put the hole, with everything of ours, outside of every VMA.
    unsafe {
        if vma.flags & vma_flags::DROPPABLE == 0 || map(vma, prot, flags | MAP_DROPPABLE, None).is_err() {
            map(vma, prot, flags | MAP_PRIVATE, None)?;
        }
        // Before the first touch, so that it decides the size of the pages.
        if vma.flags & vma_flags::HUGEPAGE != 0 {
            let _ = mm::madvise(vma.start as usize, len(vma), MADV_HUGEPAGE);
        }
        if vma.flags & vma_flags::NOHUGEPAGE != 0 {
            let _ = mm::madvise(vma.start as usize, len(vma), MADV_NOHUGEPAGE);
        }
    }
    Ok(())
}

/// The last file mapped: libraries have several mappings in a row.
#[derive(Default)]
struct Source {
    file: Option<u32>,
    fd: Option<Fd>,
    /// Maps of the stand-in are filled from embedded contents, one memfd per file.
    owned: bool,
}

impl Source {
    fn close(&mut self) {
        if let (Some(fd), true) = (self.fd.take(), self.owned) {
            fd::close(fd);
        }
        self.file = None;
    }
}

fn from_file(ctx: &Ctx, vmas: &[Vma], vma: &Vma, kind: u32, source: &mut Source) -> Result<()> {
    if source.file != Some(vma.file) {
        source.close();
        let (fd, owned) = original_or_copy(ctx, vmas, vma)?;
        *source = Source { file: Some(vma.file), fd: Some(fd), owned };
    }
    let fd = source.fd.ok_or(Error::new("no source of a mapping"))?;
    let flags = kind | common_flags(vma);
    // SAFETY: as `anonymous`.
    unsafe { map(vma, filling_prot(vma), flags, Some((fd, vma.file_offset))) }
}

/// What to map where nothing is written to the file: the original file when it is there and identical, else a memfd with the
/// embedded contents at their offsets, which acts as the file did (MADV_DONTNEED, SIGBUS at its end).
fn original_or_copy(ctx: &Ctx, vmas: &[Vma], vma: &Vma) -> Result<(Fd, bool)> {
    let file = files::get(ctx, vma.file)?;
    let path = files::path(ctx, file)?;
    if files::is_recreated(file) && file.flags & file_flags::CONTENTS != 0 {
        return Ok((files::recreated(ctx, vma.file)?, false));
    }
    let original = if files::is_recreated(file) {
        Err(Error::new("the file was deleted before the dump:").path(path))
    } else {
        fd::open(path, O_RDONLY, 0).map_err(|e| Error::os("cannot open the mapped file")(e).path(path))
    };
    match original {
        Ok(fd) if files::is_identical(ctx, file, fd) => return Ok((ctx.raise(fd)?, true)),
        Ok(fd) if ctx.image.header.flags & header_flags::EMBEDDED == 0 => {
            if ctx.options.ignore_changed_files {
                return Ok((ctx.raise(fd)?, true));
            }
            return Err(Error::new("the mapped file has changed since the dump:")
                .path(path)
                .remedy("put the old one back, dump without --no-embed, or use --ignore-changed-files"));
        }
        Ok(fd) => {
            note(format_args!("{} has changed: the copy in the image is used", ctx.image.text(file.path)));
            fd::close(fd);
        }
        Err(e) if ctx.image.header.flags & header_flags::EMBEDDED == 0 => return Err(e),
        Err(_) => {
            note(format_args!("{} is missing: the copy in the image is used", ctx.image.text(file.path)))
        }
    }
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    let fd = fd::memfd_create(name, MFD_CLOEXEC)
        .map_err(|e| Error::os("cannot make a file in memory for")(e).path(path))?;
    let fd = ctx.raise(fd)?;
    fd::ftruncate(fd, file.size).map_err(|e| Error::os("cannot size a file in memory for")(e).path(path))?;
    for v in vmas.iter().filter(|v| v.file == vma.file && v.embedded.count > 0) {
        files::copy_extents(ctx, v.embedded, path, |bytes, addr| {
            let offset = addr.wrapping_sub(v.start).wrapping_add(v.file_offset);
            // The last page reaches beyond the end of the file.
            let room = file.size.saturating_sub(offset).min(bytes.len() as u64) as usize;
            fd::pwrite_all(fd, &bytes[..room], offset)
        })?;
    }
    Ok((fd, true))
}

fn file_shared(ctx: &Ctx, vma: &Vma) -> Result<()> {
    let file = files::get(ctx, vma.file)?;
    let path = files::path(ctx, file)?;
    let access = if vma.flags & vma_flags::MAYWRITE != 0 { O_RDWR } else { O_RDONLY };
    let fd = files::open(ctx, vma.file, access)?;
    let now = fd::fstat(fd).map_err(|e| Error::os("cannot stat the mapped file")(e).path(path))?;
    if file.mode & S_IFMT == S_IFREG
        && (now.st_mode & S_IFMT != S_IFREG || (now.st_size as u64) < file.size)
        && !ctx.options.ignore_changed_files
    {
        return Err(Error::new("the mapped file is shorter than at the dump:")
            .path(path)
            .remedy("put the old one back, or use --ignore-changed-files"));
    }
    let strict = file.flags & file_flags::MUST_BE_IDENTICAL != 0 && !ctx.options.ignore_changed_files;
    if strict && !files::is_identical(ctx, file, fd) {
        return Err(Error::new("the mapped file has changed since the dump:")
            .path(path)
            .remedy("put the old one back, or use --ignore-changed-files"));
    }
    let kind = if vma.flags & vma_flags::SYNC != 0 { MAP_SHARED_VALIDATE | MAP_SYNC } else { MAP_SHARED };
    // SAFETY: as `anonymous`.
    let mapped = unsafe { map(vma, vma.prot, kind | common_flags(vma), Some((fd, vma.file_offset))) };
    fd::close(fd);
    mapped
}

/// Final rights, names and advice of every VMA, when all contents are there.
pub fn finish_all(ctx: &Ctx, mm: &Mm) -> Result<()> {
    let vmas = vmas(ctx, mm)?;
    aio::make_all(vmas)?;
    let keys = Keys::allocate(vmas)?;
    for vma in vmas {
        protect(vma)?;
        advise(ctx, vma)?;
    }
    keys.free_unused(vmas);
    for guard in Image::slice(ctx.image.guards, mm.guards, "guard ranges")? {
        install_guard(guard)?;
    }
    Ok(())
}

fn protect(vma: &Vma) -> Result<()> {
    let (start, len) = (vma.start as usize, len(vma));
    // An execute-only VMA gets its key from the kernel.
    let keyed = vma.pkey != 0 && vma.prot != PROT_EXEC;
    let now = match VmaKind::from_u32(vma.kind) {
        Some(VmaKind::Anonymous | VmaKind::FilePrivate) => filling_prot(vma),
        Some(VmaKind::SharedObject) => PROT_READ | PROT_WRITE,
        _ => vma.prot,
    };
    // SAFETY: a mapping of the program; the filling is over.
    unsafe {
        if keyed {
            mm::pkey_mprotect(start, len, vma.prot, vma.pkey)
        } else if now != vma.prot {
            mm::mprotect(start, len, vma.prot)
        } else {
            Ok(())
        }
    }
    .map_err(|e| Error::os("cannot set the rights of")(e).on(on(vma)))
}

/// Protection keys are allocated in order; those that no VMA uses are given back.
struct Keys {
    allocated: [bool; 16],
}

impl Keys {
    fn allocate(vmas: &[Vma]) -> Result<Self> {
        let mut keys = Self { allocated: [false; 16] };
        for vma in vmas.iter().filter(|v| v.pkey != 0 && v.prot != PROT_EXEC) {
            while !keys.allocated.get(vma.pkey as usize).copied().unwrap_or(true) {
                let key = mm::pkey_alloc().map_err(|e| {
                    Error::os("cannot allocate a protection key")(e)
                        .on(on(vma))
                        .remedy("this CPU or kernel lacks protection keys (pku)")
                })?;
                keys.allocated[key as usize & 15] = true;
            }
        }
        Ok(keys)
    }

    fn free_unused(&self, vmas: &[Vma]) {
        for key in (1..16u32).filter(|k| self.allocated[*k as usize]) {
            if !vmas.iter().any(|v| v.pkey == key) {
                mm::pkey_free(key);
            }
        }
    }
}

/// Flags that madvise(2) sets, and the name.
fn advise(ctx: &Ctx, vma: &Vma) -> Result<()> {
    const ADVICE: [(u64, u32); 7] = [
        (vma_flags::SEQUENTIAL, MADV_SEQUENTIAL),
        (vma_flags::RANDOM, MADV_RANDOM),
        (vma_flags::DONTFORK, MADV_DONTFORK),
        (vma_flags::WIPEONFORK, MADV_WIPEONFORK),
        (vma_flags::DONTDUMP, MADV_DONTDUMP),
        (vma_flags::MERGEABLE, MADV_MERGEABLE),
        (vma_flags::NOHUGEPAGE, MADV_NOHUGEPAGE),
    ];
    let droppable = vma.flags & vma_flags::DROPPABLE != 0;
    for (flag, advice) in ADVICE {
        if vma.flags & flag == 0 {
            continue;
        }
        // SAFETY: none of these drops contents.
        let done = unsafe { mm::madvise(vma.start as usize, len(vma), advice) };
        // KSM and huge pages may be absent; a droppable mapping implies the others.
        let optional = droppable || matches!(advice, MADV_MERGEABLE | MADV_NOHUGEPAGE);
        if let Err(e) = done
            && !optional
        {
            return Err(Error::os("cannot set a flag (madvise) of")(e).on(on(vma)));
        }
    }
    // What is not anonymous was not advised before.
    if vma.flags & vma_flags::HUGEPAGE != 0 && vma.kind != VmaKind::Anonymous as u32 {
        // SAFETY: drops no contents.
        let _ = unsafe { mm::madvise(vma.start as usize, len(vma), MADV_HUGEPAGE) };
    }
    if vma.name.len > 0 {
        // CONFIG_ANON_VMA_NAME may be off: a name is for people only.
        let _ = mm::set_anon_name(vma.start as usize, len(vma), ctx.image.blob(vma.name)?);
    }
    Ok(())
}

fn install_guard(guard: &GuardRange) -> Result<()> {
    let on = On::Range(guard.start, guard.start + guard.len);
    // SAFETY: the program's own guard pages: they have no contents.
    unsafe { mm::madvise(guard.start as usize, guard.len as usize, MADV_GUARD_INSTALL) }.map_err(|e| {
        Error::os("cannot install guard pages")(e).on(on).remedy("guard pages need Linux 6.13 or newer")
    })
}

/// Locks memory, then seals it: nothing changes mappings afterwards.
pub fn lock_and_seal(ctx: &Ctx, mm: &Mm) -> Result<()> {
    use ckpt_format::mm::mm_flags;
    let vmas = vmas(ctx, mm)?;
    for vma in vmas.iter().filter(|v| v.flags & vma_flags::LOCKED != 0) {
        let flags = if vma.flags & vma_flags::LOCK_ONFAULT != 0 { MLOCK_ONFAULT } else { 0 };
        mm::mlock2(vma.start as usize, len(vma), flags).map_err(|e| {
            Error::os("cannot lock memory")(e)
                .on(on(vma))
                .remedy("raise the limit of locked memory (ulimit -l)")
        })?;
    }
    if mm.flags & mm_flags::LOCK_FUTURE != 0 {
        let onfault = if mm.flags & mm_flags::LOCK_FUTURE_ONFAULT != 0 { MCL_ONFAULT } else { 0 };
        mm::mlockall(MCL_FUTURE | onfault).map_err(|e| {
            Error::os("cannot lock future memory (mlockall)")(e)
                .remedy("raise the limit of locked memory (ulimit -l)")
        })?;
    }
    for vma in vmas.iter().filter(|v| v.flags & vma_flags::SEALED != 0) {
        mm::mseal(vma.start as usize, len(vma))
            .map_err(|e| Error::os("cannot seal")(e).on(on(vma)).remedy("mseal needs Linux 6.10 or newer"))?;
    }
    Ok(())
}
