//! `--memory lazy`: the tracer of a program that runs while its memory is still being filled (`mem::lazy`).
//!
//! It is a process of its own, beside the supervisor or the namespace's init, as those have to go on. It leads
//! the restore as always, but does not let go of the threads: every system call but a few (`lazy_calls`) is
//! held back at its entry, and every signal at its delivery, until all is filled. So the program
//! runs on by itself, but does nothing that would show what is missing; and nothing waits for longer than an
//! eager restore takes. Then the tracer lets go of everything at once, and ends.
//!
//! If it is killed, so is the program (PTRACE_O_EXITKILL), and the helpers say why; if a helper is killed, or
//! fails, the tracer kills the program, and says so.

use crate::ctx::Ctx;
use crate::family::fork_begun;
use crate::lazy_calls::{Ranges, needs};
use crate::mem::lazy_fill::{Filler, Filling, MAX_HELPERS, Space};
use crate::mem::{lazy, own};
use crate::report::{self, Error, On, Result, say};
use crate::shared::Said;
use crate::sys::process::{self, Wait};
use crate::sys::ptrace::{self, At};
use crate::sys::{Errno, fd};
use crate::tracer::{self, Outcome};
use ckpt_format::{EXIT_RESTORE_FAILED, NONE};
use core::sync::atomic::Ordering;
use linux_raw_sys::general::*;
use linux_raw_sys::prctl::PR_SET_CHILD_SUBREAPER;
use linux_raw_sys::ptrace::PTRACE_EVENT_STOP;

const SIGKILL: i32 = 9;
const SIGCHLD: u32 = 17;
const SIGTRAP: i32 = 5;

/// Leads the restore from a process of its own; returns when the program is about to run, or cannot.
pub fn run_apart(ctx: &'static Ctx) -> Result<Outcome> {
    let tracer = match fork_apart(ctx) {
        Ok(0) => lead(ctx),
        Ok(pid) => pid,
        Err(e) => {
            ctx.shared.lazy.store(0, Ordering::SeqCst);
            lazy::not_lazily(format_args!("no process can be made that traces it: {e}"));
            ctx.shared.own_tracer()?;
            return tracer::run(ctx);
        }
    };
    match ctx.shared.wait_for_handing_over() {
        Said::Done => {
            // From now on whoever waits for the tracer's end waits for ours, as always.
            let _ = process::prctl(PR_SET_CHILD_SUBREAPER, 0, 0);
            ctx.shared.filler.store(tracer as u32, Ordering::SeqCst);
            ctx.shared.take_over()?;
            Ok(Outcome::Running)
        }
        said => {
            let _ = process::wait(tracer, __WALL);
            ctx.shared.own_tracer()?;
            match (said, ctx.shared.lost.load(Ordering::SeqCst)) {
                (Said::Dead, _) => Err(Error::new("somebody killed the tracer")),
                (_, NONE) => Ok(Outcome::Failed),
                (_, index) => Ok(Outcome::Lost(index as usize)),
            }
        }
    }
}

/// Whether there is a tracer that has not been seen to end, in who made it.
pub fn is_at_work(ctx: &Ctx) -> bool {
    ctx.shared.filler.load(Ordering::SeqCst) != 0
}

/// A child of who made the tracer has ended. If it is the tracer there is nothing more to be said, but that it has not
/// done its part: then it has taken the program with it, and the answer is true.
pub fn ended(ctx: &Ctx, pid: i32, status: Wait) -> bool {
    if ctx.shared.filler.compare_exchange(pid as u32, 0, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        return false;
    }
    let failed = status != Wait::Exited(0);
    if failed && ctx.shared.explained.swap(1, Ordering::SeqCst) == 0 {
        say(format_args!("the program is killed, as the tracer was that saw to its memory"));
    }
    let _ = fd::close_range(0, u32::MAX);
    report::end();
    failed
}

/// Reaps the tracer, in the supervisor, if it has ended: the program is to be killed if the answer is true. Waits
/// for its end without WNOHANG.
pub fn reap(ctx: &Ctx, options: u32) -> bool {
    let tracer = ctx.shared.filler.load(Ordering::SeqCst) as i32;
    tracer != 0
        && process::wait(tracer, __WALL | options)
            .is_ok_and(|found| found.is_some_and(|(pid, status)| ended(ctx, pid, status)))
}

/// Forks the tracer, with an id that none of the image's processes and threads has.
fn fork_apart(ctx: &'static Ctx) -> crate::sys::Result<i32> {
    let is_taken = |id: i32| {
        ctx.image.threads.iter().any(|t| t.tid == id) || ctx.image.tasks.iter().any(|t| t.pid == id)
    };
    for _ in 0..=ctx.image.threads.len() + ctx.image.tasks.len() {
        let forked = fork_begun(SIGCHLD, 0, None, || {
            ctx.shared.end_with_supervisor();
            if is_taken(process::getpid()) {
                process::exit_group(0);
            }
            ctx.shared.own_tracer()
        });
        // It has ended before it had begun.
        if forked != Err(Errno::ECHILD) {
            return forked;
        }
    }
    Err(Errno::EAGAIN)
}

/// The tracer.
fn lead(ctx: &'static Ctx) -> ! {
    process::set_name(b"ckpt-lazy\0\0\0\0\0\0\0");
    let _ = own::unmap_all(&ctx.config);
    match tracer::run(ctx) {
        Ok(Outcome::Running) => process::exit_group(0),
        Ok(Outcome::Lost(index)) => ctx.shared.lost.store(index as u32, Ordering::SeqCst),
        Ok(Outcome::Failed) => {}
        Err(e) => {
            let said = ctx.shared.explained.swap(1, Ordering::SeqCst) != 0;
            if ctx.shared.resumed.load(Ordering::SeqCst) == 0 {
                say(format_args!("{e}"));
            } else if !said {
                say(format_args!("the program is killed, as not all of its memory was there yet: {e}"));
            }
        }
    }
    ctx.shared.give_up();
    process::exit_group(EXIT_RESTORE_FAILED)
}

/// The userfaultfds of all tasks, which have stopped, and may not be dumpable any more in a moment. `None`
/// where memory is read first.
pub fn collect(ctx: &'static Ctx) -> Result<Option<&'static [Space]>> {
    if !ctx.shared.is_lazy() {
        return Ok(None);
    }
    let numbers =
        || ctx.tasks.iter().map(|s| s.uffd.load(Ordering::SeqCst)).enumerate().filter(|(_, n)| *n > 0);
    let spaces = &*ctx.work.slice::<Space>(numbers().count())?;
    for ((index, number), space) in numbers().zip(spaces) {
        let task = ctx.image.tasks.get(index).ok_or(Error::new("bad task index"))?;
        let pidfd = process::pidfd_open(task.pid);
        let uffd = pidfd.and_then(|pidfd| {
            let uffd = process::pidfd_getfd(pidfd, number);
            fd::close(pidfd);
            uffd
        });
        let uffd = uffd.map_err(|e| {
            Error::os("cannot get the userfaultfd of")(e).on(On::Pid(task.pid)).remedy("use --memory eager")
        })?;
        space.set(index, uffd);
    }
    Ok(Some(spaces))
}

/// What a thread does: it runs, it has ended, or it is held in a stop, at a system call or at the delivery of
/// a signal, whose number it is then.
const RUNS: i32 = 0;
const ENDED: i32 = -1;
const HELD: i32 = -2;

struct Tracing {
    ctx: &'static Ctx,
    /// By thread.
    states: &'static mut [i32],
    /// Processes at work; 0 for none.
    helpers: [i32; MAX_HELPERS],
    /// `None` where nothing is missing.
    filler: Option<Filler>,
}

/// All threads have their registers: fills memory while they run, and lets go of them when all is there.
pub fn fill(ctx: &'static Ctx, spaces: &'static [Space]) -> Result<()> {
    let states = ctx.work.slice(ctx.tids.len())?;
    let mut tracing = Tracing { ctx, states, helpers: [0; MAX_HELPERS], filler: None };
    ctx.shared.hand_over();
    let mut filling: Option<&'static Filling> = None;
    if !spaces.is_empty() {
        let filling: &'static Filling = filling.insert(ctx.work.value(Filling::new(ctx, spaces)?)?);
        tracing.filler = Some(filling.filler()?);
        let mut slots = tracing.helpers.iter_mut();
        filling.start(|pid| slots.next().into_iter().for_each(|slot| *slot = pid))?;
    }
    ctx.shared.resumed.store(1, Ordering::SeqCst);
    for tid in ctx.tids {
        // One that is gone was killed: that is told below.
        let _ = ptrace::to_syscall(tid.load(Ordering::SeqCst));
    }
    filling.into_iter().for_each(Filling::begin);
    report::passed("the program runs, while its memory is being filled");
    tracing.watch()?;
    report::passed("all memory is there");
    // Takes back what was registered; whoever waits for a page without contents goes on.
    spaces.iter().for_each(|s| fd::close(s.uffd()));
    tracing.stop_all();
    tracing.let_go();
    Ok(())
}

impl Tracing {
    fn index(&self, tid: i32) -> Option<usize> {
        self.ctx.tids.iter().position(|t| t.load(Ordering::Relaxed) == tid)
    }

    /// Holds what would show that memory is missing, until all helpers have done their part.
    fn watch(&mut self) -> Result<()> {
        while self.helpers.iter().any(|pid| *pid != 0) {
            let (pid, status) = process::wait(-1, __WALL)
                .map_err(Error::os("cannot wait for the restored program"))?
                .ok_or(Error::new("no status of the restored program"))?;
            if let Some(helper) = self.helpers.iter_mut().find(|h| **h == pid) {
                if status != Wait::Exited(0) {
                    return Err(Error::new("a process that was to fill it has ended:").on(On::Pid(pid)));
                }
                *helper = 0;
            } else if let Some(index) = self.index(pid) {
                self.states[index] = self.judge(index, pid, status)?;
                if self.states.iter().all(|s| *s == ENDED) {
                    self.dismiss();
                }
                if self.states[index] == RUNS {
                    // If it is gone, that is told next.
                    let _ = ptrace::to_syscall(pid);
                }
            }
        }
        Ok(())
    }

    /// Nobody is left whose memory is to be filled.
    fn dismiss(&mut self) {
        for pid in self.helpers.iter_mut().filter(|pid| **pid != 0) {
            let _ = process::kill(*pid, SIGKILL);
            let _ = process::wait(*pid, __WALL);
            *pid = 0;
        }
    }

    /// Brings every thread into a stop. None is inside of a system call that would notice: all of those that
    /// were let pass go on where they were.
    fn stop_all(&mut self) {
        for (state, tid) in self.states.iter_mut().zip(self.ctx.tids).filter(|(s, _)| **s == RUNS) {
            let tid = tid.load(Ordering::Relaxed);
            let _ = ptrace::interrupt(tid);
            *state = match process::wait(tid, __WALL) {
                Ok(Some((_, Wait::Stopped(signal, 0)))) if signal & 0x80 == 0 => signal,
                Ok(Some((_, Wait::Stopped(..)))) => HELD,
                _ => ENDED,
            };
        }
    }

    /// Of other threads before leaders, of children before parents.
    fn let_go(&self) {
        for (state, tid) in self.states.iter().zip(self.ctx.tids).rev() {
            // Fails for those that have been killed since.
            let _ = ptrace::detach_with(tid.load(Ordering::Relaxed), (*state).max(0));
        }
    }
}

impl Tracing {
    /// What a thread that has told something does next.
    fn judge(&mut self, index: usize, tid: i32, status: Wait) -> Result<i32> {
        Ok(match status {
            Wait::Exited(_) | Wait::Killed(_) => ENDED,
            Wait::Continued => RUNS,
            // A group stop, which is one already; or a notice of SIGCONT.
            Wait::Stopped(signal, PTRACE_EVENT_STOP) => {
                if signal == SIGTRAP {
                    RUNS
                } else {
                    HELD
                }
            }
            Wait::Stopped(signal, 0) if signal == SIGTRAP | 0x80 => match ptrace::syscall_stop(tid) {
                Ok(At::Entry(call)) => match call.and_then(|(nr, args)| needs(nr, &args)) {
                    Some(ranges) if self.is_there(index, &ranges)? => RUNS,
                    _ => HELD,
                },
                // ESRCH: it has been killed, which is told next.
                Ok(At::Exit) | Err(Errno::ESRCH) => RUNS,
                Err(e) => return Err(Error::os("cannot look at a system call of")(e).on(On::Pid(tid))),
            },
            Wait::Stopped(signal, 0) => signal,
            Wait::Stopped(..) => RUNS,
        })
    }

    /// Fills what a call of a thread needs. False if somebody else is about to, and takes long.
    fn is_there(&mut self, thread: usize, ranges: &Ranges) -> Result<bool> {
        let task = self.ctx.image.threads.get(thread).map_or(0, |t| t.task);
        let Some(filler) = &mut self.filler else { return Ok(true) };
        for (start, len) in ranges.iter().filter(|(start, len)| *start != 0 && *len > 0) {
            if !filler.provide(task, *start, *len)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
