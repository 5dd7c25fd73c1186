//! Stored pages into place: preadv from the image, by several helpers when there is much to read.
//!
//! Helpers are processes that share our memory and descriptors, not threads of ours, so that their
//! ids are free again when they have been waited for: the program's threads may need these ids.

use super::blocks::{self, Blocks};
use super::huge::{self, Huge, Staging};
use super::map;
use crate::ctx::Ctx;
use crate::report::{Error, On, Result, say};
use crate::sys::{mm, process, sched, thread};
use ckpt_format::content::MAX_EXTENT;
use ckpt_format::{EXIT_RESTORE_FAILED, Extent, Image, Mm, Vma, checksum};
use core::sync::atomic::{AtomicUsize, Ordering};
use linux_raw_sys::general::{__WALL, CLONE_FILES, CLONE_FS, iovec};

/// Work below this is done before a helper would have started.
const WORTH_A_HELPER: u64 = 16 << 20;
/// More do not help: memory bandwidth is the limit.
const MAX_HELPERS: usize = 7;
/// Bytes of a helper's stack.
const STACK: usize = 64 << 10;
/// Ranges of one preadv.
const BATCH: usize = 64;

/// What all who fill look at.
struct Job {
    ctx: &'static Ctx,
    vmas: &'static [Vma],
    /// Position in the list of all extents of all VMAs: the next to be taken.
    next: AtomicUsize,
    huge: Option<Huge>,
}

/// Fills every VMA.
pub fn fill_all(ctx: &'static Ctx, mm: &Mm) -> Result<()> {
    let vmas = map::vmas(ctx, mm)?;
    let mut total = 0u64;
    for vma in vmas {
        total += extents(ctx, vma)?.iter().map(|e| e.len).sum::<u64>();
    }
    let huge = if total >= huge::WORTH_IT { Huge::new(ctx, vmas) } else { None };
    let job: &'static Job = ctx.work.value(Job { ctx, vmas, next: AtomicUsize::new(0), huge })?;
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
    result
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

/// Takes batches until none is left.
fn work(job: &Job) -> Result<()> {
    // Extents before the present VMA: positions only grow, so one pass over the VMAs suffices.
    let mut before = 0;
    let mut vmas = job.vmas.iter();
    let mut current = vmas.next();
    let staging = job.huge.as_ref().and_then(Huge::staging);
    let room = match job.ctx.image.compression.is_empty() {
        true => None,
        false => Some(job.ctx.work.slice(blocks::ROOM)?),
    };
    let mut blocks = room.map(Blocks::new);
    while let Some(vma) = current {
        let all = extents(job.ctx, vma)?;
        let next = job.next.load(Ordering::Relaxed);
        let Some(rest) = next.checked_sub(before).and_then(|n| all.get(n..)).filter(|r| !r.is_empty()) else {
            before += all.len();
            current = vmas.next();
            continue;
        };
        let whole = staging.as_ref().and_then(|s| Some((s, huge::whole_page(vma, rest)?)));
        let n = whole.map_or_else(|| batch(rest), |(_, n)| n);
        if job.next.compare_exchange(next, next + n, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            match whole {
                Some((staging, _)) => read_huge(job.ctx, vma, &rest[..n], staging, &mut blocks)?,
                None => read_all(job.ctx, vma, &rest[..n], 0, &mut blocks)?,
            }
        }
    }
    Ok(())
}

/// How many extents, from the first on, lie one after the other in the image, or in the same compressed
/// block, and fit one call.
fn batch(extents: &[Extent]) -> usize {
    let mut bytes = 0;
    let mut n = 0;
    for pair in extents.iter().take(BATCH) {
        let follows = n == 0 || follows(&extents[n - 1], pair);
        bytes += pair.len;
        // A huge page may start there.
        let boundary = n > 0 && pair.addr.is_multiple_of(huge::HUGE);
        if !follows || boundary || (n > 0 && bytes > MAX_EXTENT) {
            break;
        }
        n += 1;
    }
    n
}

fn follows(a: &Extent, b: &Extent) -> bool {
    match (a.is_compressed(), b.is_compressed()) {
        (true, true) => a.file_offset == b.file_offset,
        (false, false) => a.file_offset.checked_add(a.len) == Some(b.file_offset),
        _ => false,
    }
}

/// Reads the extents of a whole huge page into the staging area, and moves it into place.
fn read_huge(
    ctx: &Ctx,
    vma: &Vma,
    extents: &[Extent],
    staging: &Staging<'_>,
    blocks: &mut Option<Blocks<'_>>,
) -> Result<()> {
    let to = extents.first().map_or(0, |e| e.addr);
    read_all(ctx, vma, extents, staging.addr().wrapping_sub(to), blocks)?;
    if staging.move_to(to) { Ok(()) } else { read_all(ctx, vma, extents, 0, blocks) }
}

/// Reads and verifies extents, wherever they lie in the image, to their addresses plus `shift`.
fn read_all(
    ctx: &Ctx,
    vma: &Vma,
    mut extents: &[Extent],
    shift: u64,
    blocks: &mut Option<Blocks<'_>>,
) -> Result<()> {
    while let Some(first) = extents.first() {
        let n = if first.is_compressed() { 1 } else { batch(extents) };
        match (first.is_compressed(), &mut *blocks) {
            (true, Some(blocks)) => decompress(ctx, vma, first, shift, blocks)?,
            (true, None) => {
                return Err(Error::new("the image is damaged: no method to decompress").on(map::on(vma)));
            }
            (false, _) => read(ctx, vma, &extents[..n], shift)?,
        }
        extents = &extents[n..];
    }
    Ok(())
}

/// One compressed extent to its address plus `shift`.
fn decompress(ctx: &Ctx, vma: &Vma, e: &Extent, shift: u64, blocks: &mut Blocks<'_>) -> Result<()> {
    inside(vma, e)?;
    // SAFETY: inside the VMA (checked), which is mapped, writable and the program's, or shifted from there
    // into a staging area as large as what is read; nobody else uses it.
    let to =
        unsafe { core::slice::from_raw_parts_mut(e.addr.wrapping_add(shift) as *mut u8, e.len as usize) };
    blocks.copy(ctx.image_fd, e, to)?;
    verify(ctx, e, to)
}

fn inside(vma: &Vma, e: &Extent) -> Result<()> {
    match e.addr.checked_add(e.len) {
        Some(end) if e.addr >= vma.start && end <= vma.end => Ok(()),
        _ => Err(Error::new("the image is damaged: contents outside of").on(map::on(vma))),
    }
}

fn verify(ctx: &Ctx, e: &Extent, bytes: &[u8]) -> Result<()> {
    if ctx.options.no_verify || checksum(bytes) == e.checksum {
        return Ok(());
    }
    Err(Error::new("the image is damaged: wrong checksum of the contents of")
        .on(On::Range(e.addr, e.addr + e.len))
        .remedy("copy or dump it again; --no-verify skips the check"))
}

/// Reads and verifies extents that lie one after the other in the image, to their addresses plus
/// `shift`.
fn read(ctx: &Ctx, vma: &Vma, extents: &[Extent], shift: u64) -> Result<()> {
    let mut iov = [iovec { iov_base: core::ptr::null_mut(), iov_len: 0 }; BATCH];
    let mut left = 0;
    for (iov, e) in iov.iter_mut().zip(extents) {
        inside(vma, e)?;
        *iov = iovec { iov_base: e.addr.wrapping_add(shift) as *mut _, iov_len: e.len };
        left += e.len;
    }
    let mut iov = &mut iov[..extents.len()];
    let mut offset = extents.first().map_or(0, |e| e.file_offset);
    while left > 0 {
        // SAFETY: inside the VMA (checked), which is mapped and the program's, or shifted from there
        // into a staging area as large as what is read.
        let n = match unsafe { mm::preadv(ctx.image_fd, iov, offset) } {
            Ok(0) => return Err(Error::new("the image is truncated").remedy("copy or dump it again")),
            Ok(n) => n as u64,
            Err(crate::sys::Errno::EINTR) => continue,
            Err(e) => return Err(Error::os("cannot read the contents of")(e).on(map::on(vma))),
        };
        left -= n;
        offset += n;
        iov = advance(iov, n);
    }
    for e in extents {
        // SAFETY: filled just now, readable, inside the VMA; nobody writes to it.
        let bytes =
            unsafe { core::slice::from_raw_parts(e.addr.wrapping_add(shift) as *const u8, e.len as usize) };
        verify(ctx, e, bytes)?;
    }
    Ok(())
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
