//! userfaultfd(2): to move pages between mappings of ours, and to fill memory while the program runs.

use super::{Errno, Fd, Result, check, fd, process, sys};
use crate::arch;
use linux_raw_sys::general::*;
use linux_raw_sys::ioctl::{
    UFFDIO_API, UFFDIO_COPY, UFFDIO_REGISTER, UFFDIO_UNREGISTER, UFFDIO_WAKE, UFFDIO_ZEROPAGE,
};

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
    agree(uffd, u64::from(UFFD_FEATURE_MOVE))
}

/// One that tells of missing pages when the program itself touches them (UFFD_USER_MODE_ONLY, Linux 5.11: no
/// privilege); where the kernel does so in its name, that fails with EFAULT. Reading from it does not wait.
pub fn open_missing() -> Result<Fd> {
    // SAFETY: touches no memory.
    let uffd = Fd(unsafe { sys!(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY) }? as i32);
    agree(uffd, 0)
}

fn agree(uffd: Fd, features: u64) -> Result<Fd> {
    let mut api = uffdio_api { api: u64::from(UFFD_API), features, ioctls: 0 };
    ioctl(uffd, UFFDIO_API, &mut api).inspect_err(|_| fd::close(uffd))?;
    Ok(uffd)
}

/// Makes `[start, start + len)` a place that pages may be moved to. In write-protect mode, so that
/// nothing that is not protected (nothing is) faults differently meanwhile.
pub fn register(uffd: Fd, start: u64, len: u64) -> Result<()> {
    register_for(uffd, start, len, UFFDIO_REGISTER_MODE_WP)
}

/// Who touches a page of `[start, start + len)` that is missing waits until it is filled.
pub fn register_missing(uffd: Fd, start: u64, len: u64) -> Result<()> {
    register_for(uffd, start, len, UFFDIO_REGISTER_MODE_MISSING)
}

fn register_for(uffd: Fd, start: u64, len: u64, mode: u32) -> Result<()> {
    let range = uffdio_range { start, len };
    let mode = u64::from(mode);
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

/// Fills missing pages from `to` on, in whichever process the descriptor is of, and wakes who waits for them.
/// Both are multiples of the page size.
///
/// # Errors
/// EEXIST where a page is not missing: it stays as it is. ESRCH when the process has ended.
pub fn copy(uffd: Fd, to: u64, bytes: &[u8]) -> Result<()> {
    let mut done = 0;
    while let Some(left) = bytes.get(done..).filter(|left| !left.is_empty()) {
        let (dst, src, len) = (to + done as u64, left.as_ptr() as u64, left.len() as u64);
        let mut c = uffdio_copy { dst, src, len, mode: 0, copy: 0 };
        match ioctl(uffd, UFFDIO_COPY, &mut c) {
            Ok(()) => return Ok(()),
            // A part, or somebody changes mappings.
            Err(Errno::EAGAIN) => match usize::try_from(c.copy) {
                Ok(n) => done += n,
                Err(_) => process::yield_now(),
            },
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Makes a missing page one of zeros, and wakes who waits for it.
pub fn zero(uffd: Fd, at: u64, len: u64) -> Result<()> {
    let range = uffdio_range { start: at, len };
    ioctl(uffd, UFFDIO_ZEROPAGE, &mut uffdio_zeropage { range, mode: 0, zeropage: 0 })
}

/// Who waits for a page there looks again.
pub fn wake(uffd: Fd, start: u64, len: u64) -> Result<()> {
    ioctl(uffd, UFFDIO_WAKE, &mut uffdio_range { start, len })
}

/// `struct uffd_msg`: event, flags, address.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Message([u64; 4]);

impl Message {
    /// Where a page is missing that somebody waits for.
    pub fn fault(&self) -> Option<u64> {
        (self.0[0] & 0xff == u64::from(UFFD_EVENT_PAGEFAULT)).then_some(self.0[2])
    }
}

/// What has been told and not been read yet; nothing when there is nothing.
pub fn read(uffd: Fd, messages: &mut [Message]) -> Result<&[Message]> {
    let len = size_of_val(messages);
    // SAFETY: the kernel writes whole messages, at most `len` bytes, of any value.
    match unsafe { sys!(__NR_read, uffd.0, messages.as_mut_ptr(), len) } {
        Ok(n) => Ok(&messages[..n / size_of::<Message>()]),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(&[]),
        Err(e) => Err(e),
    }
}
