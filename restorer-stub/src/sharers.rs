//! Processes that live in the address space of another one (CLONE_VM without CLONE_THREAD). The one that
//! restores the memory makes them before it takes its descriptors, so that each can take its own, and
//! they wait until everything is mapped.

use crate::ctx::{Ctx, is_brief};
use crate::family;
use crate::report::{Error, On, Result};
use crate::restore::{self, give_up};
use crate::shared::Step;
use crate::sys::{process, signal, thread};
use crate::{attributes, files, objects, signals, threads, timers};
use ckpt_format::Task;
use linux_raw_sys::general::{CLONE_FILES, CLONE_FS, CLONE_SIGHAND};
use linux_raw_sys::prctl::PR_SET_PDEATHSIG;

const SIGSTOP: i32 = 19;
/// Bytes of a sharer's stack.
const STACK: usize = 64 << 10;

/// Those that live in the address space which the task `owner` restores.
fn sharers(ctx: &Ctx, owner: usize) -> impl Iterator<Item = (usize, &'static Task)> {
    let tasks = ctx.image.tasks.iter().enumerate();
    let mm = ctx.image.tasks.get(owner).map(|t| t.mm);
    tasks.filter(move |(i, t)| {
        *i != owner && Some(t.mm) == mm && !is_brief(t) && ctx.mm_owner(t) == Some(owner)
    })
}

/// Makes them all. Nothing of the program is mapped yet.
pub fn make(ctx: &'static Ctx, owner: &Task) -> Result<()> {
    for (index, task) in sharers(ctx, ctx.index()) {
        let share = |same: bool, flag: u32| if same { flag } else { 0 };
        let flags = share(task.fd_table == owner.fd_table, CLONE_FILES)
            | share(task.fs == owner.fs, CLONE_FS)
            | share(task.sighand == owner.sighand, CLONE_SIGHAND);
        let stack = ctx.work.stack(STACK)?;
        let mask = signals::block_all();
        let made = thread::spawn_process(stack, flags, task.exit_signal as u32, task.pid, run, ctx, index)
            .and_then(family::begun);
        signal::set_mask(mask);
        made.map_err(|e| family::cannot_make(e, task.pid))?;
        if task.fd_table != owner.fd_table {
            ctx.tasks[index].wait_for_descriptors();
        }
    }
    Ok(())
}

/// The owner's memory and descriptors are in place.
pub fn go_on(ctx: &Ctx) {
    for (index, _) in sharers(ctx, ctx.index()) {
        ctx.tasks[index].memory_is_placed();
    }
}

fn run(ctx: &'static Ctx, index: usize) -> ! {
    match live(ctx, index) {
        Ok(()) => ctx.tasks[index].hand_over(ctx.shared),
        Err(e) => give_up(ctx, e),
    }
}

/// The stages of [`crate::restore`], as far as they are not the owner's. What the owner's process
/// knows of itself (`ctx.current`) does not hold here.
fn live(ctx: &'static Ctx, index: usize) -> Result<()> {
    let task = ctx.image.tasks.get(index).ok_or(Error::new("bad task index"))?;
    let own = &ctx.tasks[index];
    let owner = ctx.task()?;
    own.own()?;
    family::end_with(owner.pid);
    process::kill(process::getpid(), SIGSTOP)
        .map_err(|e| Error::os("cannot begin process")(e).on(On::Pid(task.pid)))?;
    let _ = process::prctl(PR_SET_PDEATHSIG, 0, 0);
    family::take_identity(ctx, task)?;
    if task.fd_table != owner.fd_table {
        objects::place(ctx, task)?;
        own.descriptors_are_placed();
    }
    own.wait_for_memory();
    if task.fs != owner.fs {
        attributes::set_directories(ctx, task)?;
    }
    if task.sighand != owner.sighand {
        signals::set_actions(ctx, task)?;
    }
    attributes::set_marks(ctx, task, ctx.mm(task)?)?;
    threads::create(ctx, task, own)?;
    if task.fd_table != owner.fd_table {
        files::hush(ctx)?;
    }
    own.done(ctx.shared, Step::Placed);
    restore::finish_process(ctx, task)?;
    signals::queue_for_process(ctx, task)?;
    let leader = ctx.threads(task)?.first().ok_or(Error::new("no leader"))?;
    threads::settle(ctx, leader)?;
    restore::last_call(own, leader.robust_list)?;
    timers::arm(ctx, task)?;
    if ctx.fd_owner(task) == Some(index) {
        restore::close_descriptors(ctx)?;
    }
    Ok(())
}
