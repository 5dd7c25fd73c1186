//! The vDSO: back at the address that libc and the auxiliary vector know.
//!
//! With the same kernel code as at the dump it is simply mapped there. Otherwise the saved code
//! stays at the old address as ordinary memory, and each function in it becomes a jump to the
//! function of that name in this kernel's vDSO, or a plain system call where there is none.

use crate::ctx::Ctx;
use crate::report::{Error, On, Result, note};
use crate::sys::mm;
use ckpt_format::{Mm, PAGE_SIZE};
use linux_raw_sys::general::*;

/// What must not be unmapped with the hole: the new vDSO on the path with patched code.
pub type Kept = Option<core::ops::Range<usize>>;

/// Places the vDSO. Nothing but the stub is mapped.
pub fn place(ctx: &Ctx, saved: &Mm) -> Result<Kept> {
    if saved.vdso_addr == 0 {
        return Ok(None);
    }
    let code = ctx.image.blob(saved.vdso_code)?;
    let Some(new) = New::map(ctx) else {
        note(format_args!("this kernel does not map the vDSO on request: plain system calls instead"));
        patch_saved(ctx, saved, code, None)?;
        return Ok(None);
    };
    if new.vvar_len() as u64 == saved.vvar_len && new.code() == code {
        let end = saved.vvar_addr + (new.end - new.start) as u64;
        new.unmap()?;
        let at = mm::map_vdso(saved.vvar_addr as usize);
        if at.is_ok() && mm::is_mapped(saved.vdso_addr as usize) {
            return Ok(None);
        }
        return Err(Error::new("cannot map the vDSO at").on(On::Range(saved.vvar_addr, end)));
    }
    note(format_args!("the vDSO of this kernel is another one: the saved code jumps to it"));
    let new = new.move_to_end(ctx)?;
    patch_saved(ctx, saved, code, Some(&new))?;
    Ok(Some(new.start..new.end))
}

/// This kernel's vDSO with its data pages, in the parking place.
struct New {
    start: usize,
    code_start: usize,
    end: usize,
}

impl New {
    fn map(ctx: &Ctx) -> Option<Self> {
        Self::map_at(ctx, ctx.config.parking_addr as usize)
    }

    fn map_at(ctx: &Ctx, start: usize) -> Option<Self> {
        let page = PAGE_SIZE as usize;
        let code_len = mm::map_vdso(start).ok()?.next_multiple_of(page);
        let limit = (ctx.config.parking_addr + ctx.config.parking_len) as usize;
        // Data pages first, then code, without a gap (map_vdso() in arch/x86/entry/vdso/vma.c).
        let end = (start..limit).step_by(page).find(|at| !mm::is_mapped(*at)).unwrap_or(limit);
        (end >= start + code_len && end > start).then(|| Self { start, code_start: end - code_len, end })
    }

    fn vvar_len(&self) -> usize {
        self.code_start - self.start
    }

    fn code(&self) -> &[u8] {
        // SAFETY: mapped r-x by the kernel just now, for as long as `self` is used.
        unsafe { core::slice::from_raw_parts(self.code_start as *const u8, self.end - self.code_start) }
    }

    fn unmap(&self) -> Result<()> {
        // SAFETY: only the vDSO lies there, which nobody of ours uses.
        unsafe { mm::munmap(self.start, self.end - self.start) }.map_err(Error::os("cannot unmap the vDSO"))
    }

    /// To the end of the parking place, so that the rest of the hole goes in one piece.
    fn move_to_end(self, ctx: &Ctx) -> Result<Self> {
        let limit = (ctx.config.parking_addr + ctx.config.parking_len) as usize;
        let start = limit - (self.end - self.start);
        self.unmap()?;
        Self::map_at(ctx, start).ok_or(Error::new("cannot map the vDSO a second time"))
    }
}

/// Maps the saved code as ordinary memory, its functions redirected.
fn patch_saved(ctx: &Ctx, saved: &Mm, code: &[u8], new: Option<&New>) -> Result<()> {
    for t in ctx.image.threads {
        if (saved.vdso_addr..saved.vdso_addr + saved.vdso_len).contains(&t.regs.rip) {
            return Err(Error::new("this kernel has another vDSO, and the dump caught inside it the thread")
                .on(On::Pid(t.tid))
                .remedy("dump again, or restore on the kernel of the dump"));
        }
    }
    let (addr, len) = (saved.vdso_addr as usize, saved.vdso_len as usize);
    let failed = Error::os("cannot map the saved vDSO");
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    // SAFETY: nothing of ours is at the program's vDSO address (the hole overlaps nothing).
    let copy = unsafe {
        mm::mmap(addr, len, PROT_READ | PROT_WRITE, flags, None, 0).map_err(&failed)?;
        core::slice::from_raw_parts_mut(addr as *mut u8, len)
    };
    let known = code.len().min(len);
    copy[..known].copy_from_slice(&code[..known]);
    let old = Elf::parse(code).ok_or(Error::new("the image is damaged: its vDSO is no ELF file"))?;
    let new_elf = new.and_then(|n| Elf::parse(n.code()));
    for (name, at) in old.functions() {
        let target = new_elf
            .as_ref()
            .and_then(|e| e.functions().find(|(n, _)| *n == name))
            .and_then(|(_, at)| new.map(|n| n.code_start + at));
        let body = target.map(jump_to).or_else(|| plain_call(name));
        if let (Some((bytes, n)), Some(place)) = (body, copy.get_mut(at..)) {
            let n = n.min(place.len());
            place[..n].copy_from_slice(&bytes[..n]);
        }
    }
    // SAFETY: `copy` is not used again.
    unsafe { mm::mprotect(addr, len, PROT_READ | PROT_EXEC) }.map_err(&failed)
}

type Body = ([u8; 16], usize);

/// movabs $target, %rax; jmp *%rax. rax is free at the entry of a function.
fn jump_to(target: usize) -> Body {
    let mut b = [0u8; 16];
    b[..2].copy_from_slice(&[0x48, 0xb8]);
    b[2..10].copy_from_slice(&(target as u64).to_le_bytes());
    b[10..12].copy_from_slice(&[0xff, 0xe0]);
    (b, 12)
}

/// mov $nr, %eax; syscall; ret: the calls take the arguments of the functions, whose further
/// arguments (getrandom's state) are not needed.
fn plain_call(name: &[u8]) -> Option<Body> {
    let name = name.strip_prefix(b"__vdso_").unwrap_or(name);
    let nr = match name {
        b"clock_gettime" => __NR_clock_gettime,
        b"gettimeofday" => __NR_gettimeofday,
        b"time" => __NR_time,
        b"getcpu" => __NR_getcpu,
        b"clock_getres" => __NR_clock_getres,
        b"getrandom" => __NR_getrandom,
        _ => return None,
    };
    let mut b = [0u8; 16];
    b[0] = 0xb8;
    b[1..5].copy_from_slice(&nr.to_le_bytes());
    b[5..8].copy_from_slice(&[0x0f, 0x05, 0xc3]);
    Some((b, 8))
}

/// The dynamic symbols of a vDSO. Its addresses start at 0, as file offsets.
struct Elf<'a> {
    bytes: &'a [u8],
    symtab: usize,
    strtab: usize,
}

impl<'a> Elf<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        const PT_DYNAMIC: u64 = 2;
        const DT_STRTAB: u64 = 5;
        const DT_SYMTAB: u64 = 6;
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let phoff = word(32)? as usize;
        let phnum = usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
        let dynamic = (0..phnum)
            .map(|i| phoff + i * 56)
            .find(|at| word(*at).is_some_and(|w| w & 0xffff_ffff == PT_DYNAMIC))?;
        let (mut at, end) = (word(dynamic + 8)? as usize, word(dynamic + 8)? + word(dynamic + 32)?);
        let (mut symtab, mut strtab) = (0, 0);
        while (at as u64) < end && word(at)? != 0 {
            match word(at)? {
                DT_STRTAB => strtab = word(at + 8)? as usize,
                DT_SYMTAB => symtab = word(at + 8)? as usize,
                _ => {}
            }
            at += 16;
        }
        (symtab != 0 && strtab > symtab).then_some(Self { bytes, symtab, strtab })
    }

    /// Name and offset of every function. The symbols end where the strings begin, as every linker
    /// lays them out.
    fn functions(&self) -> impl Iterator<Item = (&'a [u8], usize)> {
        let (bytes, strtab) = (self.bytes, self.strtab);
        (self.symtab..self.strtab).step_by(24).filter_map(move |at| {
            let sym = bytes.get(at..at + 24)?;
            let name_at = strtab + u32::from_le_bytes(sym[..4].try_into().ok()?) as usize;
            let value = u64::from_le_bytes(sym[8..16].try_into().ok()?) as usize;
            let defined = sym[6] != 0 || sym[7] != 0;
            let name = bytes.get(name_at..)?.split(|b| *b == 0).next()?;
            (sym[4] & 15 == 2 && defined && value != 0).then_some((name, value))
        })
    }
}
