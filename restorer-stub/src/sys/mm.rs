//! Address space calls. All are unsafe: the caller (`mem/`) says why nothing live is hit.

use super::{Fd, Result, sys};
use linux_raw_sys::general::*;

/// mmap(2); `fd` None is -1.
///
/// # Safety
/// With MAP_FIXED, nothing that is still needed lies in the range.
pub unsafe fn mmap(
    addr: usize,
    len: usize,
    prot: u32,
    flags: u32,
    fd: Option<Fd>,
    offset: u64,
) -> Result<usize> {
    let fd = fd.map_or(-1, |fd| fd.0);
    // SAFETY: the caller's.
    unsafe { sys!(__NR_mmap, addr, len, prot, flags, fd as isize, offset) }
}

/// # Safety
/// Nothing that is still needed lies in the range.
pub unsafe fn munmap(addr: usize, len: usize) -> Result<()> {
    // SAFETY: the caller's.
    unsafe { sys!(__NR_munmap, addr, len) }.map(drop)
}

/// # Safety
/// No live reference needs a right that is taken away.
pub unsafe fn mprotect(addr: usize, len: usize, prot: u32) -> Result<()> {
    // SAFETY: the caller's.
    unsafe { sys!(__NR_mprotect, addr, len, prot) }.map(drop)
}

/// # Safety
/// As `mprotect`.
pub unsafe fn pkey_mprotect(addr: usize, len: usize, prot: u32, pkey: u32) -> Result<()> {
    // SAFETY: the caller's.
    unsafe { sys!(__NR_pkey_mprotect, addr, len, prot, pkey) }.map(drop)
}

/// pkey_alloc(2): the next free key, without restrictions.
pub fn pkey_alloc() -> Result<u32> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_pkey_alloc, 0, 0) }.map(|k| k as u32)
}

pub fn pkey_free(key: u32) {
    // SAFETY: touches no memory.
    let _ = unsafe { sys!(__NR_pkey_free, key) };
}

/// mremap(2) with MREMAP_MAYMOVE | MREMAP_FIXED. `old_len` 0 duplicates a shared mapping.
///
/// # Safety
/// Nothing that is still needed lies in the target range; no live reference into the old one.
pub unsafe fn mremap_to(old: usize, old_len: usize, new_len: usize, new: usize) -> Result<()> {
    // SAFETY: the caller's.
    unsafe { sys!(__NR_mremap, old, old_len, new_len, MREMAP_MAYMOVE | MREMAP_FIXED, new) }.map(drop)
}

/// # Safety
/// No live reference depends on contents that the advice drops.
pub unsafe fn madvise(addr: usize, len: usize, advice: u32) -> Result<()> {
    // SAFETY: the caller's.
    unsafe { sys!(__NR_madvise, addr, len, advice) }.map(drop)
}

/// Whether the page at `addr` is mapped (mincore(2) answers ENOMEM where it is not).
pub fn is_mapped(addr: usize) -> bool {
    let mut residency = 0u8;
    // SAFETY: the kernel writes one byte for the one page asked about.
    unsafe { sys!(__NR_mincore, addr, 1, &raw mut residency) }.is_ok()
}

pub fn mlock2(addr: usize, len: usize, flags: u32) -> Result<()> {
    // SAFETY: changes residency only.
    unsafe { sys!(__NR_mlock2, addr, len, flags) }.map(drop)
}

pub fn mlockall(flags: u32) -> Result<()> {
    // SAFETY: changes residency only.
    unsafe { sys!(__NR_mlockall, flags) }.map(drop)
}

pub fn mseal(addr: usize, len: usize) -> Result<()> {
    // SAFETY: forbids changes of mappings, which nobody of ours makes any more.
    unsafe { sys!(__NR_mseal, addr, len, 0) }.map(drop)
}

/// preadv(2) into raw memory.
///
/// # Safety
/// The ranges are writable memory without live references.
pub unsafe fn preadv(fd: Fd, ranges: &[iovec], offset: u64) -> Result<usize> {
    // SAFETY: the caller's.
    unsafe { sys!(__NR_preadv, fd.0, ranges.as_ptr(), ranges.len(), offset, 0) }
}

/// arch_prctl(ARCH_MAP_VDSO_64): maps vvar and vDSO from `addr` on, and gives the length of the
/// code. EEXIST while there is one. `arch/x86/entry/vdso/vma.c`, map_vdso_once().
pub fn map_vdso(addr: usize) -> Result<usize> {
    const ARCH_MAP_VDSO_64: usize = 0x2003;
    // SAFETY: maps into free address space only (the address is a hint without MAP_FIXED).
    unsafe { sys!(__NR_arch_prctl, ARCH_MAP_VDSO_64, addr) }
}

/// prctl(PR_SET_VMA_ANON_NAME); the name is copied by the kernel.
pub fn set_anon_name(addr: usize, len: usize, name: &[u8]) -> Result<()> {
    use linux_raw_sys::prctl::{PR_SET_VMA, PR_SET_VMA_ANON_NAME};
    let name = super::CPath::new(name)?;
    // SAFETY: the name is NUL-terminated and only read.
    unsafe { sys!(__NR_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, addr, len, name.as_ptr()) }.map(drop)
}

/// prctl(PR_SET_MM, PR_SET_MM_MAP).
pub fn set_mm_map(map: &linux_raw_sys::prctl::prctl_mm_map) -> Result<()> {
    use linux_raw_sys::prctl::{PR_SET_MM, PR_SET_MM_MAP};
    let size = size_of_val(map);
    // SAFETY: the record, and the auxv it points to, are only read.
    unsafe { sys!(__NR_prctl, PR_SET_MM, PR_SET_MM_MAP, core::ptr::from_ref(map), size, 0) }.map(drop)
}
