//! The stub's own place, the hole: becomes anonymous, and clears everything else.

use crate::arch;
use crate::report::{Error, On, Result};
use crate::sys::{fd, mm, process};
use ckpt_format::{PAGE_SIZE, StubConfig};
use linux_raw_sys::general::*;

/// The metadata region.
pub fn metadata(config: &StubConfig) -> &'static [u8] {
    // SAFETY: a PT_LOAD of the image, read-only and never unmapped while the stub runs.
    unsafe { core::slice::from_raw_parts(config.meta_addr as *const u8, config.meta_len as usize) }
}

fn page_up(n: usize) -> usize {
    n.next_multiple_of(PAGE_SIZE as usize)
}

/// Replaces the stub's segments and the metadata by anonymous copies of themselves. Afterwards
/// nothing of the image is mapped in the hole, which lets the exe link change (prctl(2),
/// PR_SET_MM_EXE_FILE) and the image go.
pub fn anonymise(config: &StubConfig) -> Result<()> {
    const PT_LOAD: u32 = 1;
    // SAFETY: the ELF header is the start of the stub's first segment, program headers follow in
    // the same page; both are constants.
    let phdrs = unsafe {
        let ehdr = arch::ehdr_addr() as *const u8;
        let phoff = ehdr.add(32).cast::<u64>().read() as usize;
        let phnum = ehdr.add(56).cast::<u16>().read();
        core::slice::from_raw_parts(ehdr.add(phoff).cast::<[u64; 7]>(), usize::from(phnum))
    };
    let base = config.stub_addr as usize;
    for p in phdrs.iter().filter(|p| p[0] as u32 == PT_LOAD) {
        let flags = (p[0] >> 32) as u32;
        let prot = (flags & 4) >> 2 | flags & 2 | (flags & 1) << 2;
        let start = base + (p[2] as usize & !(PAGE_SIZE as usize - 1));
        let end = page_up(base + (p[2] + p[5]) as usize);
        replace(start, end - start, prot)?;
    }
    // The name lies behind the metadata.
    let meta_end = (config.meta_addr + config.meta_len).max(config.name_addr + config.name_len);
    replace(config.meta_addr as usize, page_up((meta_end - config.meta_addr) as usize), PROT_READ)
}

fn replace(start: usize, len: usize, prot: u32) -> Result<()> {
    let failed = |e| Error::os("cannot copy the stub")(e).on(On::Range(start as u64, (start + len) as u64));
    // SAFETY: the copy goes to fresh memory; the move replaces the original by equal bytes in one
    // system call, so that neither code nor references notice. Nothing else runs.
    unsafe {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
        let copy = mm::mmap(0, len, PROT_READ | PROT_WRITE, flags, None, 0).map_err(failed)?;
        core::ptr::copy_nonoverlapping(start as *const u8, copy as *mut u8, len);
        mm::mprotect(copy, len, prot).map_err(failed)?;
        mm::mremap_to(copy, len, len, start).map_err(failed)
    }
}

/// Unmaps everything but the stub: the kernel's stack and vDSO, what the kernel mapped of the
/// image, and whatever lies in the parking place.
pub fn unmap_all(config: &StubConfig) -> Result<()> {
    let (hole, hole_end) = (config.hole_addr as usize, (config.hole_addr + config.hole_len) as usize);
    let failed = Error::os("cannot clear the address space");
    // SAFETY: everything of ours is in the hole outside the parking place (we run on a stack in
    // the work area, strings were copied).
    unsafe {
        mm::munmap(0, hole).map_err(&failed)?;
        // Above 47 bits there is something only where the kernel can map there at all.
        if mm::munmap(hole_end, arch::TASK_SIZE_LA57 - hole_end).is_err() {
            mm::munmap(hole_end, arch::TASK_SIZE - hole_end).map_err(&failed)?;
        }
        mm::munmap(config.parking_addr as usize, config.parking_len as usize).map_err(&failed)
    }
}

/// Opens the image: the descriptor that ckpt-restore passed on, else /proc/self/exe, or the path that was
/// executed where there is no /proc.
pub fn open_image(
    config: &StubConfig,
    execfn: &'static [u8],
    meta: &[u8],
    meta_offset: u64,
) -> Result<crate::sys::Fd> {
    if config.image_fd != 0 {
        // As after execve(2) of the image itself.
        let base = execfn.rsplit(|b| *b == b'/').next().unwrap_or(execfn);
        let mut name = [0; 16];
        name.iter_mut().zip(base.iter().take(15)).for_each(|(to, from)| *to = *from);
        process::set_name(&name);
        return Ok(crate::sys::Fd(config.image_fd as i32));
    }
    let fd =
        fd::open(b"/proc/self/exe", O_RDONLY, 0).or_else(|_| fd::open(execfn, O_RDONLY, 0)).map_err(|e| {
            Error::os("cannot open the image")(e)
                .path(execfn)
                .remedy("make it readable, and mount /proc or run it by its full path")
        })?;
    let mut start = [0u8; 512];
    let header = &meta[..start.len().min(meta.len())];
    let _ = fd::pread(fd, &mut start[..header.len()], meta_offset);
    if start[..header.len()] != *header {
        return Err(Error::new("this is not the image that runs (was it replaced?):").path(execfn));
    }
    Ok(fd)
}
