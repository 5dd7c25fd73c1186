//! Huge pages under VMAs that did not ask for them.
//!
//! Reading into fresh 4 KiB pages costs a fault each, three to five times the copy. madvise(2) could
//! ask for huge pages, but its flag on the VMA cannot be taken back. So a range of 2 MiB that is
//! completely stored is read into a huge page of a staging area of ours, and that page is moved into
//! the VMA as a whole (UFFDIO_MOVE, Linux 6.8). What comes out is what khugepaged would have made of
//! the range. Where any of this is not to be had, plain reading does the same, slower.

use crate::ctx::Ctx;
use crate::sys::{Fd, fd, mm, uffd};
use ckpt_format::stub::{STAGING, VDSO_ROOM};
use ckpt_format::{Extent, Vma, VmaKind, vma_flags};
use core::sync::atomic::{AtomicUsize, Ordering};
use linux_raw_sys::general::*;

/// Size of a huge page.
pub const HUGE: u64 = 2 << 20;
/// Stored bytes from which on a restore is worth the setting up: 20 us, where 512 faults take 500.
pub const WORTH_IT: u64 = HUGE;

/// The userfaultfd and the staging areas, one for each who fills.
pub struct Huge {
    uffd: Fd,
    next: AtomicUsize,
    end: usize,
}

impl Huge {
    /// `None` where the kernel cannot move pages, or no VMA would profit.
    pub fn new(ctx: &Ctx, vmas: &[Vma]) -> Option<Self> {
        let worth = |v: &Vma| eligible(v) && v.end - v.start >= 2 * HUGE;
        if !vmas.iter().any(worth) {
            return None;
        }
        let uffd = uffd::open().ok()?;
        // Left at its low number if it cannot be raised: it is closed before descriptors matter again.
        let uffd = ctx.raise(uffd).ok()?;
        let area = ctx.config.parking_addr + VDSO_ROOM;
        let (start, end) = (area.next_multiple_of(HUGE) as usize, (area + STAGING) as usize);
        for v in vmas.iter().filter(|v| worth(v)) {
            // One that cannot be registered is filled plainly: moving into it fails.
            let _ = uffd::register(uffd, v.start, v.end - v.start);
        }
        Some(Self { uffd, next: AtomicUsize::new(start), end })
    }

    /// A staging area of one huge page, for one of those who fill.
    pub fn staging(&self) -> Option<Staging<'_>> {
        let at = self.next.fetch_add(HUGE as usize, Ordering::Relaxed);
        if at + HUGE as usize > self.end {
            return None;
        }
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE;
        // SAFETY: a free part of the hole.
        unsafe {
            mm::mmap(at, HUGE as usize, PROT_READ | PROT_WRITE, flags, None, 0).ok()?;
            mm::madvise(at, HUGE as usize, MADV_HUGEPAGE).ok()?;
        }
        Some(Staging { huge: self, at })
    }

    /// Forgets the VMAs; the staging areas go with the hole.
    pub fn finish(&self, vmas: &[Vma]) {
        for v in vmas.iter().filter(|v| eligible(v)) {
            let _ = uffd::unregister(self.uffd, v.start, v.end - v.start);
        }
        fd::close(self.uffd);
    }
}

/// Memory that khugepaged may give huge pages to, and that does not get them by its own flag.
fn eligible(v: &Vma) -> bool {
    const NOT: u64 = vma_flags::HUGETLB
        | vma_flags::HUGEPAGE
        | vma_flags::NOHUGEPAGE
        | vma_flags::DROPPABLE
        | vma_flags::GROWSDOWN;
    // Pages are moved only between VMAs of equal rights: read and write, here.
    v.kind == VmaKind::Anonymous as u32 && v.flags & NOT == 0 && v.prot & PROT_EXEC == 0
}

/// How many extents, from the first on, make up one aligned huge page; `None` if they do not.
pub fn whole_page(v: &Vma, extents: &[Extent]) -> Option<usize> {
    let first = extents.first()?;
    if !eligible(v) || !first.addr.is_multiple_of(HUGE) {
        return None;
    }
    let mut addr = first.addr;
    for (i, e) in extents.iter().enumerate() {
        if e.addr != addr {
            return None;
        }
        addr = addr.checked_add(e.len)?;
        match (addr - first.addr).cmp(&HUGE) {
            core::cmp::Ordering::Less => {}
            core::cmp::Ordering::Equal => return Some(i + 1),
            core::cmp::Ordering::Greater => return None,
        }
    }
    None
}

/// Where a huge page is filled before it is moved.
pub struct Staging<'a> {
    huge: &'a Huge,
    at: usize,
}

impl Staging<'_> {
    pub fn addr(&self) -> u64 {
        self.at as u64
    }

    /// Moves the filled page to `to`; false when it has to be read there instead.
    pub fn move_to(&self, to: u64) -> bool {
        // SAFETY: `to` is a whole range of a VMA of the program that is being filled, by us alone.
        unsafe { uffd::move_pages(self.huge.uffd, to as usize, self.at, HUGE as usize) }.is_ok()
    }
}
