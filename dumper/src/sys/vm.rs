//! Memory of other processes: PAGEMAP_SCAN, and process_vm_readv with many pieces.

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;

/// `PAGE_IS_*` of `include/uapi/linux/fs.h`: writes to it are tracked, and since when it was protected there was one.
pub const PAGE_IS_WPALLOWED: u64 = 1;
pub const PAGE_IS_WRITTEN: u64 = 1 << 1;
pub const PAGE_IS_FILE: u64 = 1 << 2;
pub const PAGE_IS_PRESENT: u64 = 1 << 3;
pub const PAGE_IS_SWAPPED: u64 = 1 << 4;
pub const PAGE_IS_PFNZERO: u64 = 1 << 5;
/// Linux 6.15.
pub const PAGE_IS_GUARD: u64 = 1 << 8;

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageRegion {
    pub start: u64,
    pub end: u64,
    pub categories: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: u64 = 0xc060_6610;
const _: () = assert!(size_of::<ScanArg>() == 0x60);

/// Which pages [`pagemap_scan`] reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// All of these categories must be present.
    pub all_of: u64,
    /// All of these categories must be absent.
    pub none_of: u64,
    /// One of these must be present.
    pub any_of: u64,
    /// Categories that are told (and that regions are divided by).
    pub tell: u64,
    /// Protect those that it reports, and only look where that can be done (PM_SCAN_WP_MATCHING).
    pub protect: bool,
}

/// ioctl(PAGEMAP_SCAN) on `/proc/PID/pagemap`, Linux 6.7: fills `regions` from `start` on; returns how
/// many, and where the walk ended (`end` when it is complete).
///
/// # Errors
/// ENOTTY on older kernels, EINVAL when a category is not known.
pub fn pagemap_scan(
    pagemap: &File,
    start: u64,
    end: u64,
    wanted: Wanted,
    regions: &mut [PageRegion],
) -> Result<(usize, u64)> {
    let mut arg = ScanArg {
        size: size_of::<ScanArg>() as u64,
        flags: u64::from(wanted.protect),
        start,
        end,
        walk_end: 0,
        vec: regions.as_mut_ptr() as u64,
        vec_len: regions.len() as u64,
        max_pages: 0,
        category_inverted: wanted.none_of,
        category_mask: wanted.all_of | wanted.none_of,
        category_anyof_mask: wanted.any_of,
        return_mask: wanted.tell,
    };
    // SAFETY: `arg` has the layout of `struct pm_scan_arg`; its `vec` points at `vec_len` writable
    // elements with the layout of `struct page_region`, exclusively borrowed for the call. To protect a page
    // changes nothing that a program can see.
    let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, std::ptr::from_mut(&mut arg)) };
    if found < 0 {
        return Err(Error::last_os_error());
    }
    let found = (found as usize).min(regions.len());
    // `walk_end` is where the kernel's own buffer of 512 regions was full for the last time, unless it is the end
    // of ours (fs/proc/task_mmu.c, do_pagemap_scan(), up to Linux 6.18 at least).
    let walked = if found < regions.len() { end } else { arg.walk_end };
    Ok((found, regions[..found].last().map_or(walked, |last| walked.max(last.end))))
}

/// process_vm_readv(2): fills `buf` with the pieces `(address, length)`, at most 1024 (IOV_MAX),
/// one after the other. Returns how many bytes were read: fewer when a page cannot be.
///
/// # Errors
/// EFAULT when the first page cannot be read, ESRCH, EPERM.
pub fn read_pieces(pid: i32, pieces: &[(u64, usize)], buf: &mut [u8]) -> Result<usize> {
    let wanted: usize = pieces.iter().map(|p| p.1).sum();
    let local = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len().min(wanted) };
    let remote: Vec<libc::iovec> = pieces
        .iter()
        .map(|&(addr, len)| libc::iovec { iov_base: addr as *mut libc::c_void, iov_len: len })
        .collect();
    // SAFETY: `local` describes exclusively borrowed writable memory; the addresses in `remote` are of
    // the other process, the kernel checks them.
    let read = unsafe { libc::process_vm_readv(pid, &local, 1, remote.as_ptr(), remote.len() as u64, 0) };
    if read < 0 { Err(Error::last_os_error()) } else { Ok(read as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_region_is_found_twice() {
        // More regions than the kernel's buffer has, and than ours.
        let mut memory = vec![0u8; 16 << 20];
        memory.iter_mut().step_by(2 * 4096).for_each(|b| *b = 1);
        let (start, end) = (memory.as_ptr() as u64, memory.as_ptr() as u64 + memory.len() as u64);
        let (start, end) = (start.next_multiple_of(4096), end / 4096 * 4096);
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let any_of = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
        let wanted = Wanted { any_of, tell: any_of, none_of: PAGE_IS_PFNZERO, ..Wanted::default() };
        for len in [1000, 3000] {
            let mut all = Vec::new();
            let mut at = start;
            while at < end {
                let mut regions = vec![PageRegion::default(); len];
                let (found, walked) = match pagemap_scan(&pagemap, at, end, wanted, &mut regions) {
                    Err(e) if e.raw_os_error() == Some(libc::ENOTTY) => return,
                    other => other.unwrap(),
                };
                all.extend_from_slice(&regions[..found]);
                assert!(walked > at);
                at = walked;
            }
            assert!(all.windows(2).all(|w| w[0].end <= w[1].start), "{len}: regions overlap");
        }
        std::hint::black_box(&memory);
    }

    #[test]
    fn own_memory_is_read_in_pieces() {
        let (a, b) = ([1u8; 100], [2u8; 50]);
        let mut buf = [0; 150];
        let pieces = [(a.as_ptr() as u64, 100), (b.as_ptr() as u64, 50)];
        let n = read_pieces(std::process::id() as i32, &pieces, &mut buf).unwrap();
        assert_eq!(n, 150);
        assert!(buf[..100] == a && buf[100..] == b);
        assert!(read_pieces(std::process::id() as i32, &[(0, 8)], &mut buf).is_err());
    }
}
