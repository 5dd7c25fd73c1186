//! The tracer: gives each restored thread its registers, removes the stub from the program and lets
//! go. In place it is a grandchild that init reaps; otherwise the supervisor, or the namespace's init.
//!
//! Program and tracer tell each other through [`Shared`]. Each owns one word of it by a robust list
//! (set_robust_list(2)): the kernel marks the word and wakes its waiter when the owner dies in
//! whatever way, so that neither can wait for a dead one.

use crate::arch;
use crate::ctx::Ctx;
use crate::report::{Error, On, Result};
use crate::sys::process::{self, Wait, futex_set, futex_wait};
use crate::sys::{ptrace, thread};
use ckpt_format::task::task_flags;
use ckpt_format::{Regs, Task, Thread};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use linux_raw_sys::general::{__WALL, FUTEX_OWNER_DIED, FUTEX_WAITERS};
use linux_raw_sys::prctl::PR_SET_PDEATHSIG;
use linux_raw_sys::ptrace::{PTRACE_EVENT_STOP, PTRACE_O_EXITKILL, PTRACE_O_TRACESYSGOOD};
use zerocopy::FromZeros;

const SIGKILL: i32 = 9;
const SIGTRAP: i32 = 5;
const SIGSTOP: i32 = 19;

/// The word of a program whose threads all wait for their registers. Not an id.
const READY: u32 = 1 << 29;
/// The word of a tracer that gave up: the program ends.
const FAILED: u32 = 1 << 28;

/// Memory that program and tracer share.
#[derive(FromZeros)]
#[repr(C)]
pub struct Shared {
    /// Threads besides the leader that wait for their registers.
    pub parked: AtomicU32,
    /// Never changes: parked threads wait on it.
    pub never: AtomicU32,
    /// Process id of the tracer as the program sees it, when the tracer is there.
    pub tracer_pid: AtomicU32,
    /// 1 as soon as the program runs on: from then on its exit status is its own.
    pub resumed: AtomicU32,
    program: Owned,
    tracer: Owned,
    /// The supervisor's, until it traces.
    supervisor: Owned,
    /// System calls that the leader makes under the tracer's hand, the last of which may unmap the
    /// stub: number and arguments.
    calls: [[AtomicU64; 7]; MAX_CALLS],
    call_count: AtomicU32,
    /// 1 when the tracer said why it gave up.
    pub explained: AtomicU32,
}

const MAX_CALLS: usize = 8;

/// A word with an owner, and the robust list that says so.
#[derive(FromZeros)]
#[repr(C)]
struct Owned {
    word: AtomicU32,
    unused: AtomicU32,
    /// `struct robust_list_head`: first node, offset from node to word, pending operation.
    head: [AtomicU64; 3],
    /// `struct robust_list`: next node, which is the head.
    node: AtomicU64,
}

impl Owned {
    /// The calling thread owns the word from now on.
    fn own(&self) -> Result<()> {
        let node = self.node.as_ptr() as u64;
        let head = self.head[0].as_ptr() as u64;
        self.head[0].store(node, Ordering::SeqCst);
        self.head[1].store((self.word.as_ptr() as u64).wrapping_sub(node), Ordering::SeqCst);
        self.node.store(head, Ordering::SeqCst);
        futex_set(&self.word, process::gettid() as u32 | FUTEX_WAITERS);
        thread::set_robust_list(head, 24).map_err(Error::os("cannot set a robust list"))
    }

    /// Waits until the word is one of `values` or its owner died; gives the word.
    fn wait_for(&self, values: u32) -> u32 {
        loop {
            let now = self.word.load(Ordering::SeqCst);
            // An id may have these bits too: then FUTEX_WAITERS is set beside them.
            let owned = now == 0 || now & FUTEX_WAITERS != 0 && now & FUTEX_OWNER_DIED == 0;
            if !owned && now & (values | FUTEX_OWNER_DIED) != 0 {
                return now;
            }
            futex_wait(&self.word, now);
        }
    }
}

impl Shared {
    /// The program, as soon as it is the process that becomes it.
    pub fn own_program(&self) -> Result<()> {
        self.program.own()
    }

    /// The supervisor, before it has children that end with it.
    pub fn own_supervisor(&self) -> Result<()> {
        self.supervisor.own()
    }

    /// In a child of the supervisor: ends with it from now on, or at once if it is dead already.
    pub fn end_with_supervisor(&self) {
        let _ = process::prctl(PR_SET_PDEATHSIG, SIGKILL as u64, 0);
        if self.supervisor.word.load(Ordering::SeqCst) & FUTEX_OWNER_DIED != 0 {
            process::exit_group(ckpt_format::EXIT_RESTORE_FAILED);
        }
    }

    /// Adds a call for the tracer to make in the leader.
    pub fn add_call(&self, nr: u32, args: [u64; 6]) -> Result<()> {
        let n = self.call_count.fetch_add(1, Ordering::SeqCst) as usize;
        let call = self.calls.get(n).ok_or(Error::new("too many calls for the tracer"))?;
        call[0].store(u64::from(nr), Ordering::SeqCst);
        for (slot, arg) in call[1..].iter().zip(args) {
            slot.store(arg, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Waits, in the program, until the tracer is there.
    pub fn wait_for_tracer(&self) -> i32 {
        loop {
            let pid = self.tracer_pid.load(Ordering::SeqCst);
            if pid != 0 {
                return pid as i32;
            }
            futex_wait(&self.tracer_pid, 0);
        }
    }

    /// Waits for the end of the process that traced.
    pub fn wait_for_tracer_end(&self) {
        self.tracer.wait_for(FAILED);
    }

    /// The leader says that all is ready and waits for its registers, or for the tracer's end.
    pub fn hand_over(&self) -> ! {
        futex_set(&self.program.word, READY);
        self.tracer.wait_for(FAILED);
        process::exit_group(ckpt_format::EXIT_RESTORE_FAILED)
    }
}

/// Says that the tracer is there. First of all in the process that traces.
pub fn begin(ctx: &Ctx) -> Result<()> {
    ctx.shared.tracer.own()?;
    futex_set(&ctx.shared.tracer_pid, process::getpid() as u32);
    Ok(())
}

/// Waits until the program is ready, makes it run on and lets go. `Ok(false)`: the program ended
/// before, and said why.
pub fn run(ctx: &Ctx) -> Result<bool> {
    if ctx.shared.program.wait_for(READY) & FUTEX_OWNER_DIED != 0 {
        return Ok(false);
    }
    let task = ctx.task()?;
    let threads = ctx.threads(task)?;
    let tids = ctx.tids.get(task.threads.indices()).ok_or(Error::new("bad thread range"))?;
    let leader = tids.first().map_or(0, |t| t.load(Ordering::SeqCst));
    if let Err(e) = stop_all(tids) {
        // The stub is still there: the leader ends by itself, with the status of a failed restore.
        futex_set(&ctx.shared.tracer.word, FAILED);
        for tid in tids {
            let _ = ptrace::detach(tid.load(Ordering::SeqCst));
        }
        return Err(e);
    }
    if let Err(e) = resume(ctx, task, threads, leader, tids) {
        let _ = process::kill(leader, SIGKILL);
        return Err(e);
    }
    Ok(true)
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

fn resume(ctx: &Ctx, task: &Task, threads: &[Thread], leader: i32, tids: &[AtomicI32]) -> Result<()> {
    let tids = || tids.iter().map(|t| t.load(Ordering::SeqCst));
    let calls = ctx.shared.call_count.load(Ordering::SeqCst) as usize;
    for call in ctx.shared.calls.iter().take(calls) {
        inject(leader, call)?;
    }
    ptrace::interrupt(leader).map_err(failed("cannot stop", leader))?;
    ptrace::cont(leader, 0).map_err(failed("cannot continue", leader))?;
    wait_stop(leader, Stop::Interrupt)?;
    if ctx.options.stopped || task.flags & task_flags::STOPPED != 0 {
        group_stop(leader, tids())?;
    }
    let mut state = Xstate::new(ctx)?;
    for (thread, tid) in threads.iter().zip(tids()) {
        set_state(ctx, thread, tid, &mut state)?;
    }
    ctx.shared.resumed.store(1, Ordering::SeqCst);
    for tid in tids() {
        // A thread can only be gone when somebody killed the program.
        let _ = ptrace::detach(tid);
    }
    Ok(())
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
fn inject(leader: i32, call: &[AtomicU64; 7]) -> Result<()> {
    let call = |i: usize| call[i].load(Ordering::SeqCst);
    let mut regs = ptrace::get_regs(leader).map_err(failed("cannot read registers of", leader))?;
    regs.rip = arch::injected_syscall_addr();
    // Not inside a system call: the kernel must not restart the futex wait it interrupted.
    regs.orig_rax = u64::MAX;
    regs.rax = call(0);
    (regs.rdi, regs.rsi, regs.rdx) = (call(1), call(2), call(3));
    (regs.r10, regs.r8, regs.r9) = (call(4), call(5), call(6));
    ptrace::set_regs(leader, &regs).map_err(failed("cannot write registers of", leader))?;
    for _ in 0..2 {
        ptrace::to_syscall(leader).map_err(failed("cannot continue", leader))?;
        wait_stop(leader, Stop::Syscall)?;
    }
    let regs = ptrace::get_regs(leader).map_err(failed("cannot read registers of", leader))?;
    let answer = regs.rax as i64;
    if (-4095..0).contains(&answer) {
        return Err(Error::os("cannot make a system call in the restored program")(crate::sys::Errno(
            -answer as i32,
        ))
        .on(On::Number(call(0))));
    }
    Ok(())
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
