//! Stored pages into place: preadv from the image, by several helpers when there is much to read.
//!
//! Helpers are processes that share our memory and descriptors, not threads of ours, so that their
//! ids are free again when they have been waited for: the program's threads may need these ids.

use super::blocks::{self, Blocks};
use super::huge::{self, Huge, Staging};
use super::lazy::Lazy;
use super::map;
use super::map_image::Mapped;
use super::tids::Suspects;
use crate::arch;
use crate::ctx::Ctx;
use crate::report::{Error, On, Result, say};
use crate::sys::{mm, process, sched, thread};
use ckpt_format::{EXIT_RESTORE_FAILED, Extent, Image, Mm, PAGE_SIZE, Vma};
use core::sync::atomic::{AtomicUsize, Ordering};
use linux_raw_sys::general::{__WALL, CLONE_FILES, CLONE_FS, MADV_POPULATE_WRITE, iovec};

/// Work below this is done before a helper would have started.
const WORTH_A_HELPER: u64 = 16 << 20;
/// More do not help: memory bandwidth is the limit.
const MAX_HELPERS: usize = 7;
/// Bytes of a helper's stack.
const STACK: usize = 64 << 10;
/// Ranges of one preadv.
const BATCH: usize = 64;
/// Bytes of one preadv, in whole extents: what was read is still in the second-level cache when its
/// checksum is computed, and what a helper does last is short.
const IN_CACHE: u64 = 256 << 10;

/// What all who fill look at.
struct Job {
    ctx: &'static Ctx,
    vmas: &'static [Vma],
    /// Position in the list of all extents of all VMAs: the next to be taken.
    next: AtomicUsize,
    huge: Option<Huge>,
    suspects: Option<Suspects>,
    mapped: Option<Mapped>,
    lazy: Option<Lazy>,
}

/// Fills every VMA. Says where ids may have to be corrected.
pub fn fill_all(ctx: &'static Ctx, mm: &Mm) -> Result<Option<&'static Suspects>> {
    let vmas = map::vmas(ctx, mm)?;
    let mapped = Mapped::of(ctx, vmas)?;
    let lazy = Lazy::of(ctx)?;
    let mut total = 0u64;
    for vma in vmas.iter().filter(|v| lazy.is_none_or(|l| !l.has(ctx, v))) {
        let all = extents(ctx, vma)?;
        let read = |i: &usize| mapped.is_none_or(|m| !m.has(vma, all, *i));
        total += (0..all.len()).filter(read).map(|i| all[i].len).sum::<u64>();
    }
    let huge = if total >= huge::WORTH_IT { Huge::new(ctx, vmas) } else { None };
    let suspects = Suspects::new(ctx)?;
    let next = AtomicUsize::new(0);
    let job: &'static Job = ctx.work.value(Job { ctx, vmas, next, huge, suspects, mapped, lazy })?;
    let mut helpers = [0i32; MAX_HELPERS];
    let wanted = (total / WORTH_A_HELPER).min(cpus().saturating_sub(1) as u64).min(MAX_HELPERS as u64);
    for slot in helpers.iter_mut().take(wanted as usize) {
        // Without helpers (limit of processes) it only takes longer.
        *slot =
            thread::spawn(ctx.work.stack(STACK)?, CLONE_FILES | CLONE_FS, None, helper, job, 0).unwrap_or(0);
    }
    let mut result = work(job);
    for pid in helpers.into_iter().filter(|pid| *pid > 0) {
        let status = process::wait(pid, __WALL).map_err(Error::os("cannot wait for a helper"))?;
        if result.is_ok() && !matches!(status, Some((_, process::Wait::Exited(0)))) {
            result = Err(Error::new("a helper failed to read the image"));
        }
    }
    if let Some(huge) = &job.huge {
        huge.finish(vmas);
    }
    result.map(|()| job.suspects.as_ref())
}

fn cpus() -> u32 {
    let mut mask = [0u8; 1024];
    sched::affinity(&mut mask).map_or(1, |m| m.iter().map(|b| b.count_ones()).sum())
}

fn helper(job: &'static Job, _: usize) -> ! {
    match work(job) {
        Ok(()) => process::exit_group(0),
        Err(e) => {
            say(format_args!("{e}"));
            process::exit_group(EXIT_RESTORE_FAILED)
        }
    }
}

fn extents(ctx: &Ctx, vma: &Vma) -> Result<&'static [Extent]> {
    Ok(Image::slice(ctx.image.extents, vma.dirty, "extents")?)
}

/// A place in the list of all extents of all VMAs.
#[derive(Clone)]
struct Cursor {
    vmas: core::slice::Iter<'static, Vma>,
    /// The VMA of that place.
    vma: &'static Vma,
    extents: &'static [Extent],
    /// How many extents those before it have.
    before: usize,
}

impl Cursor {
    fn new(job: &Job) -> Result<Option<Self>> {
        let mut vmas = job.vmas.iter();
        let Some(vma) = vmas.next() else { return Ok(None) };
        Ok(Some(Self { vmas, vma, extents: extents(job.ctx, vma)?, before: 0 }))
    }

    /// Those of the VMA from the place `at` on, which only grows; `None` behind the last.
    fn rest(&mut self, ctx: &Ctx, at: usize) -> Result<Option<&'static [Extent]>> {
        loop {
            if let Some(rest) = self.extents.get(at - self.before..).filter(|r| !r.is_empty()) {
                return Ok(Some(rest));
            }
            self.before += self.extents.len();
            let Some(vma) = self.vmas.next() else { return Ok(None) };
            (self.vma, self.extents) = (vma, extents(ctx, vma)?);
        }
    }

    /// Whether what is `n` places behind `at`, in the same VMA, is mapped from the image, or filled later.
    fn is_mapped(&self, job: &Job, at: usize, n: usize) -> bool {
        job.lazy.is_some_and(|l| l.has(job.ctx, self.vma))
            || job.mapped.is_some_and(|m| m.has(self.vma, self.extents, at - self.before + n))
    }
}

/// Extents that lie one after the other in the image, or in the same compressed block: of one VMA or of several.
struct Batch {
    extents: [Option<&'static Extent>; BATCH],
    count: usize,
    bytes: u64,
}

impl Batch {
    const fn new() -> Self {
        Self { extents: [None; BATCH], count: 0, bytes: 0 }
    }

    fn iter(&self) -> impl Iterator<Item = &'static Extent> {
        self.extents[..self.count].iter().flatten().copied()
    }

    /// Whether there was room for one more of that VMA.
    fn add(&mut self, vma: &Vma, e: &'static Extent) -> Result<bool> {
        let last = self.count.checked_sub(1).and_then(|i| self.extents[i]);
        let fits = e.is_compressed() || self.bytes + e.len <= IN_CACHE;
        if self.count == BATCH || !last.is_none_or(|l| fits && follows(l, e)) {
            return Ok(false);
        }
        let end = e.addr.checked_add(e.len).filter(|end| *end <= vma.end);
        if e.addr < vma.start || end.is_none() {
            return Err(Error::new("the image is damaged: contents outside of").on(map::on(vma)));
        }
        self.extents[self.count] = Some(e);
        self.count += 1;
        self.bytes += e.len;
        Ok(true)
    }
}

fn follows(a: &Extent, b: &Extent) -> bool {
    match (a.is_compressed(), b.is_compressed()) {
        (true, true) => a.file_offset == b.file_offset,
        (false, false) => a.file_offset.checked_add(a.len) == Some(b.file_offset),
        _ => false,
    }
}

/// Takes batches until none is left.
fn work(job: &Job) -> Result<()> {
    let room = match job.ctx.image.compression.is_empty() {
        true => None,
        false => Some(job.ctx.work.slice(blocks::ROOM)?),
    };
    let mut blocks = room.map(Blocks::new);
    let Some(mut cursor) = Cursor::new(job)? else { return Ok(()) };
    let staging = job.huge.as_ref().and_then(Huge::staging);
    loop {
        let next = job.next.load(Ordering::Relaxed);
        let Some(rest) = cursor.rest(job.ctx, next)? else { return Ok(()) };
        let vma = cursor.vma;
        let mine = |n: usize| {
            job.next.compare_exchange(next, next + n, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        if cursor.is_mapped(job, next, 0) {
            if mine(1) {
                look_at_mapped(job, &rest[0]);
            }
            continue;
        }
        let whole = staging.as_ref().and_then(|s| Some((s, huge::whole_page(vma, rest)?)));
        match whole.filter(|(_, n)| !(1..*n).any(|i| cursor.is_mapped(job, next, i))) {
            Some((staging, n)) => {
                if mine(n) {
                    read_huge(job, vma, &rest[..n], staging, &mut blocks)?;
                }
            }
            None => {
                let batch = gather(job, &cursor, next, staging.is_some())?;
                if mine(batch.count) {
                    read(job, &batch, 0, &mut blocks)?;
                }
            }
        }
    }
}

/// Ids are looked for in what is mapped as well, although that reads it all.
fn look_at_mapped(job: &Job, e: &Extent) {
    if let Some(suspects) = &job.suspects {
        // SAFETY: mapped from the image (`Mapped::lay` checked the bounds), readable; nobody writes to it.
        let bytes = unsafe { core::slice::from_raw_parts(e.addr as *const u8, e.len as usize) };
        suspects.look(job.ctx, e, bytes);
    }
}

/// A batch from the place `at` on, at which there is something.
fn gather(job: &Job, cursor: &Cursor, at: usize, huge: bool) -> Result<Batch> {
    let mut batch = Batch::new();
    let mut cursor = cursor.clone();
    while let Some(rest) = cursor.rest(job.ctx, at + batch.count)? {
        let before = batch.count;
        for (i, e) in rest.iter().enumerate() {
            if cursor.is_mapped(job, at + before, i) {
                return Ok(batch);
            }
            // A huge page may start there.
            let boundary = huge && batch.count > 0 && e.addr.is_multiple_of(huge::HUGE);
            if boundary || !batch.add(cursor.vma, e)? {
                return Ok(batch);
            }
        }
        debug_assert!(batch.count > before);
    }
    Ok(batch)
}

/// Reads the extents of a whole huge page into the staging area, and moves it into place.
fn read_huge(
    job: &Job,
    vma: &Vma,
    extents: &'static [Extent],
    staging: &Staging<'_>,
    blocks: &mut Option<Blocks<'_>>,
) -> Result<()> {
    let to = extents.first().map_or(0, |e| e.addr);
    read_all(job, vma, extents, staging.addr().wrapping_sub(to), blocks)?;
    if staging.move_to(to) { Ok(()) } else { read_all(job, vma, extents, 0, blocks) }
}

/// Extents of one VMA, wherever they lie in the image, to their addresses plus `shift`.
fn read_all(
    job: &Job,
    vma: &Vma,
    extents: &'static [Extent],
    shift: u64,
    blocks: &mut Option<Blocks<'_>>,
) -> Result<()> {
    let mut batch = Batch::new();
    for e in extents {
        if !batch.add(vma, e)? {
            read(job, &batch, shift, blocks)?;
            batch = Batch::new();
            batch.add(vma, e)?;
        }
    }
    read(job, &batch, shift, blocks)
}

/// Reads and verifies a batch, to its addresses plus `shift`.
fn read(job: &Job, batch: &Batch, shift: u64, blocks: &mut Option<Blocks<'_>>) -> Result<()> {
    let ctx = job.ctx;
    let compressed = batch.iter().next().is_some_and(Extent::is_compressed);
    if !compressed {
        read_plain(ctx, batch, shift)?;
    }
    for e in batch.iter() {
        // SAFETY: inside its VMA (`Batch::add`), which is mapped, writable and the program's, or shifted from
        // there into a staging area as large as what is read; nobody else uses it.
        let bytes =
            unsafe { core::slice::from_raw_parts_mut(e.addr.wrapping_add(shift) as *mut u8, e.len as usize) };
        if compressed {
            let missing = Error::new("the image is damaged: no method to decompress");
            blocks.as_mut().ok_or(missing)?.copy(ctx.image_fd, e, bytes)?;
        }
        if let Some(suspects) = &job.suspects {
            suspects.look(ctx, e, bytes);
        }
        if !ctx.options.no_verify && arch::checksum(bytes) != e.checksum {
            return Err(Error::new("the image is damaged: wrong checksum of the contents of")
                .on(On::Range(e.addr, e.addr + e.len))
                .remedy("copy or dump it again; --no-verify skips the check"));
        }
    }
    Ok(())
}

/// As [`read`], what is not compressed, without looking at it.
fn read_plain(ctx: &Ctx, batch: &Batch, shift: u64) -> Result<()> {
    let mut iov = [iovec { iov_base: core::ptr::null_mut(), iov_len: 0 }; BATCH];
    for (iov, e) in iov.iter_mut().zip(batch.iter()) {
        *iov = iovec { iov_base: e.addr.wrapping_add(shift) as *mut _, iov_len: e.len };
    }
    if shift == 0 {
        populate(&iov[..batch.count]);
    }
    let mut iov = &mut iov[..batch.count];
    let mut left = batch.bytes;
    let mut offset = batch.iter().next().map_or(0, |e| e.file_offset);
    while left > 0 {
        // SAFETY: inside VMAs (`Batch::add`), which are mapped and the program's, or shifted from there
        // into a staging area as large as what is read.
        let n = match unsafe { mm::preadv(ctx.image_fd, iov, offset) } {
            Ok(0) => return Err(Error::new("the image is truncated").remedy("copy or dump it again")),
            Ok(n) => n as u64,
            Err(crate::sys::Errno::EINTR) => continue,
            Err(e) => {
                let at = iov.first().map_or(0, |v| (v.iov_base as u64).wrapping_sub(shift));
                let on = On::Range(at, at + iov.first().map_or(0, |v| v.iov_len));
                return Err(Error::os("cannot read the contents of")(e).on(on));
            }
        };
        left -= n;
        offset += n;
        iov = advance(iov, n);
    }
    Ok(())
}

/// Gives ranges that are filled next their pages in one call each, where that saves faults.
fn populate(iov: &[iovec]) {
    /// Bytes from which on it does.
    const WORTH_A_CALL: u64 = 8 * PAGE_SIZE;
    let end = |v: &iovec| (v.iov_base as u64).wrapping_add(v.iov_len);
    for run in iov.chunk_by(|a, b| end(a) == b.iov_base as u64) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let start = first.iov_base as u64;
        if end(last) - start >= WORTH_A_CALL {
            // SAFETY: changes no contents. Where it fails (Linux before 5.14), pages come by faults.
            let _ = unsafe { mm::madvise(start as usize, (end(last) - start) as usize, MADV_POPULATE_WRITE) };
        }
    }
}

/// Drops the first `n` bytes.
fn advance(mut iov: &mut [iovec], mut n: u64) -> &mut [iovec] {
    while let Some(first) = iov.first_mut() {
        if n < first.iov_len {
            first.iov_base = first.iov_base.wrapping_byte_add(n as usize);
            first.iov_len -= n;
            break;
        }
        n -= first.iov_len;
        iov = &mut iov[1..];
    }
    iov
}
