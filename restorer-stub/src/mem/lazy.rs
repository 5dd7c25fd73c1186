//! `--memory lazy`: which memory is filled while the program runs already, and what of it is not.
//!
//! Plain private anonymous memory is mapped empty and registered with a userfaultfd: who touches a page that
//! is missing waits until it is filled (`lazy_fill`). That is so for the program's own instructions only. So
//! whatever the kernel touches without a system call is filled before the program runs, here; system calls
//! wait until all is filled (`tracer_lazy`).

use super::map;
use crate::ctx::{Ctx, Mode};
use crate::report::{Error, On, Result, note};
use crate::sys::{Errno, Fd, fd, process, ptrace, uffd};
use crate::{ctx, files};
use ckpt_format::task::task_flags;
use ckpt_format::{Extent, Image, Mm, PAGE_SIZE, Range, Task, Thread, Vma};
use core::sync::atomic::{AtomicU8, Ordering};
use linux_raw_sys::general::PROT_WRITE;

/// VMAs with less than that stored are read at once: that is quicker than to register them.
const LEAST: u64 = 64 << 10;

/// States of an extent: each is filled once, by one of several.
const MISSING: u8 = 0;
const TAKEN: u8 = 1;
const FILLED: u8 = 2;

/// By extent of the image, known to all processes: its state. Empty unless it may be needed.
pub struct States(&'static [AtomicU8]);

impl States {
    pub fn new(states: &'static [AtomicU8]) -> Self {
        Self(states)
    }

    fn of(&self, ctx: &Ctx, e: &Extent) -> Option<&AtomicU8> {
        let offset = (core::ptr::from_ref(e) as usize).checked_sub(ctx.image.extents.as_ptr() as usize)?;
        self.0.get(offset / size_of::<Extent>())
    }

    /// Whether it is the caller who fills the extent now.
    pub fn take(&self, ctx: &Ctx, e: &Extent) -> bool {
        self.of(ctx, e)
            .is_some_and(|s| s.compare_exchange(MISSING, TAKEN, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }

    pub fn is_filled(&self, ctx: &Ctx, e: &Extent) -> bool {
        self.of(ctx, e).is_some_and(|s| s.load(Ordering::SeqCst) == FILLED)
    }

    pub fn set_filled(&self, ctx: &Ctx, e: &Extent) {
        if let Some(s) = self.of(ctx, e) {
            s.store(FILLED, Ordering::SeqCst);
        }
    }
}

/// Decides for all processes of the image, before there are any, and says why not.
pub fn decide(ctx: &Ctx, mode: Mode) {
    if !ctx.options.is_lazy() {
        return;
    }
    match obstacle(ctx, mode) {
        None => ctx.shared.lazy.store(1, Ordering::SeqCst),
        Some(why) => not_lazily(format_args!("{why}")),
    }
}

/// Under --verbose: why memory is read first.
pub fn not_lazily(why: core::fmt::Arguments<'_>) {
    note(format_args!("all memory is read before the program runs: {why}"));
}

/// What makes that memory cannot be filled later, or not exactly.
fn obstacle(ctx: &Ctx, mode: Mode) -> Option<&'static str> {
    let live = || ctx.image.tasks.iter().enumerate().filter(|(_, t)| !ctx::is_brief(t));
    let shares = |(i, t): (usize, &Task)| ctx.mm_owner(t) != Some(i) || ctx.fd_owner(t) != Some(i);
    if mode == Mode::New {
        return Some("the program gets another id, which all memory has to be looked through for");
    }
    if ctx.options.stopped || live().any(|(_, t)| t.flags & task_flags::STOPPED != 0) {
        return Some("a process is to be stopped");
    }
    if ctx.image.threads.iter().any(|t| t.seccomp_mode != 0) {
        return Some("a thread is restricted by seccomp(2)");
    }
    if live().any(shares) {
        return Some("processes share their memory or their descriptors");
    }
    match try_calls() {
        Ok(()) => None,
        Err(_) => Some("this kernel (before Linux 5.11), or a seccomp filter, lacks what it needs"),
    }
}

/// The system calls that it depends on.
fn try_calls() -> crate::sys::Result<()> {
    let uffd = uffd::open_missing()?;
    let copied = process::pidfd_open(process::getpid()).and_then(|own| {
        let copy = process::pidfd_getfd(own, uffd.0);
        fd::close(own);
        copy.map(fd::close)
    });
    fd::close(uffd);
    copied
}

/// Which VMAs of an address space are filled later.
#[derive(Clone, Copy)]
pub struct Lazy;

impl Lazy {
    /// `None` if the task of the calling process is restored eagerly.
    pub fn of(ctx: &Ctx) -> Result<Option<Self>> {
        Ok((ctx.own()?.uffd.load(Ordering::SeqCst) > 0).then_some(Self))
    }

    /// Whether it is one of them.
    pub fn has(self, ctx: &Ctx, vma: &Vma) -> bool {
        map::is_plain(vma)
            && extents(ctx, vma).is_ok_and(|all| {
                let mut sum = 0;
                all.iter().any(|e| {
                    sum += e.len;
                    sum >= LEAST
                })
            })
    }
}

/// Those of a VMA, in order.
pub fn extents(ctx: &Ctx, vma: &Vma) -> Result<&'static [Extent]> {
    Ok(Image::slice(ctx.image.extents, vma.dirty, "extents")?)
}

/// Registers what is filled later, right after it was mapped: nobody can have touched it. If that is not to
/// be had, all is read as always.
pub fn begin(ctx: &Ctx, mm: &Mm) -> Result<()> {
    if !ctx.shared.is_lazy() {
        return Ok(());
    }
    let vmas = map::vmas(ctx, mm)?;
    let wanted = || vmas.iter().filter(|v| Lazy.has(ctx, v));
    if wanted().next().is_none() {
        return Ok(());
    }
    if !wanted().all(|v| is_in_order(ctx, v)) {
        not_lazily(format_args!("its contents are not in order"));
        return Ok(());
    }
    let register = || -> crate::sys::Result<Fd> {
        let uffd = uffd::open_missing()?;
        // The last copy that is closed takes back all that was registered.
        wanted()
            .try_for_each(|v| uffd::register_missing(uffd, v.start, v.end - v.start))
            .inspect_err(|_| fd::close(uffd))?;
        Ok(uffd)
    };
    match register() {
        Ok(uffd) => {
            let uffd = ctx.raise(uffd)?;
            ctx.own()?.uffd.store(uffd.0, Ordering::SeqCst);
        }
        Err(e) => not_lazily(format_args!("it cannot be registered: {e}")),
    }
    Ok(())
}

/// Whether extents can be looked up by address. (What is wrong with them else is told when they are read.)
fn is_in_order(ctx: &Ctx, vma: &Vma) -> bool {
    let mut end = vma.start;
    extents(ctx, vma).is_ok_and(|all| {
        all.iter().all(|e| {
            let next = e.addr.checked_add(e.len).filter(|n| *n <= vma.end);
            let stored = e.file_offset.checked_add(e.stored());
            let aligned = e.addr.is_multiple_of(PAGE_SIZE) && e.len.is_multiple_of(PAGE_SIZE) && e.len > 0;
            let follows = e.addr >= end && stored.is_some_and(|s| s <= ctx.image.header.image_size);
            end = next.unwrap_or(u64::MAX);
            aligned && follows && next.is_some()
        })
    })
}

/// Fills what the kernel, or the first instruction, needs. All other memory is in place.
pub fn fill_first(ctx: &Ctx, task: &Task, mm: &Mm) -> Result<()> {
    let uffd = ctx.own()?.uffd.load(Ordering::SeqCst);
    if uffd <= 0 {
        return Ok(());
    }
    let first = First { ctx, vmas: map::vmas(ctx, mm)?, uffd: Fd(uffd) };
    for vma in first.vmas.iter().filter(|v| v.prot & PROT_WRITE == 0 && Lazy.has(ctx, v)) {
        // What is made unwritable before it has any page is not accounted for any more (VM_ACCOUNT, which
        // smaps shows; mprotect_fixup() in mm/mprotect.c).
        first.fill(extents(ctx, vma)?.first().map_or(0, |e| e.addr))?;
    }
    for t in ctx.threads(task)? {
        first.of_thread(t)?;
    }
    Ok(())
}

/// What is filled before the program runs.
struct First<'a> {
    ctx: &'a Ctx,
    vmas: &'static [Vma],
    uffd: Fd,
}

/// The kernel looks no further in a robust list (`ROBUST_LIST_LIMIT`).
const LONGEST_LIST: usize = 2048;

impl First<'_> {
    fn of_thread(&self, t: &Thread) -> Result<()> {
        let r = &t.regs;
        // The rseq area is written whenever the thread was preempted; the others at its end, which may come
        // by SIGKILL at any time.
        let rseq_end = t.rseq_addr.saturating_add(t.rseq_len.saturating_sub(1).into());
        for at in [r.rip, r.rsp, r.fs_base, t.rseq_addr, rseq_end, t.tid_address, t.tid_cache] {
            self.fill(at)?;
        }
        self.robust_list(t.robust_list)
    }

    /// What the thread's end would walk through: locks that it holds since the dump. Others it writes to
    /// before they are in the list.
    fn robust_list(&self, head: u64) -> Result<()> {
        if head == 0 {
            return Ok(());
        }
        // `struct robust_list_head`: first node, offset from node to word, pending operation.
        let Some([first, offset, pending]) = self.words::<3>(head)? else { return Ok(()) };
        // The lowest bit tells kinds of locks apart.
        let near = |node: u64| (node & !1, (node & !1).wrapping_add(offset));
        if pending != 0 {
            self.fill(near(pending).0)?;
            self.fill(near(pending).1)?;
        }
        let mut node = first;
        for _ in 0..LONGEST_LIST {
            if node & !1 == head {
                break;
            }
            self.fill(near(node).1)?;
            match self.words::<1>(near(node).0)? {
                Some([next]) => node = next,
                None => break,
            }
        }
        Ok(())
    }

    /// Words of the program's memory, which is filled there; `None` where nothing is mapped.
    fn words<const N: usize>(&self, at: u64) -> Result<Option<[u64; N]>> {
        self.fill(at)?;
        self.fill(at.saturating_add(8 * N as u64 - 1))?;
        let mut bytes = [[0u8; 8]; N];
        // Not by our own hands: a page without contents would keep us waiting for ever.
        let read = ptrace::read_memory(process::getpid(), at, bytes.as_flattened_mut());
        Ok(read.is_ok().then(|| bytes.map(u64::from_le_bytes)))
    }

    /// Fills the extent that `at` lies in, if there is one.
    fn fill(&self, at: u64) -> Result<()> {
        let Place::Stored(e) = find(self.ctx, self.vmas, at) else { return Ok(()) };
        if !self.ctx.states.take(self.ctx, e) {
            return Ok(());
        }
        let offset = core::ptr::from_ref(e) as usize - self.ctx.image.extents.as_ptr() as usize;
        let only = Range { first: (offset / size_of::<Extent>()) as u32, count: 1 };
        let image = self.ctx.execfn;
        files::copy_extents(self.ctx, only, image, |bytes, addr| uffd::copy(self.uffd, addr, bytes))?;
        self.ctx.states.set_filled(self.ctx, e);
        Ok(())
    }
}

/// What belongs to an address.
pub enum Place {
    /// Contents that are filled later.
    Stored(&'static Extent),
    /// Memory of the same kind that has none.
    Empty,
    /// Anything else.
    Elsewhere,
}

pub fn find(ctx: &Ctx, vmas: &'static [Vma], at: u64) -> Place {
    let vma = vmas.get(vmas.partition_point(|v| v.end <= at)).filter(|v| v.start <= at);
    let Some(vma) = vma.filter(|v| Lazy.has(ctx, v)) else { return Place::Elsewhere };
    let Ok(all) = extents(ctx, vma) else { return Place::Elsewhere };
    match all.get(all.partition_point(|e| e.addr + e.len <= at)).filter(|e| e.addr <= at) {
        Some(e) => Place::Stored(e),
        None => Place::Empty,
    }
}

/// What went wrong with an extent.
pub fn failed(e: &Extent) -> impl Fn(Errno) -> Error {
    let on = On::Range(e.addr, e.addr + e.len);
    move |errno| Error::os("cannot fill")(errno).on(on)
}
