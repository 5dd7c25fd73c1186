//! Shared memory without a name: one object, mapped wherever the program had it.

use super::map::{len, map, on};
use super::sysv;
use crate::ctx::Ctx;
use crate::files;
use crate::report::{Error, On, Result};
use crate::sys::{fd, mm};
use ckpt_format::file::file_flags;
use ckpt_format::stub::SHARED_ALIGN;
use ckpt_format::{FileIdent, PAGE_SIZE, Vma, VmaKind, vma_flags};
use linux_raw_sys::general::*;

/// Holds the place of a VMA until every other one is mapped, so that what the kernel places for
/// us later collides with nothing.
pub fn reserve(vma: &Vma) -> Result<()> {
    // SAFETY: the plan put the hole outside of every VMA.
    unsafe { map(vma, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, None) }
}

/// Objects that several address spaces map: made once, in the shared area, which all processes inherit.
pub fn create_several(ctx: &Ctx) -> Result<()> {
    for (index, file) in ctx.image.files.iter().enumerate() {
        let Some(base) = place_of(ctx, index) else { continue };
        let size = (file.size as usize).next_multiple_of(PAGE_SIZE as usize);
        let end = (ctx.config.shared_addr + ctx.config.shared_len) as usize;
        let failed = |e| Error::os("cannot make shared memory")(e).on(On::Number(file.size));
        if base.checked_add(size).is_none_or(|e| e > end) {
            return Err(Error::new("the image is damaged: too little room for shared memory"));
        }
        let uses = ctx.image.vmas.iter().find(|v| is_object(v) && v.file as usize == index);
        let flags = object_flags(uses.ok_or(Error::new("a shared object without mappings"))?);
        // SAFETY: inside the shared area of the hole, which nothing else uses.
        unsafe { mm::mmap(base, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE, None, 0) }
            .map_err(failed)?;
        fill(ctx, file, base, size)?;
    }
    Ok(())
}

/// Where an object of several address spaces is in the shared area; `None` for others.
fn place_of(ctx: &Ctx, index: usize) -> Option<usize> {
    let several = |f: &&FileIdent| f.flags & file_flags::SEVERAL_MMS != 0;
    ctx.image.files.get(index).filter(several)?;
    let before = ctx.image.files.iter().take(index).filter(several);
    let offset: u64 = before.map(|f| f.size.next_multiple_of(SHARED_ALIGN)).sum();
    Some((ctx.config.shared_addr + offset) as usize)
}

/// For mmap(2) of shared memory without a file.
fn object_flags(vma: &Vma) -> u32 {
    let mut flags = MAP_SHARED | MAP_ANONYMOUS;
    if vma.flags & vma_flags::HUGETLB != 0 {
        flags |= MAP_HUGETLB | vma.hugetlb_shift << MAP_HUGE_SHIFT;
    }
    if vma.flags & vma_flags::NORESERVE != 0 {
        flags |= MAP_NORESERVE;
    }
    flags
}

fn is_object(vma: &Vma) -> bool {
    vma.kind == VmaKind::SharedObject as u32
}

/// Maps each object once, fills it, and lets all its VMAs show it.
pub fn map_objects(ctx: &Ctx, vmas: &[Vma]) -> Result<()> {
    for (i, vma) in vmas.iter().enumerate().filter(|(_, v)| is_object(v)) {
        let file = files::get(ctx, vma.file)?;
        if sysv::is_segment(ctx, vma) {
            continue;
        }
        if file.flags & file_flags::ANON_SHARED == 0 {
            map_file(ctx, vma)?;
        } else if !vmas[..i].iter().any(|v| is_object(v) && v.file == vma.file) {
            let all = vmas.iter().filter(|v| is_object(v) && v.file == vma.file);
            map_anonymous(ctx, file, all)?;
        }
    }
    sysv::attach(ctx, vmas)
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
    let flags = object_flags(first);
    if let Some(base) = place_of(ctx, first.file as usize) {
        return vmas.try_for_each(|vma| show(vma, base, size));
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
    vmas.try_for_each(|vma| show(vma, base, size))?;
    // SAFETY: the object lives on in its VMAs.
    unsafe { mm::munmap(base, size) }.map_err(failed)
}

/// Lets a VMA show its part of the object that is mapped as a whole at `base`.
fn show(vma: &Vma, base: usize, size: usize) -> Result<()> {
    if vma.file_offset.saturating_add(len(vma) as u64) > size as u64 {
        return Err(Error::new("the image is damaged: a mapping beyond its object").on(on(vma)));
    }
    let from = base + vma.file_offset as usize;
    // SAFETY: the target is the VMA's reservation.
    unsafe { mm::mremap_to(from, 0, len(vma), vma.start as usize) }
        .map_err(|e| Error::os("cannot map shared memory a second time")(e).on(on(vma)))
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
