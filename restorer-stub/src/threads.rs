//! Threads: creation, and the state that each one sets for itself.

use crate::ctx::{Ctx, Mode};
use crate::report::{Error, On, Result, detail, note};
use crate::restore::give_up;
use crate::shared::TaskShared;
use crate::sys::process::{self, futex_wait};
use crate::sys::{Errno, sched, signal, thread};
use crate::{creds, signals};
use ckpt_format::stub::WORK_PER_THREAD;
use ckpt_format::thread::thread_flags;
use ckpt_format::{Image, Task, Thread};
use core::sync::atomic::Ordering;
use linux_raw_sys::general::*;
use linux_raw_sys::prctl::{PR_SET_PDEATHSIG, PR_SET_TIMERSLACK};

/// Creates every thread but the leader. Each settles itself and waits for its registers.
pub fn create(ctx: &'static Ctx, task: &Task, own: &TaskShared) -> Result<()> {
    let first = task.threads.first as usize;
    ctx.tids[first].store(process::gettid(), Ordering::SeqCst);
    let threads = ctx.threads(task)?;
    let flags = CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    for (i, saved) in threads.iter().enumerate().skip(1) {
        let stack = ctx.work.stack(WORK_PER_THREAD as usize)?;
        let id = (ctx.mode() != Mode::New).then_some(saved.tid);
        let tid = thread::spawn(stack, flags, id, run, ctx, first + i).map_err(|e| {
            let error = Error::os("cannot create thread")(e).on(On::Pid(saved.tid));
            match e {
                Errno::EEXIST => error.remedy("its id is taken: use --pid ns or --pid new"),
                Errno::EPERM => error.remedy("choosing ids needs privileges: use --pid ns or --pid new"),
                Errno::EAGAIN => error.remedy("raise the limit of processes (ulimit -u)"),
                _ => error,
            }
        })?;
        ctx.tids[first + i].store(tid, Ordering::SeqCst);
        detail(format_args!("thread {} is made as {tid}", saved.tid));
    }
    let others = threads.len() as u32 - 1;
    loop {
        let parked = own.parked.load(Ordering::SeqCst);
        if parked == others {
            return Ok(());
        }
        futex_wait(&own.parked, parked);
    }
}

/// What a new thread does: `index` is its place in the thread table.
fn run(ctx: &'static Ctx, index: usize) -> ! {
    match settle_and_park(ctx, index) {
        Ok(()) => loop {
            futex_wait(&ctx.shared.never, 0);
        },
        Err(e) => give_up(ctx, e),
    }
}

fn settle_and_park(ctx: &'static Ctx, index: usize) -> Result<()> {
    let saved = Image::get(ctx.image.threads, index as u32, "thread")?;
    settle(ctx, saved)?;
    set_own_robust_list(saved)?;
    // Several tasks may live in this address space.
    let task =
        ctx.tasks.get(saved.task as usize).ok_or(Error::new("the image is damaged: bad task index"))?;
    task.parked.fetch_add(1, Ordering::SeqCst);
    process::futex_wake(&task.parked);
    Ok(())
}

fn set_own_robust_list(t: &Thread) -> Result<()> {
    thread::set_robust_list(t.robust_list, 24).map_err(Error::os("cannot set a robust list"))
}

/// Everything that a thread can only set for itself, except the leader's robust list (the tracer
/// sets that one, see `tracer`). Memory is in place.
pub fn settle(ctx: &Ctx, t: &Thread) -> Result<()> {
    let failed = |what: &'static str| move |e| Error::os(what)(e).on(On::Pid(t.tid));
    process::set_name(&t.name);
    thread::set_tid_address(t.tid_address);
    altstack(t).map_err(failed("cannot set the alternate signal stack of thread"))?;
    schedule(ctx, t)?;
    signals::queue_for_thread(ctx, t)?;
    creds::set(ctx, Image::get(ctx.image.creds, t.creds, "credentials")?)?;
    // After the credentials, a change of which clears both.
    process::prctl(PR_SET_PDEATHSIG, u64::from(t.pdeathsig), 0)
        .map_err(failed("cannot set the parent-death signal of thread"))?;
    if t.timer_slack_ns != 0 {
        let _ = process::prctl(PR_SET_TIMERSLACK, t.timer_slack_ns, 0);
    }
    if t.rseq_addr != 0 {
        thread::register_rseq(t.rseq_addr, t.rseq_len, t.rseq_sig)
            .map_err(failed("cannot register the rseq area of thread"))?;
    }
    Ok(())
}

fn altstack(t: &Thread) -> crate::sys::Result<()> {
    let flags = t.altstack_flags as u32;
    if flags & SS_DISABLE != 0 || t.altstack_size == 0 {
        return signal::set_altstack(0, SS_DISABLE, 0);
    }
    signal::set_altstack(t.altstack_sp, flags & SS_AUTODISARM, t.altstack_size)
}

/// Policy, priority, affinity. What is as by default is left alone: then the caller's nice value
/// and CPU set count, as for any command.
fn schedule(ctx: &Ctx, t: &Thread) -> Result<()> {
    let failed = |what: &'static str| move |e| Error::os(what)(e).on(On::Pid(t.tid));
    if t.flags & thread_flags::AFFINITY_ALL == 0 && t.affinity.len > 0 {
        match sched::set_affinity(ctx.image.blob(t.affinity)?) {
            Ok(()) => {}
            Err(Errno::EINVAL) => {
                note(format_args!("thread {}: its CPUs do not exist here, all are allowed", t.tid));
            }
            Err(e) => return Err(failed("cannot set the CPU affinity of thread")(e)),
        }
    }
    let differs = t.sched_policy != sched::policy() || t.sched_priority != 0 || t.sched_flags != 0;
    // SCHED_NORMAL, nice 0.
    let default = t.sched_policy == 0 && t.sched_flags == 0 && t.sched_nice == 0;
    if default {
        return ioprio(t);
    }
    let remedy = "run the image with CAP_SYS_NICE, or raise the limits (ulimit -e, -r)";
    if differs {
        sched::set_attr(t)
            .map_err(|e| failed("cannot set the scheduling policy of thread")(e).remedy(remedy))?;
    }
    // Every policy has one, but sched_setattr(2) sets it for SCHED_NORMAL and SCHED_BATCH only.
    if t.sched_nice != sched::nice() {
        sched::set_nice(t.sched_nice)
            .map_err(|e| failed("cannot set the nice value of thread")(e).remedy(remedy))?;
    }
    ioprio(t)
}

fn ioprio(t: &Thread) -> Result<()> {
    if t.ioprio != 0 && sched::ioprio() != Ok(t.ioprio) {
        sched::set_ioprio(t.ioprio)
            .map_err(|e| Error::os("cannot set the I/O priority of thread")(e).on(On::Pid(t.tid)))?;
    }
    Ok(())
}
