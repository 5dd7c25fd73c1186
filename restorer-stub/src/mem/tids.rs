//! Thread ids in the program's memory, where they changed (`--pid new`).
//!
//! libc caches a thread's id in its control block (the image says where), and the owner's id in
//! mutexes. Kinds that check the owner (recursive, errorcheck, robust) would deadlock or fail with
//! the old id, so that held ones are looked for in all private writable memory that was stored,
//! by the pattern that such a mutex has. A pattern of 40 bytes, four of which are a live thread's id,
//! hardly arises otherwise, unless the id is small: then a find is an error. So it is with reader-writer locks held for writing. Ids in other structures
//! of the C library are not known.

use super::map;
use crate::arch::{self, Words};
use crate::ctx::{Ctx, Mode};
use crate::report::{Error, Result, note};
use ckpt_format::thread::thread_flags;
use ckpt_format::{Extent, Image, Mm, PAGE_SIZE, Task, Thread, Vma, VmaKind};
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general::{FUTEX_TID_MASK, FUTEX_WAITERS, PROT_READ, PROT_WRITE};
use zerocopy::FromBytes;

/// Ids below this (in containers) are like any number that programs have in tables.
const SMALL_ID: i32 = 300;

/// Which parts of each extent have a word that may be a saved id: found while the bytes are in the cache, as
/// reading all memory again takes as long as filling it.
pub struct Suspects {
    /// By extent of the image: a bit for each [`unit`] of it.
    bits: &'static [AtomicU64],
    /// Saved ids.
    min: u32,
    max: u32,
    glibc: bool,
    musl: bool,
}

/// Bytes that a bit stands for.
fn unit(e: &Extent) -> u64 {
    e.len.div_ceil(u64::BITS.into()).next_multiple_of(PAGE_SIZE)
}

/// How far what is looked for reaches from an id, in either direction.
const REACH: u64 = 40;

impl Suspects {
    /// `None` where no id changes, or none can be found.
    pub fn new(ctx: &Ctx) -> Result<Option<Self>> {
        let threads = ctx.image.threads;
        let has = |flag: u32| threads.iter().any(|t| t.flags & flag != 0);
        let (glibc, musl) = (has(thread_flags::LIBC_GLIBC), has(thread_flags::LIBC_MUSL));
        if ctx.mode() != Mode::New || !(glibc || musl) {
            return Ok(None);
        }
        let (min, max) = id_range(threads);
        let bits = ctx.work.slice(ctx.image.extents.len())?;
        Ok(Some(Self { bits, min, max, glibc, musl }))
    }

    fn of(&self, ctx: &Ctx, e: &Extent) -> Option<&AtomicU64> {
        let offset = (core::ptr::from_ref(e) as usize).checked_sub(ctx.image.extents.as_ptr() as usize)?;
        self.bits.get(offset / size_of::<Extent>())
    }

    /// Looks through the bytes of an extent.
    pub fn look(&self, ctx: &Ctx, e: &Extent, bytes: &[u8]) {
        let mut bits = 0;
        for (i, part) in bytes.chunks(unit(e) as usize).enumerate() {
            let Ok(pairs) = <[[u32; 2]]>::ref_from_bytes(part) else { continue };
            let any = |which, mask| arch::any_in_range(pairs, which, mask, self.min, self.max);
            // At multiples of 8 bytes: owner and writer are even words with glibc, the lock is an odd one with musl.
            if self.glibc && any(Words::Even, u32::MAX) || self.musl && any(Words::Odd, FUTEX_TID_MASK) {
                bits |= 1 << i;
            }
        }
        if let Some(slot) = self.of(ctx, e) {
            slot.store(bits, Ordering::Relaxed);
        }
    }
}

/// Smallest and largest saved id.
fn id_range(threads: &[Thread]) -> (u32, u32) {
    threads.iter().fold((u32::MAX, 0), |(lo, hi), t| (lo.min(t.tid as u32), hi.max(t.tid as u32)))
}

/// Writes the present ids over the saved ones. All threads exist; memory has its final rights.
pub fn correct(ctx: &Ctx, task: &Task, mm: &Mm, suspects: Option<&Suspects>) -> Result<()> {
    let threads = ctx.threads(task)?;
    let now = |i: usize| ctx.tids[task.threads.first as usize + i].load(Ordering::SeqCst) as u32;
    if threads.iter().enumerate().all(|(i, t)| now(i) == t.tid as u32) {
        return Ok(());
    }
    let vmas = map::vmas(ctx, mm)?;
    for (i, t) in threads.iter().enumerate().filter(|(_, t)| t.tid_cache != 0) {
        let fits = |v: &&Vma| v.start <= t.tid_cache && t.tid_cache + 4 <= v.end && is_writable(v);
        if vmas.iter().any(|v| fits(&v)) {
            // SAFETY: mapped and writable (checked); the program's memory, no references of ours.
            unsafe { (t.tid_cache as *mut u32).write_unaligned(now(i)) };
        }
    }
    let Some(suspects) = suspects else { return Ok(()) };
    let mut found = 0;
    for vma in vmas.iter().filter(|v| is_private(v) && is_writable(v)) {
        found += correct_vma(ctx, vma, suspects, threads, &now)?;
    }
    if found > 0 && threads.iter().any(|t| t.tid < SMALL_ID) {
        return Err(Error::new(
            "memory has what may be a held lock of a thread whose id is too small to be told from other numbers",
        )
        .remedy("use --pid ns or --pid same"));
    }
    if found > 0 {
        note(format_args!("the owner of {found} held locks was corrected"));
    }
    Ok(())
}

/// The suspicious parts of a VMA, each place in it once: a new id may be an old one of another thread.
fn correct_vma(
    ctx: &Ctx,
    vma: &Vma,
    suspects: &Suspects,
    threads: &[Thread],
    now: &impl Fn(usize) -> u32,
) -> Result<usize> {
    let extents = Image::slice(ctx.image.extents, vma.dirty, "extents")?;
    let (mut found, mut done) = (0, 0);
    for (n, e) in extents.iter().enumerate() {
        let bits = suspects.of(ctx, e).map_or(u64::MAX, |b| b.load(Ordering::Relaxed));
        let follows = |a: Option<&Extent>, b: Option<&Extent>| {
            a.zip(b).is_some_and(|(a, b)| a.addr.checked_add(a.len) == Some(b.addr))
        };
        let before = n.checked_sub(1).and_then(|i| extents.get(i));
        let end = e.addr + e.len;
        // Bytes of neighbours belong to what begins or ends there.
        let first = e.addr - if follows(before, Some(e)) { REACH } else { 0 };
        let last = end + if follows(Some(e), extents.get(n + 1)) { REACH } else { 0 };
        for part in (0..u64::from(u64::BITS)).filter(|i| bits & 1 << i != 0) {
            let at = e.addr + part * unit(e);
            let start = at.saturating_sub(REACH).max(first).max(done);
            done = (at + unit(e)).min(end);
            let to = (done + REACH).min(last);
            if start >= done {
                continue;
            }
            // SAFETY: stored pages of a mapped, readable and writable VMA (fill checked the bounds);
            // no other reference into it.
            let words =
                unsafe { core::slice::from_raw_parts_mut(start as *mut u32, (to - start) as usize / 4) };
            let places = (done - start) as usize / 4;
            found += correct_words(words, places, threads, now, suspects);
        }
    }
    Ok(found)
}

fn is_writable(v: &Vma) -> bool {
    v.prot & (PROT_READ | PROT_WRITE) == PROT_READ | PROT_WRITE
}

fn is_private(v: &Vma) -> bool {
    matches!(VmaKind::from_u32(v.kind), Some(VmaKind::Anonymous | VmaKind::FilePrivate))
}

/// What begins at the first `places` of these words. Mutexes are 8-byte aligned; the words looked at around
/// an id reach 5 words further.
fn correct_words(
    words: &mut [u32],
    places: usize,
    threads: &[Thread],
    now: &impl Fn(usize) -> u32,
    suspects: &Suspects,
) -> usize {
    let Suspects { min, max, glibc, musl, .. } = *suspects;
    let owner = |id: u32| threads.iter().position(|t| t.tid as u32 == id).map(now);
    let mut found = 0;
    for at in (0..words.len().saturating_sub(5).min(places)).step_by(2) {
        // pthread_mutex_t of glibc: lock, count, owner, nusers, kind.
        let id = words[at + 2];
        if glibc
            && (min..=max).contains(&id)
            && let Some(new) = owner(id)
            && let Some(mutex) = words.get(at..at + 10)
            && let Some(lock) = glibc_mutex(mutex, id, new)
        {
            words[at] = lock;
            words[at + 2] = new;
            found += 1;
        }
        // pthread_rwlock_t of glibc knows its writer.
        if glibc
            && let Some(lock) = words.get_mut(at..at + 8)
            && is_glibc_rwlock(lock)
            && let Some(new) = owner(lock[6])
        {
            lock[6] = new;
            found += 1;
        }
        // pthread_mutex_t of musl: type, lock, waiters, -, -, count.
        let id = words[at + 1] & FUTEX_TID_MASK;
        if musl
            && (min..=max).contains(&id)
            && (1..=2).contains(&(words[at] & 3))
            && words[at] & !0x8f == 0
            && words[at + 5] < 1 << 16
            && let Some(new) = owner(id)
        {
            words[at + 1] = words[at + 1] & !FUTEX_TID_MASK | new;
            found += 1;
        }
    }
    found
}

/// Readers, writers, two futexes, padding, writer's id, shared: held by a writer, as far as it tells.
fn is_glibc_rwlock(l: &[u32]) -> bool {
    const WRITE_PHASE_AND_LOCKED: u32 = 1 | 2;
    const LIMIT: u32 = 1 << 20;
    l[0] & 3 == WRITE_PHASE_AND_LOCKED
        && l[0] < LIMIT
        && l[1] < LIMIT
        && l[2] <= 3
        && l[3] <= 3
        && l[4..6] == [0, 0]
        && l[6] != 0
        && l[7] <= 1
}

/// The new lock word of a held mutex of a kind that checks its owner; `None` when it is none.
fn glibc_mutex(m: &[u32], id: u32, new: u32) -> Option<u32> {
    const KIND: u32 = 3;
    const ROBUST_OR_PI: u32 = 16 | 32;
    // Kind, robust, PI, priority protection, shared, elision bits (pthreadP.h).
    const KNOWN: u32 = KIND | ROBUST_OR_PI | 64 | 128 | 256 | 512;
    let (lock, count, users, kind) = (m[0], m[1], m[3], m[4]);
    if kind & !KNOWN != 0 || users > 1 << 16 {
        return None;
    }
    if kind & ROBUST_OR_PI != 0 {
        return (lock & FUTEX_TID_MASK == id).then_some(lock & !FUTEX_TID_MASK | new);
    }
    let held = matches!(lock & !FUTEX_WAITERS, 1 | 2) && users >= 1;
    // Spins and elision, and the list of robust mutexes: 40 bytes in all.
    if m[5..10] != [0; 5] {
        return None;
    }
    match kind & KIND {
        1 if held && (1..1 << 20).contains(&count) => Some(lock),
        2 if held && count == 0 => Some(lock),
        _ => None,
    }
}
