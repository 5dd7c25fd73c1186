//! userfaultfd(2), used only to move pages between mappings of ours.

use super::{Fd, Result, check, fd, sys};
use crate::arch;
use linux_raw_sys::general::*;
use linux_raw_sys::ioctl::{UFFDIO_API, UFFDIO_REGISTER, UFFDIO_UNREGISTER};

/// `_IOWR(0xaa, 5, struct uffdio_move)`; Linux 6.8.
const UFFDIO_MOVE: u32 = 0xc028_aa05;
const _: () = assert!(size_of::<uffdio_move>() == 0x28);

fn ioctl<T>(fd: Fd, request: u32, argument: &mut T) -> Result<()> {
    // SAFETY: called below with the record that the request reads and writes.
    check(unsafe {
        arch::syscall(__NR_ioctl, [fd.0 as usize, request as usize, argument as *mut T as usize, 0, 0, 0])
    })
    .map(drop)
}

/// A userfaultfd that can move pages: needs no privilege (UFFD_USER_MODE_ONLY), but Linux 6.8.
pub fn open() -> Result<Fd> {
    // SAFETY: touches no memory.
    let uffd = Fd(unsafe { sys!(__NR_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY) }? as i32);
    let mut api = uffdio_api { api: u64::from(UFFD_API), features: u64::from(UFFD_FEATURE_MOVE), ioctls: 0 };
    ioctl(uffd, UFFDIO_API, &mut api).inspect_err(|_| fd::close(uffd))?;
    Ok(uffd)
}

/// Makes `[start, start + len)` a place that pages may be moved to. In write-protect mode, so that
/// nothing that is not protected (nothing is) faults differently meanwhile.
pub fn register(uffd: Fd, start: u64, len: u64) -> Result<()> {
    let range = uffdio_range { start, len };
    let mode = u64::from(UFFDIO_REGISTER_MODE_WP);
    ioctl(uffd, UFFDIO_REGISTER, &mut uffdio_register { range, mode, ioctls: 0 })
}

pub fn unregister(uffd: Fd, start: u64, len: u64) -> Result<()> {
    ioctl(uffd, UFFDIO_UNREGISTER, &mut uffdio_range { start, len })
}

/// Moves the pages of `[from, from + len)` to `to`; a whole huge page moves as one.
///
/// # Safety
/// Nothing refers to either range.
pub unsafe fn move_pages(uffd: Fd, to: usize, from: usize, len: usize) -> Result<()> {
    let mut m = uffdio_move { dst: to as u64, src: from as u64, len: len as u64, mode: 0, move_: 0 };
    ioctl(uffd, UFFDIO_MOVE, &mut m)
}
