//! System V shared memory: contents of segments, and the VMAs that show them.

use super::map::{len, on};
use crate::ctx::Ctx;
use crate::files;
use crate::report::{Error, On, Result};
use crate::sys::{ipc, mm};
use ckpt_format::file::file_flags;
use ckpt_format::{PAGE_SIZE, SysvShm, Vma, VmaKind, vma_flags};
use linux_raw_sys::general::MADV_REMOVE;

/// Fills a segment that nobody has attached. What the image does not hold becomes zero: it may be an old
/// one.
pub fn fill(ctx: &Ctx, shm: &SysvShm) -> Result<()> {
    let failed = |e| Error::os("cannot attach shared memory: id")(e).on(On::Number(shm.perm.id as u64));
    let base = ipc::attach(shm.perm.id, false).map_err(failed)?;
    let size = whole(shm);
    if ipc::was_used(shm.perm.id) {
        // SAFETY: the segment alone is there, which nobody else has attached, and no reference to it.
        unsafe {
            if mm::madvise(base, size, MADV_REMOVE).is_err() {
                core::ptr::write_bytes(base as *mut u8, 0, size);
            }
        }
    }
    // SAFETY: attached just now, `size` bytes, read and write; the only reference to it.
    let memory = unsafe { core::slice::from_raw_parts_mut(base as *mut u8, size) };
    let file = files::get(ctx, shm.file)?;
    files::copy_extents(ctx, file.contents, b"System V shared memory", |bytes, offset| {
        let end = (offset as usize).saturating_add(bytes.len());
        memory.get_mut(offset as usize..end).ok_or(crate::sys::Errno::EINVAL)?.copy_from_slice(bytes);
        Ok(())
    })?;
    // SAFETY: `memory` is used no more.
    unsafe { ipc::detach(base) }.map_err(failed)
}

/// Length when attached.
fn whole(shm: &SysvShm) -> usize {
    let page = if shm.hugetlb_shift == 0 { PAGE_SIZE } else { 1 << (shm.hugetlb_shift & 63) };
    (shm.size as usize).next_multiple_of(page as usize)
}

/// Whether a VMA shows a segment.
pub fn is_segment(ctx: &Ctx, vma: &Vma) -> bool {
    vma.kind == VmaKind::SharedObject as u32
        && files::get(ctx, vma.file).is_ok_and(|f| f.flags & file_flags::SYSV_SHM != 0)
}

/// What one shmat(2) made: shmdt(2) takes all that is left of it away at once, by its address.
fn attach_of(vma: &Vma) -> (u32, u64, bool) {
    (vma.file, vma.start.wrapping_sub(vma.file_offset), vma.flags & vma_flags::MAYWRITE == 0)
}

/// Lets all VMAs show their segments. Their places are reserved, and everything else is mapped.
pub fn attach(ctx: &Ctx, vmas: &[Vma]) -> Result<()> {
    for (i, first) in vmas.iter().enumerate().filter(|(_, v)| is_segment(ctx, v)) {
        let attached = attach_of(first);
        let same = |v: &&Vma| v.kind == first.kind && attach_of(v) == attached;
        if vmas[..i].iter().any(|v| same(&v)) {
            continue;
        }
        let failed = |e| Error::os("cannot attach System V shared memory")(e).on(on(first));
        let shm = ctx.image.shms.iter().find(|s| s.file == first.file);
        let shm = shm.ok_or(Error::new("the image is damaged: a mapping without its segment"))?;
        let base = ipc::attach(shm.perm.id, attached.2).map_err(failed)?;
        let size = whole(shm);
        for vma in vmas.iter().filter(same) {
            if vma.file_offset.saturating_add(len(vma) as u64) > size as u64 {
                return Err(Error::new("the image is damaged: a mapping beyond its segment").on(on(vma)));
            }
            let from = base + vma.file_offset as usize;
            // SAFETY: from what was attached just now to the VMA's reservation.
            unsafe { mm::mremap_to(from, len(vma), len(vma), vma.start as usize) }
                .map_err(|e| Error::os("cannot move shared memory")(e).on(on(vma)))?;
        }
        // SAFETY: the parts that the program does not show any more; nothing was mapped here since.
        unsafe { mm::munmap(base, size) }.map_err(failed)?;
    }
    Ok(())
}
