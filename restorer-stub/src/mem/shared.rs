//! Shared memory without a name: one object, mapped wherever the program had it.

use super::map::{len, map, on};
use crate::ctx::Ctx;
use crate::files;
use crate::report::{Error, Result};
use crate::sys::{fd, mm};
use ckpt_format::file::file_flags;
use ckpt_format::{FileIdent, PAGE_SIZE, Vma, VmaKind, vma_flags};
use linux_raw_sys::general::*;

/// Holds the place of a VMA until every other one is mapped, so that what the kernel places for
/// us later collides with nothing.
pub fn reserve(vma: &Vma) -> Result<()> {
    // SAFETY: the plan put the hole outside of every VMA.
    unsafe { map(vma, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, None) }
}

fn is_object(vma: &Vma) -> bool {
    vma.kind == VmaKind::SharedObject as u32
}

/// Maps each object once, fills it, and lets all its VMAs show it.
pub fn map_objects(ctx: &Ctx, vmas: &[Vma]) -> Result<()> {
    for (i, vma) in vmas.iter().enumerate().filter(|(_, v)| is_object(v)) {
        let file = files::get(ctx, vma.file)?;
        if file.flags & file_flags::ANON_SHARED == 0 {
            map_file(ctx, vma)?;
        } else if !vmas[..i].iter().any(|v| is_object(v) && v.file == vma.file) {
            let all = vmas.iter().filter(|v| is_object(v) && v.file == vma.file);
            map_anonymous(ctx, file, all)?;
        }
    }
    Ok(())
}

/// A memfd or a deleted file: the recreated file, which descriptors may share.
fn map_file(ctx: &Ctx, vma: &Vma) -> Result<()> {
    let base = files::recreated(ctx, vma.file)?;
    let read_only = vma.flags & vma_flags::MAYWRITE == 0;
    let own = if read_only { files::reopen(base, O_RDONLY).ok() } else { None };
    // Rights only shrink later: `protect` gives the final ones.
    let prot = PROT_READ | if read_only && own.is_some() { 0 } else { PROT_WRITE };
    let norm = if vma.flags & vma_flags::NORESERVE != 0 { MAP_NORESERVE } else { 0 };
    // SAFETY: replaces the reservation.
    let mapped = unsafe { map(vma, prot, MAP_SHARED | norm, Some((own.unwrap_or(base), vma.file_offset))) };
    own.into_iter().for_each(fd::close);
    mapped
}

/// MAP_SHARED | MAP_ANONYMOUS memory. mremap(2) with old size 0 is the only way to show the same
/// object a second time, or from an offset.
fn map_anonymous<'a>(
    ctx: &Ctx,
    file: &FileIdent,
    mut vmas: impl Iterator<Item = &'a Vma> + Clone,
) -> Result<()> {
    let size = (file.size as usize).next_multiple_of(PAGE_SIZE as usize);
    let first = vmas.clone().next().ok_or(Error::new("a shared object without mappings"))?;
    let failed = |e| Error::os("cannot map shared memory")(e).on(on(first));
    let mut flags = MAP_SHARED | MAP_ANONYMOUS;
    if first.flags & vma_flags::HUGETLB != 0 {
        flags |= MAP_HUGETLB | first.hugetlb_shift << MAP_HUGE_SHIFT;
    }
    if first.flags & vma_flags::NORESERVE != 0 {
        flags |= MAP_NORESERVE;
    }
    let prot = PROT_READ | PROT_WRITE;
    if first.file_offset == 0 && len(first) == size && vmas.clone().count() == 1 {
        // SAFETY: replaces the reservation.
        unsafe { map(first, prot, flags, None) }?;
        return fill(ctx, file, first.start as usize, size);
    }
    // SAFETY: the kernel chooses a place where nothing is mapped or reserved.
    let base = unsafe { mm::mmap(0, size, prot, flags, None, 0) }.map_err(failed)?;
    fill(ctx, file, base, size)?;
    vmas.try_for_each(|vma| {
        let from = base + vma.file_offset as usize;
        if vma.file_offset.saturating_add(len(vma) as u64) > size as u64 {
            return Err(Error::new("the image is damaged: a mapping beyond its object").on(on(vma)));
        }
        // SAFETY: the target is the VMA's reservation.
        unsafe { mm::mremap_to(from, 0, len(vma), vma.start as usize) }
            .map_err(|e| Error::os("cannot map shared memory a second time")(e).on(on(vma)))
    })?;
    // SAFETY: the object lives on in its VMAs.
    unsafe { mm::munmap(base, size) }.map_err(failed)
}

fn fill(ctx: &Ctx, file: &FileIdent, base: usize, size: usize) -> Result<()> {
    // SAFETY: mapped just now, `size` bytes, read and write; the only reference to it.
    let memory = unsafe { core::slice::from_raw_parts_mut(base as *mut u8, size) };
    files::copy_extents(ctx, file.contents, b"shared memory", |bytes, offset| {
        let end = (offset as usize).saturating_add(bytes.len());
        memory.get_mut(offset as usize..end).ok_or(crate::sys::Errno::EINVAL)?.copy_from_slice(bytes);
        Ok(())
    })
}
