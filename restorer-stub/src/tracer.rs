//! The tracer: leads all tasks from step to step, gives each restored thread its registers, removes the
//! stub from the program and lets go. In place it is a grandchild that init reaps; otherwise the
//! supervisor, or the namespace's init.

use crate::arch;
use crate::ctx::Ctx;
use crate::report::{self, Error, On, Result};
use crate::shared::{Said, Step};
use crate::sys::process::{self, Wait};
use crate::sys::ptrace;
use crate::{files, objects, seccomp, sysv, tracer_lazy};
use ckpt_format::task::task_flags;
use ckpt_format::{Regs, Task, Thread};
use core::sync::atomic::{AtomicI32, Ordering};
use linux_raw_sys::general::__WALL;
use linux_raw_sys::prctl::PR_SET_CHILD_SUBREAPER;
use linux_raw_sys::ptrace::{PTRACE_EVENT_STOP, PTRACE_O_EXITKILL, PTRACE_O_TRACESYSGOOD};

const SIGTRAP: i32 = 5;
const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;

/// What came of a restore that went as far as tasks can go by themselves.
pub enum Outcome {
    /// Everything runs.
    Running,
    /// The task of that index ended before; if it could, it said why.
    Lost(usize),
    /// Somebody has said why.
    Failed,
}

/// Leads all tasks to where only their registers are missing, makes them run on and lets go.
///
/// # Errors
/// When a thread cannot be traced: nothing has run then, and nothing may.
pub fn run(ctx: &'static Ctx) -> Result<Outcome> {
    let outcome = lead(ctx);
    if !matches!(outcome, Ok(Outcome::Running)) {
        sysv::remove_made(ctx);
        files::remove_made(ctx);
        let _ = objects::remove_made(ctx);
    }
    outcome
}

fn lead(ctx: &'static Ctx) -> Result<Outcome> {
    for step in [Step::Created, Step::Joined, Step::Placed, Step::Ready] {
        for (index, shared) in ctx.tasks.iter().enumerate() {
            if ctx.takes_part(index, step) && shared.wait(step) != Said::Done {
                return Ok(Outcome::Lost(index));
            }
        }
        if step != Step::Ready {
            ctx.shared.all_done(step);
        }
    }
    // The supervisor was one, so that nothing could escape from a failing restore. Orphans of the
    // program are not to become its children.
    let _ = process::prctl(PR_SET_CHILD_SUBREAPER, 0, 0);
    let mut live = ctx.image.tasks.iter().filter(|t| t.threads.count > 0);
    let stopped = live.try_for_each(|task| stop_all(tids(ctx, task)?));
    if let Err(e) = stopped {
        // The stub is still there: all end by themselves, with the status of a failed restore.
        ctx.shared.give_up();
        for_all(ctx, ptrace::detach);
        return Err(e);
    }
    report::passed("threads are stopped");
    if let Err(e) = set_and_let_go(ctx) {
        for_all(ctx, |tid| process::kill(tid, SIGKILL));
        return Err(e);
    }
    Ok(Outcome::Running)
}

/// All threads are stopped: gives them their state, and lets them run.
fn set_and_let_go(ctx: &'static Ctx) -> Result<()> {
    let missing = tracer_lazy::collect(ctx)?;
    let mut state = Xstate::new(ctx)?;
    // Those that live in the address space of another before that one, which has the stub unmapped.
    let mut backwards = ctx.image.tasks.iter().enumerate().rev().filter(|(_, t)| t.threads.count > 0);
    backwards.try_for_each(|(index, task)| set_all(ctx, index, task, &mut state))?;
    report::passed("threads have their registers");
    if let Some(missing) = missing {
        return tracer_lazy::fill(ctx, missing);
    }
    ctx.shared.resumed.store(1, Ordering::SeqCst);
    let_go(ctx)?;
    report::passed("the program runs");
    Ok(())
}

/// Detaches: first from stopped tasks, so that their parents, which run on only then, find them stopped.
/// Then from the others, parents after their children.
fn let_go(ctx: &Ctx) -> Result<()> {
    let live = || ctx.image.tasks.iter().filter(|t| t.threads.count > 0);
    let is_stopped = |t: &&Task| t.flags & task_flags::STOPPED != 0;
    // A thread can only be gone when somebody killed the program.
    let detach = |task: &Task| -> Result<()> {
        for tid in tids(ctx, task)? {
            let _ = ptrace::detach(tid.load(Ordering::SeqCst));
        }
        Ok(())
    };
    live().filter(is_stopped).try_for_each(detach)?;
    for task in live().filter(is_stopped) {
        let leader = tids(ctx, task)?.first().map_or(0, |t| t.load(Ordering::SeqCst));
        // It is on its way from the one kind of stop to the other, and nothing tells of its arrival.
        for _ in 0..10_000 {
            match crate::supervisor::state_of(leader) {
                Some(b'T') | None => break,
                Some(_) => process::yield_now(),
            }
        }
    }
    live().rev().filter(|t| !is_stopped(t)).try_for_each(detach)
}

/// Does the same to every restored thread, come what may.
fn for_all(ctx: &Ctx, f: impl Fn(i32) -> crate::sys::Result<()>) {
    for tid in ctx.tids {
        let _ = f(tid.load(Ordering::SeqCst));
    }
}

fn tids<'a>(ctx: &'a Ctx, task: &Task) -> Result<&'a [AtomicI32]> {
    ctx.tids.get(task.threads.indices()).ok_or(Error::new("the image is damaged: bad thread range"))
}

/// Attaches to all threads and stops them.
fn stop_all(tids: &[AtomicI32]) -> Result<()> {
    for tid in tids {
        attach(tid.load(Ordering::SeqCst))?;
    }
    for tid in tids {
        wait_stop(tid.load(Ordering::SeqCst), Stop::Interrupt)?;
    }
    Ok(())
}

/// Everything of a stopped task: the last calls of the leader, then the state of all threads.
fn set_all(ctx: &Ctx, index: usize, task: &Task, state: &mut Xstate) -> Result<()> {
    let tids = tids(ctx, task)?;
    let tids = || tids.iter().map(|t| t.load(Ordering::SeqCst));
    let leader = tids().next().unwrap_or(0);
    let shared = ctx.tasks.get(index).ok_or(Error::new("bad task index"))?;
    for call in shared.calls() {
        inject(leader, &call)?;
    }
    stop_again(leader)?;
    seccomp::install(ctx, task, tids())?;
    // Other stopped tasks have been stopped by their parents; see `family`.
    let stopped = task.flags & task_flags::STOPPED != 0;
    if stopped && index == ctx.image.header.root_task as usize || ctx.options.stopped && !stopped {
        group_stop(leader, tids())?;
    }
    for (thread, tid) in ctx.threads(task)?.iter().zip(tids()) {
        set_state(ctx, thread, tid, state)?;
    }
    Ok(())
}

/// Behind a system call that was injected.
pub fn stop_again(tid: i32) -> Result<()> {
    ptrace::interrupt(tid).map_err(failed("cannot stop", tid))?;
    ptrace::cont(tid, 0).map_err(failed("cannot continue", tid))?;
    wait_stop(tid, Stop::Interrupt)
}

fn failed(what: &'static str, tid: i32) -> impl Fn(crate::sys::Errno) -> Error {
    move |e| Error::os(what)(e).on(On::Pid(tid))
}

fn attach(tid: i32) -> Result<()> {
    ptrace::seize(tid, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD).map_err(|e| {
        failed("cannot trace the restored thread", tid)(e).remedy(
            "ptrace must be allowed where the image runs (kernel.yama.ptrace_scope below 2, no seccomp filter against it); --pid ns may do",
        )
    })?;
    ptrace::interrupt(tid).map_err(failed("cannot stop the restored thread", tid))
}

/// Which stop is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// PTRACE_INTERRUPT's, or a group stop's.
    Interrupt,
    /// Entry to or exit from a system call.
    Syscall,
    /// Delivery of SIGSTOP.
    Signal,
}

/// Waits for a stop. All signals but SIGSTOP are blocked in the program; one that somebody sent
/// meanwhile is kept back by continuing without it and sent again.
fn wait_stop(tid: i32, wanted: Stop) -> Result<()> {
    let mut held = false;
    loop {
        let (_, status) = process::wait(tid, __WALL)
            .map_err(failed("cannot wait for the restored thread", tid))?
            .ok_or(Error::new("no status of the restored thread"))?;
        let (stop, signal) = match status {
            Wait::Stopped(_, PTRACE_EVENT_STOP) => (Stop::Interrupt, 0),
            Wait::Stopped(s, 0) if s == SIGTRAP | 0x80 => (Stop::Syscall, 0),
            Wait::Stopped(s, 0) => (Stop::Signal, s),
            _ => {
                return Err(Error::new("somebody ended the restored program").on(On::Pid(tid)));
            }
        };
        if stop == wanted {
            if held {
                let _ = process::kill(tid, SIGSTOP);
            }
            return Ok(());
        }
        held |= signal == SIGSTOP;
        let again = if wanted == Stop::Syscall { ptrace::to_syscall(tid) } else { ptrace::cont(tid, 0) };
        again.map_err(failed("cannot continue", tid))?;
    }
}

/// Makes the stopped leader do a system call, which must succeed. It ends at the call's exit: the
/// code that made the call may be gone.
fn inject(leader: i32, call: &[u64; 7]) -> Result<()> {
    let answer = inject_at(leader, arch::injected_syscall_addr(), call)?;
    if (-4095..0).contains(&answer) {
        return Err(Error::os("cannot make a system call in the restored program")(crate::sys::Errno(
            -answer as i32,
        ))
        .on(On::Number(call[0])));
    }
    Ok(())
}

/// Makes a stopped thread do a system call with the `syscall` instruction at `at`; what the kernel answers.
pub fn inject_at(tid: i32, at: u64, call: &[u64; 7]) -> Result<i64> {
    let call = |i: usize| call[i];
    let mut regs = ptrace::get_regs(tid).map_err(failed("cannot read registers of", tid))?;
    regs.rip = at;
    // Not inside a system call: the kernel must not restart the futex wait it interrupted.
    regs.orig_rax = u64::MAX;
    regs.rax = call(0);
    (regs.rdi, regs.rsi, regs.rdx) = (call(1), call(2), call(3));
    (regs.r10, regs.r8, regs.r9) = (call(4), call(5), call(6));
    ptrace::set_regs(tid, &regs).map_err(failed("cannot write registers of", tid))?;
    for _ in 0..2 {
        ptrace::to_syscall(tid).map_err(failed("cannot continue", tid))?;
        wait_stop(tid, Stop::Syscall)?;
    }
    let regs = ptrace::get_regs(tid).map_err(failed("cannot read registers of", tid))?;
    Ok(regs.rax as i64)
}

/// Leaves all threads in a group stop, as if by SIGSTOP: none runs an instruction before SIGCONT.
fn group_stop(leader: i32, tids: impl Iterator<Item = i32>) -> Result<()> {
    process::kill(leader, SIGSTOP).map_err(failed("cannot stop the restored program", leader))?;
    ptrace::cont(leader, 0).map_err(failed("cannot continue", leader))?;
    wait_stop(leader, Stop::Signal)?;
    ptrace::cont(leader, SIGSTOP).map_err(failed("cannot continue", leader))?;
    wait_stop(leader, Stop::Interrupt)?;
    for tid in tids.filter(|tid| *tid != leader) {
        ptrace::cont(tid, 0).map_err(failed("cannot continue", tid))?;
        wait_stop(tid, Stop::Interrupt)?;
    }
    Ok(())
}

/// Where an XSAVE area says which components it holds (Intel SDM volume 1, 13.4.2).
const XSTATE_BV: core::ops::Range<usize> = 512..520;

/// A buffer of the size that this kernel wants: `xstateregs_set()` takes nothing else.
struct Xstate {
    bytes: &'static mut [u8],
}

impl Xstate {
    /// More than any CPU has today (AMX: 11 KiB).
    const MAX: usize = 64 << 10;

    fn new(ctx: &Ctx) -> Result<Self> {
        Ok(Self { bytes: ctx.work.slice(Self::MAX)? })
    }
}

/// PKRU is the one component that is always in use and lies elsewhere on CPUs of another vendor
/// (preflight refuses those whose other components do).
fn move_pkru(saved_offsets: u32, saved: &[u8], here: &mut [u8]) {
    let (from, to) = (saved_offsets >> 16, crate::preflight::xstate_offsets() >> 16);
    if from == to || from == 0 || to == 0 {
        return;
    }
    let (from, to) = (from as usize, to as usize);
    if let (Some(pkru), Some(_)) = (saved.get(from..from + 8), here.get(to..to + 8)) {
        if let Some(old) = here.get_mut(from..from + 8) {
            old.fill(0);
        }
        here[to..to + 8].copy_from_slice(pkru);
    }
}

/// Registers, extended state and signal mask: what the thread had.
fn set_state(ctx: &Ctx, thread: &Thread, tid: i32, state: &mut Xstate) -> Result<()> {
    let saved = ctx.image.blob(thread.xstate)?;
    if !saved.is_empty() {
        let here = ptrace::get_xstate(tid, state.bytes).map_err(failed("cannot read xstate of", tid))?;
        // Longer here: components that the program never saw stay in their initial state. Shorter:
        // preflight made sure that none in use is lost.
        let n = saved.len().min(here.len());
        here[..n].copy_from_slice(&saved[..n]);
        here[n..].fill(0);
        // --ignore-cpu: components that this CPU or kernel does not have cannot be set.
        if let Some(header) = here.get_mut(XSTATE_BV) {
            for (byte, mask) in header.iter_mut().zip(arch::xcr0().to_le_bytes()) {
                *byte &= mask;
            }
        }
        move_pkru(ctx.image.header.cpu.xstate_offsets, saved, here);
        ptrace::set_xstate(tid, here).map_err(failed("cannot set the vector registers of", tid))?;
    }
    let regs = Regs { ..thread.regs };
    ptrace::set_regs(tid, &regs).map_err(failed("cannot set the registers of", tid))?;
    ptrace::set_sigmask(tid, thread.sigmask).map_err(failed("cannot set the signal mask of", tid))
}
