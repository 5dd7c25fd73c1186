//! `--memory map`: private anonymous memory stays a private mapping of the image.
//!
//! Nothing is read before the program runs, and copies of the program share the pages that none of them
//! changes. It is not the same as anonymous memory: MADV_DONTNEED gives the saved bytes back instead of
//! zeros, mremap(2) lets memory grow into what follows in the image, /proc/PID/maps shows the image. Nor
//! are checksums of such pages verified. What is too small or special is read as always.

use super::map;
use crate::ctx::Ctx;
use crate::report::{Error, Result};
use crate::sys::{Fd, mm};
use ckpt_format::{Extent, Image, Vma, vma_flags};
use linux_raw_sys::general::*;

/// Shorter runs are read: that is quicker than a mapping and its faults.
const LEAST: u64 = 64 << 10;
/// Most mappings of an address space, which may have 65530 (vm.max_map_count) with the program's own.
const MOST: usize = 8 << 10;

/// Which stored bytes of an address space are mapped: runs of at least so many bytes, one after the
/// other in memory and in the image.
#[derive(Clone, Copy)]
pub struct Mapped {
    least: u64,
}

impl Mapped {
    /// `None` where nothing is to be mapped.
    pub fn of(ctx: &Ctx, vmas: &[Vma]) -> Result<Option<Self>> {
        if !ctx.options.maps_memory() {
            return Ok(None);
        }
        let mut mapped = Self { least: LEAST };
        while mapped.count(ctx, vmas)? > MOST {
            mapped.least *= 2;
        }
        Ok(Some(mapped))
    }

    fn count(self, ctx: &Ctx, vmas: &[Vma]) -> Result<usize> {
        vmas.iter().filter(|v| fits(v)).try_fold(0, |n, v| Ok(n + self.runs(most(ctx, v)?).count()))
    }

    /// The runs that are mapped, of a VMA that fits.
    fn runs(self, extents: &[Extent]) -> impl Iterator<Item = &[Extent]> {
        extents.chunk_by(follows).filter(move |run| length(run) >= self.least)
    }

    /// Whether the extent at `index` in those of a VMA is mapped. Looks no further than it has to.
    pub fn has(self, vma: &Vma, extents: &[Extent], index: usize) -> bool {
        let extents = without_end(vma, extents);
        let Some(own) = extents.get(index).filter(|_| fits(vma)) else { return false };
        let mut found = own.len;
        let behind = extents[index..].windows(2).take_while(|p| follows(&p[0], &p[1])).map(|p| p[1].len);
        let before =
            extents[..=index].windows(2).rev().take_while(|p| follows(&p[0], &p[1])).map(|p| p[0].len);
        behind
            .chain(before)
            .take_while(|len| {
                let more = found < self.least;
                found += len;
                more
            })
            .for_each(drop);
        found >= self.least
    }

    /// Lays the runs over a VMA that is mapped already.
    pub fn lay(self, ctx: &Ctx, vma: &Vma) -> Result<()> {
        if !fits(vma) {
            return Ok(());
        }
        self.runs(most(ctx, vma)?).try_for_each(|run| lay_run(ctx.image_fd, vma, run))
    }
}

fn most(ctx: &Ctx, vma: &Vma) -> Result<&'static [Extent]> {
    Ok(without_end(vma, Image::slice(ctx.image.extents, vma.dirty, "extents")?))
}

/// The end of a VMA is always read: so mremap(2) of the whole fails (EFAULT: two VMAs), upon which realloc(3)
/// copies, and does not let it grow to behind the end of the image, where there is SIGBUS.
fn without_end<'a>(vma: &Vma, extents: &'a [Extent]) -> &'a [Extent] {
    match extents {
        [most @ .., last] if last.addr.checked_add(last.len) == Some(vma.end) => most,
        _ => extents,
    }
}

fn follows(a: &Extent, b: &Extent) -> bool {
    a.addr.checked_add(a.len) == Some(b.addr) && a.file_offset.checked_add(a.len) == Some(b.file_offset)
}

fn length(run: &[Extent]) -> u64 {
    run.iter().map(|e| e.len).sum()
}

/// Memory that a private mapping of a file can stand for: not code, as the image may lie where none is executed.
fn fits(v: &Vma) -> bool {
    map::is_plain(v) && v.prot & PROT_EXEC == 0
}

fn lay_run(image: Fd, vma: &Vma, run: &[Extent]) -> Result<()> {
    let (Some(first), len) = (run.first(), length(run)) else { return Ok(()) };
    let end = first.addr.checked_add(len).filter(|end| *end <= vma.end);
    if first.addr < vma.start || end.is_none() {
        return Err(Error::new("the image is damaged: contents outside of").on(map::on(vma)));
    }
    let flags = MAP_PRIVATE | MAP_FIXED | map::common_flags(vma);
    let prot = map::filling_prot(vma);
    // SAFETY: replaces a part of a VMA of the program that was mapped just now.
    unsafe { mm::mmap(first.addr as usize, len as usize, prot, flags, Some(image), first.file_offset) }
        .map_err(|e| Error::os("cannot map the image at")(e).on(map::on(vma)).remedy("use --memory eager"))
        .map(drop)?;
    if vma.flags & vma_flags::HUGEPAGE != 0 {
        // SAFETY: the mapping made above; drops no contents.
        let _ = unsafe { mm::madvise(first.addr as usize, len as usize, MADV_HUGEPAGE) };
    }
    Ok(())
}
