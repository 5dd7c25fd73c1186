//! The process that becomes the program: its stages in order.

use crate::ctx::{Ctx, Mode};
use crate::mem::{fill, map, own, tids, vdso};
use crate::report::{self, Error, Result, fail};
use crate::sys::{fd, process};
use crate::{attributes, objects, signals, threads, timers};
use ckpt_format::{Mm, Task};
use linux_raw_sys::general::{__NR_munmap, __NR_prctl, __NR_set_robust_list};
use linux_raw_sys::prctl::{PR_SET_DUMPABLE, PR_SET_PTRACER};

/// Restores the root task in the calling process and waits for the tracer.
pub fn become_program(ctx: &'static Ctx) -> ! {
    match prepare(ctx) {
        Ok(()) => ctx.shared.hand_over(),
        Err(e) => fail(e),
    }
}

fn prepare(ctx: &'static Ctx) -> Result<()> {
    let task = ctx.task()?;
    let mm = ctx.mm(task)?;
    let tracer = ctx.shared.wait_for_tracer();
    // Yama: the tracer is no ancestor of ours. EINVAL where there is no Yama.
    let _ = process::prctl(PR_SET_PTRACER, tracer as u64, 0);
    attributes::raise_limits();
    attributes::stop_timers();
    signals::unblock(ctx.callers_mask);

    own::unmap_all(&ctx.config)?;
    let kept_vdso = vdso::place(ctx, mm)?;
    objects::create_all(ctx)?;
    objects::place(ctx, task)?;
    map::map_all(ctx, mm)?;
    fill::fill_all(ctx, mm)?;
    map::finish_all(ctx, mm)?;
    attributes::set_mm(ctx, mm)?;
    attributes::set_directories(ctx, task)?;
    signals::block_all();
    signals::set_actions(ctx, task)?;
    attributes::set_marks(task, mm)?;
    threads::create(ctx, task)?;
    if ctx.mode() == Mode::New {
        tids::correct(ctx, task, mm)?;
    }
    objects::finish(ctx, task)?;
    map::lock_and_seal(ctx, mm)?;
    timers::create(ctx, task)?;
    signals::queue_for_process(ctx, task)?;
    attributes::set_limits(task)?;
    let leader = ctx.threads(task)?.first().ok_or(Error::new("no leader"))?;
    threads::settle(ctx, leader)?;
    last_calls(ctx, mm, leader.robust_list, kept_vdso)?;
    timers::arm(ctx, task)?;
    close_own(ctx, task)
}

/// What the tracer does in the leader's name: what would disturb the hand-over, and the unmapping
/// of the code that runs now.
fn last_calls(ctx: &Ctx, mm: &Mm, robust_list: u64, kept_vdso: vdso::Kept) -> Result<()> {
    let shared = ctx.shared;
    shared.add_call(__NR_set_robust_list, [robust_list, 24, 0, 0, 0, 0])?;
    // A change of credentials made it undumpable, which forbids ptrace; 2 cannot be asked for.
    process::prctl(PR_SET_DUMPABLE, 1, 0).map_err(Error::os("cannot become dumpable"))?;
    if mm.dumpable != 1 {
        shared.add_call(__NR_prctl, [u64::from(PR_SET_DUMPABLE), 0, 0, 0, 0, 0])?;
    }
    if process::prctl(PR_SET_PTRACER, ctx.shared.wait_for_tracer() as u64, 0).is_ok() {
        shared.add_call(__NR_prctl, [u64::from(PR_SET_PTRACER), 0, 0, 0, 0, 0])?;
    }
    let (hole, end) = (ctx.config.hole_addr, ctx.config.hole_addr + ctx.config.hole_len);
    let kept = kept_vdso.map_or((end, end), |k| (k.start as u64, k.end as u64));
    if kept.1 < end {
        shared.add_call(__NR_munmap, [kept.1, end - kept.1, 0, 0, 0, 0])?;
    }
    shared.add_call(__NR_munmap, [hole, kept.0 - hole, 0, 0, 0, 0])
}

/// Closes the stub's descriptors; messages end here.
fn close_own(ctx: &Ctx, _task: &Task) -> Result<()> {
    report::set_descriptor(-1);
    fd::close_range(ctx.high_fd(), u32::MAX).map_err(Error::os("cannot close descriptors"))
}
