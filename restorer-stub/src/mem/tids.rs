//! Thread ids in the program's memory, where they changed (`--pid new`).
//!
//! libc caches a thread's id in its control block (the image says where), and the owner's id in
//! mutexes. Kinds that check the owner (recursive, errorcheck, robust) would deadlock or fail with
//! the old id, so that held ones are looked for in all private writable memory that was stored,
//! by the pattern that such a mutex has. A pattern of 40 bytes, four of which are a live thread's id,
//! hardly arises otherwise, unless the id is small: then a find is an error. So it is with reader-writer locks held for writing. Ids in other structures
//! of the C library are not known.

use super::map;
use crate::ctx::Ctx;
use crate::report::{Error, Result, note};
use ckpt_format::thread::thread_flags;
use ckpt_format::{Image, Mm, Task, Thread, Vma, VmaKind};
use core::sync::atomic::Ordering;
use linux_raw_sys::general::{FUTEX_TID_MASK, FUTEX_WAITERS, PROT_READ, PROT_WRITE};

/// Ids below this (in containers) are like any number that programs have in tables.
const SMALL_ID: i32 = 300;

/// Writes the present ids over the saved ones. All threads exist; memory has its final rights.
pub fn correct(ctx: &Ctx, task: &Task, mm: &Mm) -> Result<()> {
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
    let glibc = threads.iter().any(|t| t.flags & thread_flags::LIBC_GLIBC != 0);
    let musl = threads.iter().any(|t| t.flags & thread_flags::LIBC_MUSL != 0);
    let mut found = 0;
    for vma in vmas.iter().filter(|v| is_private(v) && is_writable(v)) {
        for e in Image::slice(ctx.image.extents, vma.dirty, "extents")? {
            // SAFETY: stored pages of a mapped, readable and writable VMA (fill checked the bounds);
            // no other reference into it.
            let words = unsafe { core::slice::from_raw_parts_mut(e.addr as *mut u32, e.len as usize / 4) };
            found += correct_words(words, threads, &now, glibc, musl);
        }
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

fn is_writable(v: &Vma) -> bool {
    v.prot & (PROT_READ | PROT_WRITE) == PROT_READ | PROT_WRITE
}

fn is_private(v: &Vma) -> bool {
    matches!(VmaKind::from_u32(v.kind), Some(VmaKind::Anonymous | VmaKind::FilePrivate))
}

/// Mutexes are 8-byte aligned; the words looked at around an id reach 5 words further.
fn correct_words(
    words: &mut [u32],
    threads: &[Thread],
    now: &impl Fn(usize) -> u32,
    glibc: bool,
    musl: bool,
) -> usize {
    let (min, max) =
        threads.iter().fold((u32::MAX, 0), |(lo, hi), t| (lo.min(t.tid as u32), hi.max(t.tid as u32)));
    let owner = |id: u32| threads.iter().position(|t| t.tid as u32 == id).map(now);
    let mut found = 0;
    for at in (0..words.len().saturating_sub(5)).step_by(2) {
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
