//! Who fills memory while the program runs (`--memory lazy`): helpers of the tracer, outside of the program.
//!
//! They copy from a mapping of the image (or decompress), extent by extent, and in between look which pages the program waits
//! for: those come first.

use super::blocks::{self, Blocks};
use super::lazy::{self, Lazy, Place};
use super::map;
use crate::arch;
use crate::ctx::Ctx;
use crate::report::{Error, On, Result, say};
use crate::sys::uffd::Message;
use crate::sys::{Errno, Fd, mm, process, sched, thread, uffd};
use ckpt_format::{EXIT_RESTORE_FAILED, Extent, Image, PAGE_SIZE, Vma};
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use linux_raw_sys::general::{CLONE_FILES, CLONE_FS, MADV_POPULATE_READ, MAP_SHARED, PROT_READ};
use zerocopy::FromZeros;

/// Most helpers, and the contents from which on another one is worth it.
pub const MAX_HELPERS: usize = 8;
const WORTH_A_HELPER: u64 = 16 << 20;
const SIGSTOP: i32 = 19;
/// Bytes of a helper's stack.
const STACK: usize = 64 << 10;

/// Missing memory of one process.
#[derive(FromZeros)]
#[repr(C)]
pub struct Space {
    /// Its userfaultfd.
    uffd: AtomicI32,
    /// Index of its task.
    task: AtomicU32,
    /// 1 when the process has ended.
    is_gone: AtomicU32,
}

impl Space {
    pub fn set(&self, task: usize, uffd: Fd) {
        self.task.store(task as u32, Ordering::SeqCst);
        self.uffd.store(uffd.0, Ordering::SeqCst);
    }

    pub fn uffd(&self) -> Fd {
        Fd(self.uffd.load(Ordering::Relaxed))
    }

    fn vmas(&self, ctx: &Ctx) -> Result<&'static [Vma]> {
        let task = Image::get(ctx.image.tasks, self.task.load(Ordering::Relaxed), "task")?;
        map::vmas(ctx, ctx.mm(task)?)
    }
}

/// All that is missing, and where it comes from.
pub struct Filling {
    ctx: &'static Ctx,
    spaces: &'static [Space],
    /// The mapping of the whole image.
    image: usize,
    /// Who made the helpers.
    tracer: i32,
    /// 1 when the program runs.
    begun: AtomicU32,
}

impl Filling {
    pub fn new(ctx: &'static Ctx, spaces: &'static [Space]) -> Result<Self> {
        let len = ctx.image.header.image_size as usize;
        // SAFETY: a new mapping, where the kernel finds room.
        let image = unsafe { mm::mmap(0, len, PROT_READ, MAP_SHARED, Some(ctx.image_fd), 0) }
            .map_err(Error::os("cannot map the image"))?;
        Ok(Self { ctx, spaces, image, tracer: process::getpid(), begun: AtomicU32::new(0) })
    }

    /// Starts as many helpers as are worth it; gives their ids to `started`. There is one at least.
    pub fn start(&'static self, mut started: impl FnMut(i32)) -> Result<()> {
        let mut total = 0;
        for space in self.spaces {
            for vma in space.vmas(self.ctx)?.iter().filter(|v| Lazy.has(self.ctx, v)) {
                total += lazy::extents(self.ctx, vma)?.iter().map(|e| e.len).sum::<u64>();
            }
        }
        let wanted = (total.div_ceil(WORTH_A_HELPER) as usize).clamp(1, MAX_HELPERS).min(cpus());
        for i in 0..wanted {
            let stack = self.ctx.work.stack(STACK)?;
            // In our memory, but not one of our threads: what kills it does not kill us.
            match thread::spawn(stack, CLONE_FILES | CLONE_FS, None, helper, self, 0) {
                Ok(pid) => started(pid),
                Err(e) if i == 0 => return Err(Error::os("cannot start a helper")(e)),
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Lets the helpers begin: the program's first instruction need not wait for a processor until they pause.
    pub fn begin(&self) {
        process::futex_set(&self.begun, 1);
    }

    fn wait_for_begin(&self) -> Result<()> {
        /// Milliseconds between looks whether the tracer still lives.
        const LOOK_EVERY: u32 = 20;
        while self.begun.load(Ordering::SeqCst) == 0 {
            self.check_tracer()?;
            process::futex_wait_ms(&self.begun, 0, LOOK_EVERY);
        }
        Ok(())
    }

    fn check_tracer(&self) -> Result<()> {
        match process::getppid() == self.tracer {
            true => Ok(()),
            false => Err(Error::new("its tracer was killed")),
        }
    }

    /// The bytes of an extent that is not compressed.
    fn mapped(&self, e: &Extent) -> Result<&'static [u8]> {
        if e.is_compressed() {
            return Err(Error::new("the image is damaged: no method to decompress"));
        }
        // SAFETY: inside of the mapping (`lazy::begin` checked it); the image does not change while it is
        // restored. Should it be truncated, SIGBUS ends who reads, and the program with it.
        Ok(unsafe {
            let at = self.image + e.file_offset as usize;
            // Where it fails (Linux before 5.14), pages come by faults.
            let start = at & !(PAGE_SIZE as usize - 1);
            let _ = mm::madvise(start, at + e.len as usize - start, MADV_POPULATE_READ);
            core::slice::from_raw_parts(at as *const u8, e.len as usize)
        })
    }

    /// What one who fills needs: room for decompressed blocks, where there are any.
    pub fn filler(&'static self) -> Result<Filler> {
        let blocks = match self.ctx.image.compression.is_empty() {
            true => None,
            false => Some(Blocks::new(self.ctx.work.slice(blocks::ROOM)?)),
        };
        Ok(Filler { filling: self, blocks })
    }
}

/// One who fills: a helper, or the tracer.
pub struct Filler {
    filling: &'static Filling,
    blocks: Option<Blocks<'static>>,
}

impl Filler {
    fn run(&mut self) -> Result<()> {
        for space in self.filling.spaces {
            for vma in space.vmas(self.filling.ctx)?.iter().filter(|v| Lazy.has(self.filling.ctx, v)) {
                for e in lazy::extents(self.filling.ctx, vma)? {
                    self.serve()?;
                    if space.is_gone.load(Ordering::Relaxed) == 0 {
                        self.fill(space, e)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Fills what somebody waits for.
    fn serve(&mut self) -> Result<()> {
        self.filling.check_tracer()?;
        for space in self.filling.spaces {
            let mut messages = [Message::default(); 16];
            let told = uffd::read(space.uffd(), &mut messages).map_err(Error::os("cannot read faults"))?;
            for at in told.iter().filter_map(Message::fault) {
                self.answer(space, at & !(PAGE_SIZE - 1))?;
            }
        }
        Ok(())
    }

    fn answer(&mut self, space: &Space, at: u64) -> Result<()> {
        let woken = match lazy::find(self.filling.ctx, space.vmas(self.filling.ctx)?, at) {
            Place::Stored(e) => {
                self.fill(space, e)?;
                // Whoever else fills it now wakes it.
                if self.filling.ctx.states.is_filled(self.filling.ctx, e) {
                    uffd::wake(space.uffd(), at, PAGE_SIZE)
                } else {
                    Ok(())
                }
            }
            // Another thread may have asked for it before.
            Place::Empty => match uffd::zero(space.uffd(), at, PAGE_SIZE) {
                Err(Errno::EEXIST) => uffd::wake(space.uffd(), at, PAGE_SIZE),
                done => done,
            },
            Place::Elsewhere => uffd::wake(space.uffd(), at, PAGE_SIZE),
        };
        match woken {
            // The process has ended.
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(e) => Err(Error::os("cannot fill the page at")(e).on(On::Range(at, at + PAGE_SIZE))),
        }
    }

    /// Sees to it that a range of a task's memory is there, for the kernel to use. False if a helper is at it,
    /// and takes long.
    pub fn provide(&mut self, task: u32, start: u64, len: u64) -> Result<bool> {
        /// How often a helper is waited for.
        const PATIENCE: u32 = 1000;
        let of_task = |s: &&Space| s.task.load(Ordering::Relaxed) == task;
        let Some(space) = self.filling.spaces.iter().find(of_task) else { return Ok(true) };
        let vmas = space.vmas(self.filling.ctx)?;
        let mut at = start & !(PAGE_SIZE - 1);
        while at < start.saturating_add(len) {
            self.answer(space, at)?;
            if let Place::Stored(e) = lazy::find(self.filling.ctx, vmas, at) {
                let is_there = || self.filling.ctx.states.is_filled(self.filling.ctx, e);
                let mut tries = 0..PATIENCE;
                while !is_there() && tries.next().is_some() {
                    process::yield_now();
                }
                // Not either if the process has ended.
                if !is_there() {
                    return Ok(false);
                }
            }
            at += PAGE_SIZE;
        }
        Ok(true)
    }

    /// Fills an extent, unless that is done or being done.
    fn fill(&mut self, space: &Space, e: &'static Extent) -> Result<()> {
        if !self.filling.ctx.states.take(self.filling.ctx, e) {
            return Ok(());
        }
        let bytes = match &mut self.blocks {
            Some(blocks) if e.is_compressed() => blocks.bytes(self.filling.ctx.image_fd, e)?,
            _ => self.filling.mapped(e)?,
        };
        if !self.filling.ctx.options.no_verify && arch::checksum(bytes) != e.checksum {
            return Err(Error::new("the image is damaged: wrong checksum of the contents of")
                .on(On::Range(e.addr, e.addr + e.len))
                .remedy("copy or dump it again; --no-verify skips the check"));
        }
        match uffd::copy(space.uffd(), e.addr, bytes) {
            Ok(()) => self.filling.ctx.states.set_filled(self.filling.ctx, e),
            Err(Errno::ESRCH) => space.is_gone.store(1, Ordering::Relaxed),
            // EEXIST as well: nobody but us can have filled it.
            Err(errno) => return Err(lazy::failed(e)(errno)),
        }
        Ok(())
    }
}

fn helper(filling: &'static Filling, _: usize) -> ! {
    process::set_name(b"ckpt-fill\0\0\0\0\0\0\0");
    sched::make_way();
    if filling.ctx.options.fill_stopped {
        let _ = process::kill(process::getpid(), SIGSTOP);
    }
    let filled = filling.filler().and_then(|mut filler| filling.wait_for_begin().and_then(|()| filler.run()));
    match filled {
        Ok(()) => process::exit_group(0),
        Err(e) => {
            if filling.ctx.shared.explained.swap(1, Ordering::SeqCst) == 0 {
                say(format_args!("the program is killed, as not all of its memory was there yet: {e}"));
            }
            process::exit_group(EXIT_RESTORE_FAILED)
        }
    }
}

fn cpus() -> usize {
    let mut mask = [0u8; 1024];
    sched::affinity(&mut mask).map_or(1, |m| m.iter().map(|b| b.count_ones() as usize).sum()).max(1)
}
