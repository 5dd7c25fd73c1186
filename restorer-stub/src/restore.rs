//! A process that becomes one of the program's: its stages in order.

use crate::ctx::{Ctx, Mode};
use crate::mem::{fill, lazy, map, own, shared, tids, vdso};
use crate::report::{self, Error, Printable, Result, fail, say};
use crate::shared::{Step, TaskShared};
use crate::sys::{fd, process};
use crate::{attributes, family, files, objects, sharers, signals, sysv, threads, timers};
use ckpt_format::{Mm, Task};
use core::sync::atomic::Ordering;
use linux_raw_sys::general::{__NR_close, __NR_munmap, __NR_prctl, __NR_set_robust_list};
use linux_raw_sys::prctl::{PR_SET_DUMPABLE, PR_SET_PTRACER};

/// Restores the root of the tree in the calling process, and the others in children of it.
pub fn become_program(ctx: &'static Ctx) -> ! {
    match begin(ctx) {
        Ok(()) => become_task(ctx),
        // What failed is no process's in particular.
        Err(e) => {
            ctx.shared.explained.store(1, Ordering::SeqCst);
            fail(e)
        }
    }
}

/// Restores the task of the calling process and waits for the tracer.
pub fn become_task(ctx: &'static Ctx) -> ! {
    match prepare(ctx) {
        Ok(own) => own.hand_over(ctx.shared),
        Err(e) => give_up(ctx, e),
    }
}

/// Says why the calling process cannot be restored, and ends.
pub fn give_up(ctx: &Ctx, error: Error) -> ! {
    ctx.shared.explained.store(1, Ordering::SeqCst);
    if !ctx.is_alone()
        && let Ok(task) = ctx.task()
    {
        let name = ctx.threads(task).map_or([0; 16], |t| t[0].name);
        let name = name.split(|b| *b == 0).next().unwrap_or(b"");
        say(format_args!("process {} ({}): {error}", task.pid, Printable(name)));
        process::exit_group(ckpt_format::EXIT_RESTORE_FAILED);
    }
    fail(error)
}

/// What is made once, before there are several processes: they inherit it.
fn begin(ctx: &'static Ctx) -> Result<()> {
    let tracer = ctx.shared.wait_for_tracer();
    // Yama: the tracer is no ancestor of ours. EINVAL where there is no Yama.
    let _ = process::prctl(PR_SET_PTRACER, tracer as u64, 0);
    attributes::raise_limits();
    attributes::stop_timers();
    signals::unblock(ctx.callers_mask);
    own::unmap_all(&ctx.config)?;
    report::passed("the tracer is there");
    sysv::create(ctx)?;
    files::make_missing(ctx)?;
    shared::create_several(ctx)?;
    objects::create_all(ctx)?;
    report::passed("descriptors are made");
    Ok(())
}

fn prepare(ctx: &'static Ctx) -> Result<&'static TaskShared> {
    if !ctx.is_root() {
        let _ = process::prctl(PR_SET_PTRACER, ctx.shared.wait_for_tracer() as u64, 0);
    }
    family::grow(ctx)?;
    let (task, own) = (ctx.task()?, ctx.own()?);
    let mm = ctx.mm(task)?;
    sharers::make(ctx, task)?;
    report::detail(format_args!("becomes process {}", task.pid));
    let kept_vdso = place(ctx, task, mm, own)?;
    sharers::go_on(ctx);
    files::hush(ctx)?;
    if !ctx.is_alone() {
        own.done(ctx.shared, Step::Placed);
    }
    finish(ctx, task, mm)?;
    if ctx.is_root() {
        family::take_terminal(ctx, task);
    }
    family::stop_children(ctx, task)?;
    family::forget_signals(ctx);
    signals::queue_for_process(ctx, task)?;
    let leader = ctx.threads(task)?.first().ok_or(Error::new("no leader"))?;
    threads::settle(ctx, leader)?;
    last_calls(ctx, own, mm, leader.robust_list, kept_vdso)?;
    timers::arm(ctx, task)?;
    close_own(ctx, task)?;
    Ok(own)
}

/// Descriptors, memory, threads.
fn place(ctx: &'static Ctx, task: &'static Task, mm: &Mm, own: &TaskShared) -> Result<vdso::Kept> {
    let kept_vdso = vdso::place(ctx, mm)?;
    match ctx.fd_owner(task) {
        Some(owner) if owner != ctx.index() => ctx.tasks[owner].wait_for_descriptors(),
        _ => {
            objects::place(ctx, task)?;
            own.descriptors_are_placed();
        }
    }
    report::passed("descriptors are placed");
    // The link to the executable cannot change while the image is mapped (replace_mm_exe_file()).
    let early = ctx.options.maps_memory();
    if early {
        attributes::set_mm(ctx, mm)?;
    }
    map::map_all(ctx, mm)?;
    lazy::begin(ctx, mm)?;
    report::passed("memory is mapped");
    let suspects = fill::fill_all(ctx, mm)?;
    lazy::fill_first(ctx, task, mm)?;
    report::passed("memory is filled");
    map::finish_all(ctx, mm)?;
    report::passed("memory has its rights");
    if !early {
        attributes::set_mm(ctx, mm)?;
    }
    attributes::set_directories(ctx, task)?;
    signals::block_all();
    signals::set_actions(ctx, task)?;
    attributes::set_marks(ctx, task, mm)?;
    threads::create(ctx, task, own)?;
    report::passed("threads are made");
    if ctx.mode() == Mode::New {
        tids::correct(ctx, task, mm, suspects)?;
    }
    Ok(kept_vdso)
}

/// What needs all processes, their memory and their threads.
fn finish(ctx: &'static Ctx, task: &'static Task, mm: &Mm) -> Result<()> {
    map::lock_and_seal(ctx, mm)?;
    finish_process(ctx, task)
}

/// As far as it does not concern the address space.
pub fn finish_process(ctx: &'static Ctx, task: &'static Task) -> Result<()> {
    objects::finish(ctx, task)?;
    sysv::finish(ctx, task)?;
    timers::create(ctx, task)?;
    attributes::set_limits(task)
}

/// The robust list of the leader until now is ours.
pub fn last_call(own: &TaskShared, robust_list: u64) -> Result<()> {
    own.add_call(__NR_set_robust_list, [robust_list, 24, 0, 0, 0, 0])
}

/// What the tracer does in the leader's name: what would disturb the hand-over, and the unmapping
/// of the code that runs now.
fn last_calls(
    ctx: &Ctx,
    shared: &TaskShared,
    mm: &Mm,
    robust_list: u64,
    kept_vdso: vdso::Kept,
) -> Result<()> {
    last_call(shared, robust_list)?;
    // A change of credentials made it undumpable, which forbids ptrace; 2 cannot be asked for.
    process::prctl(PR_SET_DUMPABLE, 1, 0).map_err(Error::os("cannot become dumpable"))?;
    if mm.dumpable != 1 {
        shared.add_call(__NR_prctl, [u64::from(PR_SET_DUMPABLE), 0, 0, 0, 0, 0])?;
    }
    if process::prctl(PR_SET_PTRACER, ctx.shared.wait_for_tracer() as u64, 0).is_ok() {
        shared.add_call(__NR_prctl, [u64::from(PR_SET_PTRACER), 0, 0, 0, 0, 0])?;
    }
    if let number @ 1.. = shared.uffd.load(Ordering::SeqCst) {
        shared.add_call(__NR_close, [number as u64, 0, 0, 0, 0, 0])?;
    }
    let (hole, end) = (ctx.config.hole_addr, ctx.config.hole_addr + ctx.config.hole_len);
    let kept = kept_vdso.map_or((end, end), |k| (k.start as u64, k.end as u64));
    if kept.1 < end {
        shared.add_call(__NR_munmap, [kept.1, end - kept.1, 0, 0, 0, 0])?;
    }
    shared.add_call(__NR_munmap, [hole, kept.0 - hole, 0, 0, 0, 0])
}

/// Closes the stub's descriptors; messages end here. Of a table that several share, only the one that
/// restores it knows when they are not needed any more.
fn close_own(ctx: &Ctx, task: &Task) -> Result<()> {
    report::passed("only registers are missing");
    report::end();
    match ctx.fd_owner(task) {
        Some(owner) if owner != ctx.index() => Ok(()),
        _ => {
            ctx.place_kept()?;
            match ctx.own()?.uffd.load(Ordering::SeqCst) {
                // That one the tracer closes.
                number @ 1.. => {
                    let failed = Error::os("cannot close descriptors");
                    fd::close_range(ctx.high_fd(), number as u32 - 1).map_err(&failed)?;
                    fd::close_range(number as u32 + 1, u32::MAX).map_err(failed)
                }
                _ => close_descriptors(ctx),
            }
        }
    }
}

/// The stub's, in a table of the calling process's own.
pub fn close_descriptors(ctx: &Ctx) -> Result<()> {
    fd::close_range(ctx.high_fd(), u32::MAX).map_err(Error::os("cannot close descriptors"))
}
