//! The work area: stacks, tables and the pages shared with the tracer. All memory of the stub.

use crate::report::{Error, Result};
use crate::sys::mm;
use ckpt_format::PAGE_SIZE;
use core::sync::atomic::{AtomicUsize, Ordering};
use linux_raw_sys::general::{MAP_ANONYMOUS, MAP_FIXED, MAP_SHARED, PROT_READ, PROT_WRITE};
use zerocopy::FromZeros;

/// Unused memory that becomes somebody's stack.
pub struct Stack {
    pub bottom: usize,
    pub top: usize,
}

/// A bump allocator over `[next, end)`; nothing is ever given back. The kernel mapped the area
/// fresh (a PT_LOAD without file bytes), so that it is zero.
pub struct Work {
    next: AtomicUsize,
    end: usize,
}

impl Work {
    /// # Safety
    /// `[start, end)` is zeroed writable memory that nobody else uses.
    pub unsafe fn new(start: usize, end: usize) -> Self {
        Self { next: AtomicUsize::new(start), end }
    }

    fn take(&self, len: usize, align: usize) -> Result<usize> {
        let mut at = self.next.load(Ordering::Relaxed);
        loop {
            let start = at.next_multiple_of(align);
            let end = start
                .checked_add(len)
                .filter(|end| *end <= self.end)
                .ok_or(Error::new("the work area of the image is too small: a bug of the dumper"))?;
            match self.next.compare_exchange(at, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(start),
                Err(now) => at = now,
            }
        }
    }

    /// Zeroed records.
    pub fn slice<T: FromZeros>(&self, count: usize) -> Result<&'static mut [T]> {
        let len = count.checked_mul(size_of::<T>()).ok_or(Error::new("a table is too large"))?;
        let start = self.take(len, align_of::<T>())?;
        // SAFETY: the range is ours alone (bump allocation), zeroed, aligned; T may be zero.
        Ok(unsafe { core::slice::from_raw_parts_mut(start as *mut T, count) })
    }

    /// Room for a value that is written later.
    pub fn reserve<T>(&self) -> Result<&'static mut core::mem::MaybeUninit<T>> {
        let start = self.take(size_of::<T>(), align_of::<T>())?;
        // SAFETY: the range is ours alone, writable and aligned.
        Ok(unsafe { &mut *(start as *mut core::mem::MaybeUninit<T>) })
    }

    /// One value, for good.
    pub fn value<T>(&self, value: T) -> Result<&'static mut T> {
        Ok(self.reserve()?.write(value))
    }

    pub fn stack(&self, len: usize) -> Result<Stack> {
        let bottom = self.take(len, 64)?;
        Ok(Stack { bottom, top: bottom + len })
    }

    /// A value in memory that forked processes go on sharing. It starts as zeros.
    pub fn shared<T: FromZeros + Sync>(&self) -> Result<&'static T> {
        let start = self.shared_pages(size_of::<T>())?;
        // SAFETY: zeroed, page-aligned, for good; only `&T` exist, T is Sync.
        Ok(unsafe { &*(start as *const T) })
    }

    /// As [`Self::shared`], a slice.
    pub fn shared_slice<T: FromZeros + Sync>(&self, count: usize) -> Result<&'static [T]> {
        let start = self.shared_pages(count * size_of::<T>())?;
        // SAFETY: as `shared`.
        Ok(unsafe { core::slice::from_raw_parts(start as *const T, count) })
    }

    fn shared_pages(&self, len: usize) -> Result<usize> {
        let page = PAGE_SIZE as usize;
        let len = len.max(1).next_multiple_of(page);
        let start = self.take(len, page)?;
        let flags = MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED;
        // SAFETY: replaces unused pages of the work area.
        unsafe { mm::mmap(start, len, PROT_READ | PROT_WRITE, flags, None, 0) }
            .map_err(Error::os("cannot map shared memory"))?;
        Ok(start)
    }
}

/// One buffer that the leader uses again and again.
pub struct Buffer {
    start: usize,
    len: usize,
}

impl Buffer {
    pub fn new(work: &Work, len: usize) -> Result<Self> {
        Ok(Self { start: work.take(len, 64)?, len })
    }

    /// Its first `len` bytes. Only the leader calls this, one use at a time: every call ends the
    /// use of what the last one returned.
    #[allow(clippy::mut_from_ref)]
    pub fn take(&self, len: u64) -> Result<&mut [u8]> {
        let len = usize::try_from(len)
            .ok()
            .filter(|n| *n <= self.len)
            .ok_or(Error::new("the image is damaged: an extent is too long"))?;
        // SAFETY: ours alone; single-threaded, no two uses overlap (see above).
        Ok(unsafe { core::slice::from_raw_parts_mut(self.start as *mut u8, len) })
    }
}
