//! One traced thread, as a type state. Whatever happens, dropping it leaves the thread running with
//! its own registers and signal mask.

mod inject;

pub use inject::quiet_signals;

use super::raw::{self, Resume};
use super::remote::{Call, Site};
use super::restart;
use super::undertaker;
use super::wait::{self, Event, Stop};
use super::{RemoteAddr, RemoteMemory};
use crate::error::Failure;
use crate::sys::{process, signals};
use anyhow::{Context, Result, bail};
use ckpt_format::Regs;
use std::cell::RefCell;
use std::io;
use std::time::{Duration, Instant};

/// How long a system call that we inject, or a stop that we ask for while undoing, may take. None of
/// them blocks, so this only ends a hang.
const SOON: Duration = Duration::from_secs(10);

/// What a [`Tracee`] knows in its state, and how it is undone.
pub trait State {
    /// Lets the thread `tid` of process `pid` go as it would have without us.
    fn release(&mut self, pid: i32, tid: i32);
}

/// Seized; runs.
#[derive(Debug)]
pub struct Running;

/// In a ptrace stop.
#[derive(Debug)]
pub struct Stopped {
    /// With which it will go on. The thread has others while `dirty`.
    regs: Regs,
    mask: u64,
    dirty: bool,
    at: At,
    /// Runs 32-bit code; `regs` are not known.
    compat: bool,
    group_stop: Option<i32>,
    /// What it calls, where the kernel only knows "restart_syscall"; see [`restart::original_call`].
    original_call: Option<i64>,
    /// A signal that a stop of ours took from the queue, and that must be sent again.
    owed: Option<[u8; raw::SIGINFO_LEN]>,
    /// A SIGSTOP was taken from the queue by a stop of ours and must be sent again.
    owes_sigstop: bool,
    /// The extended state, once it was read: no call of ours changes it.
    xstate: Option<Vec<u8>>,
}

/// The kind of stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// PTRACE_EVENT_STOP: the only place from which a thread goes on exactly as it was stopped.
    Event,
    /// Signal-delivery-stop of this signal.
    Signal(i32),
    /// The same, but of a signal that told us the end of calls that we injected: it was never the
    /// program's. Resumed without it, the thread goes on as from [`At::Event`], inside the same get_signal();
    /// should we die, the program ignores it.
    Told,
    /// Anywhere in a system call that we injected.
    Call,
}

/// A thread that we trace.
#[derive(Debug)]
pub struct Tracee<S: State> {
    pid: i32,
    tid: i32,
    /// `None` only once the state was handed on.
    state: Option<Box<S>>,
}

impl<S: State> Drop for Tracee<S> {
    fn drop(&mut self) {
        if let Some(state) = &mut self.state {
            state.release(self.pid, self.tid);
        }
    }
}

impl<S: State> Tracee<S> {
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid
    }
}

/// What came of waiting for a thread to stop.
#[derive(Debug)]
pub enum Outcome {
    Stopped(Tracee<Stopped>),
    /// It exited.
    Gone,
    /// It does not react: uninterruptible sleep.
    Busy(Tracee<Running>),
}

impl State for Running {
    fn release(&mut self, _pid: i32, tid: i32) {
        // Only a stopped thread can be detached. If it does not stop in time (uninterruptible
        // sleep), the kernel detaches it when we exit.
        if raw::interrupt(tid).is_err() {
            // Its parent can see its end only after us.
            return wait::reap(tid);
        }
        let signal = match wait::wait(tid, Instant::now() + Duration::from_secs(1)) {
            Ok(Some(Event::Stop(Stop::Signal(signal)))) => signal,
            Ok(Some(Event::Stop(Stop::Interrupt))) => {
                // Errors mean that it was killed.
                let mut stopped = Stopped::at(At::Event, None);
                let _ = stopped.load(tid).and_then(|_| stopped.undo_our_eintr(tid));
                0
            }
            Ok(Some(Event::Stop(Stop::Other(event)))) => {
                note_newborn(tid, event);
                0
            }
            _ => 0,
        };
        let _ = raw::detach(tid, signal);
    }
}

thread_local! {
    /// What threads that we trace have started, as far as we were told: traced from birth, and stopped.
    static NEWBORN: RefCell<Vec<i32>> = const { RefCell::new(Vec::new()) };
}

fn note_newborn(tid: i32, event: i32) {
    if matches!(event, libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_CLONE)
        && let Ok(newborn) = raw::event_message(tid)
    {
        NEWBORN.with_borrow_mut(|all| all.push(newborn));
    }
}

/// Threads and processes of which that became known since the last time. Some may have found their way
/// to us otherwise.
pub fn take_newborn() -> Vec<i32> {
    NEWBORN.take()
}

impl Tracee<Running> {
    /// Attaches to a thread without stopping it; `follow` as in [`raw::seize`].
    ///
    /// # Errors
    /// As ptrace(2), PTRACE_SEIZE.
    pub fn seize(pid: i32, tid: i32, follow: bool) -> io::Result<Self> {
        undertaker::attaching(pid, || raw::seize(tid, follow))?;
        Ok(Self { pid, tid, state: Some(Box::new(Running)) })
    }

    /// A thread that we trace because we trace what started it.
    pub fn adopt(pid: i32, tid: i32) -> Self {
        Self { pid, tid, state: Some(Box::new(Running)) }
    }

    /// Asks it to stop; errors mean that it exits, which [`Self::stopped`] will see.
    pub fn interrupt(&self) {
        let _ = raw::interrupt(self.tid);
    }

    /// Waits for the stop asked for by [`Self::interrupt`]. If a signal is about to be delivered at
    /// that moment the thread is held there: see [`Tracee::requeue_signal`].
    ///
    /// # Errors
    /// When ptrace fails for other reasons than the thread's end, or when we were asked to stop.
    pub fn stopped(mut self, deadline: Instant) -> Result<Outcome> {
        let (at, group_stop) = loop {
            let step = deadline.min(Instant::now() + Duration::from_millis(20));
            match wait::wait(self.tid, step).with_context(|| format!("waiting for thread {}", self.tid))? {
                Some(Event::Gone) => {
                    self.state = None;
                    return Ok(Outcome::Gone);
                }
                Some(Event::Stop(Stop::Interrupt)) => break (At::Event, None),
                Some(Event::Stop(Stop::Group(signal))) => break (At::Event, Some(signal)),
                Some(Event::Stop(Stop::Signal(signal))) => break (At::Signal(signal), None),
                Some(Event::Stop(Stop::Other(event))) => {
                    note_newborn(self.tid, event);
                    raw::resume(self.tid, Resume::Cont).or_else(gone_is_fine)?;
                }
                None if Instant::now() >= deadline => return Ok(Outcome::Busy(self)),
                None => {}
            }
            if let Some(signal) = signals::seen_stop_request() {
                bail!(Failure::Interrupted(signal));
            }
        };
        let (pid, tid) = (self.pid, self.tid);
        let mut state = Stopped::at(at, group_stop);
        self.state = None;
        let reading = || format!("reading the registers of thread {tid}");
        if !state.load(tid).with_context(reading)? || !state.undo_our_eintr(tid).with_context(reading)? {
            return Ok(Outcome::Gone);
        }
        Ok(Outcome::Stopped(Tracee { pid, tid, state: Some(Box::new(state)) }))
    }
}

/// ESRCH: the thread was killed meanwhile; the next wait says so.
fn gone_is_fine(error: io::Error) -> io::Result<()> {
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(error) }
}

impl Stopped {
    fn at(at: At, group_stop: Option<i32>) -> Self {
        Self {
            regs: Regs::default(),
            mask: 0,
            dirty: false,
            at,
            compat: false,
            group_stop,
            original_call: None,
            owed: None,
            owes_sigstop: false,
            xstate: None,
        }
    }

    /// Reads registers and mask; `false` when the thread was killed.
    fn load(&mut self, tid: i32) -> io::Result<bool> {
        let read = || Ok((raw::regs(tid)?, raw::sigmask(tid)?));
        match read() {
            Ok((regs, mask)) => {
                self.compat = regs.is_none_or(|r| r.cs != 0x33);
                self.regs = regs.unwrap_or_default();
                self.mask = mask;
                Ok(true)
            }
            Err(e) => gone_is_fine(e).map(|()| false),
        }
    }

    /// Repairs at once what our stop did; `false` when the thread was killed. In a group stop the
    /// EINTR is the stop signal's: the program was due to see it.
    fn undo_our_eintr(&mut self, tid: i32) -> io::Result<bool> {
        if self.compat || self.group_stop.is_some() || !restart::undo_our_eintr(&mut self.regs) {
            return Ok(true);
        }
        match raw::set_regs(tid, &self.regs) {
            Ok(()) => Ok(true),
            Err(e) => gone_is_fine(e).map(|()| false),
        }
    }

    /// Brings the thread from anywhere in an injected call to PTRACE_EVENT_STOP.
    fn settle(&mut self, tid: i32) -> Result<(), Trouble> {
        let deadline = Instant::now() + SOON;
        while self.at == At::Call {
            raw::interrupt(tid)?;
            raw::resume(tid, Resume::Cont)?;
            match wait::wait(tid, deadline)?.ok_or(Trouble::Stuck)? {
                Event::Gone => return Err(Trouble::Gone),
                Event::Stop(Stop::Interrupt | Stop::Group(_)) => self.at = At::Event,
                Event::Stop(Stop::Signal(libc::SIGSTOP)) => self.owes_sigstop = true,
                Event::Stop(Stop::Signal(signal)) => return Err(Trouble::Signal(signal)),
                Event::Stop(Stop::Other(_)) => {}
            }
        }
        Ok(())
    }

    /// Gives registers and mask back. The mask first: while the registers are ours, so is the way
    /// back (see [`parachute`]).
    fn restore(&mut self, tid: i32) -> Result<(), Trouble> {
        if self.dirty {
            self.settle(tid)?;
            let batch = self.at == At::Told;
            fail(if batch { "batch-settled" } else { "call-settled" })?;
            raw::set_sigmask(tid, self.mask)?;
            fail(if batch { "batch-unmasked" } else { "call-unmasked" })?;
            raw::set_regs(tid, &self.regs)?;
            self.dirty = false;
        }
        Ok(())
    }

    fn pay_sigstop(&mut self, pid: i32) {
        if std::mem::take(&mut self.owes_sigstop) {
            process::kill(pid, libc::SIGSTOP);
        }
    }
}

impl State for Stopped {
    fn release(&mut self, pid: i32, tid: i32) {
        // Errors mean that the thread was killed: nothing to restore then.
        let _ = self.restore(tid);
        self.pay_sigstop(pid);
        if let Some(info) = self.owed.take() {
            process::tgkill(pid, tid, signal_of(&info));
        }
        let signal = if let At::Signal(signal) = self.at { signal } else { 0 };
        let _ = raw::detach(tid, signal);
    }
}

/// Why an injected call did not come through.
#[derive(Debug)]
enum Trouble {
    Gone,
    Stuck,
    Signal(i32),
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        if error.raw_os_error() == Some(libc::ESRCH) { Self::Gone } else { Self::Io(error) }
    }
}

impl Tracee<Stopped> {
    fn state(&self) -> &Stopped {
        self.state.as_deref().expect("a tracee has its state until it is dropped")
    }

    fn state_mut(&mut self) -> &mut Stopped {
        self.state.as_deref_mut().expect("a tracee has its state until it is dropped")
    }

    /// Registers with which the thread will go on.
    #[must_use]
    pub fn regs(&self) -> &Regs {
        &self.state().regs
    }

    /// As [`Self::regs`], but `orig_rax` is the call that the program made, even where the kernel only
    /// knows that it is to be restarted: registers for where its restart block does not exist.
    #[must_use]
    pub fn portable_regs(&self) -> Regs {
        let regs = self.regs();
        Regs { orig_rax: self.state().original_call.map_or(regs.orig_rax, |nr| nr as u64), ..*regs }
    }

    /// Finds out what [`Self::portable_regs`] needs.
    pub fn find_original_call(&mut self, memory: &RemoteMemory) {
        let regs = *self.regs();
        if !restart::number_is_lost(&regs) {
            return;
        }
        let mut before = [0; 24];
        let code = RemoteAddr(regs.rip.wrapping_sub(2 + before.len() as u64));
        // Unreadable code tells nothing; then the arguments must.
        let _ = memory.read(code, &mut before);
        let is_address = |addr| memory.word(RemoteAddr(addr)).is_some();
        self.state_mut().original_call = Some(restart::original_call(&regs, &before, is_address));
    }

    /// Blocked signals.
    #[must_use]
    pub fn mask(&self) -> u64 {
        self.state().mask
    }

    /// It runs 32-bit code.
    #[must_use]
    pub fn is_compat(&self) -> bool {
        self.state().compat
    }

    /// The signal of the group stop in which we found it.
    #[must_use]
    pub fn group_stop(&self) -> Option<i32> {
        self.state().group_stop
    }

    /// The signal that was being delivered when it stopped.
    #[must_use]
    pub fn held_signal(&self) -> Option<i32> {
        if let At::Signal(signal) = self.state().at { Some(signal) } else { None }
    }

    /// Makes the thread go on with other registers: corrections that the kernel itself would make.
    ///
    /// # Errors
    /// When ptrace fails.
    pub fn correct_regs(&mut self, regs: Regs) -> Result<()> {
        let tid = self.tid;
        raw::set_regs(tid, &regs).map_err(|e| self.failed(e.into(), "correcting its registers"))?;
        self.state_mut().regs = regs;
        Ok(())
    }

    fn failed(&self, trouble: Trouble, doing: &str) -> anyhow::Error {
        let tid = self.tid;
        match trouble {
            Trouble::Gone => Failure::Vanished(self.pid).into(),
            Trouble::Stuck => anyhow::anyhow!("thread {tid} does not come back from {doing}"),
            Trouble::Signal(signal) => anyhow::anyhow!("thread {tid} got signal {signal} from {doing}"),
            Trouble::Io(error) => anyhow::Error::new(error).context(format!("thread {tid}: {doing}")),
        }
    }

    /// The uncompacted XSAVE area.
    ///
    /// # Errors
    /// When ptrace fails.
    pub fn xstate(&mut self) -> Result<&[u8]> {
        if self.state().xstate.is_none() {
            let read = raw::xstate(self.tid);
            let read = read.map_err(|e| self.failed(e.into(), "reading its extended state"))?;
            self.state_mut().xstate = Some(read);
        }
        Ok(self.state().xstate.as_deref().unwrap_or_default())
    }

    /// A thread held in a signal-delivery-stop goes on to PTRACE_EVENT_STOP. The signal must then be
    /// put back by [`Self::requeue_signal`], so that it is seen as what it is: pending. If that never
    /// happens it is sent anew when the thread is let go. Tells whether there was a signal.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn take_signal(&mut self) -> Result<bool> {
        if self.held_signal().is_none() {
            return Ok(false);
        }
        let tid = self.tid;
        let doing = "being held before a signal";
        let info = raw::siginfo(tid).map_err(|e| self.failed(e.into(), doing))?;
        let state = self.state_mut();
        state.owed = Some(info);
        state.at = At::Call;
        let settled = state.settle(tid);
        settled.map_err(|t| self.failed(t, doing))?;
        let loaded = self.state_mut().load(tid);
        loaded.map_err(|e| self.failed(e.into(), doing))?;
        Ok(true)
    }

    /// Puts the signal taken by [`Self::take_signal`] back with its siginfo. Only the thread itself
    /// may queue a siginfo that says that the kernel or kill(2) sent it, so it must do so. `own` are
    /// its process and thread id as it knows them; `buffer` is scratch memory.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn requeue_signal(
        &mut self,
        memory: &RemoteMemory,
        site: &Site,
        own: (i32, i32),
        buffer: RemoteAddr,
    ) -> Result<()> {
        let Some(info) = self.state().owed else { return Ok(()) };
        memory.write(buffer, &info)?;
        let args = [own.0 as u64, own.1 as u64, signal_of(&info) as u64, buffer.0];
        let result = self.run(memory, site, &[Call::new(libc::SYS_rt_tgsigqueueinfo, &args)])?[0];
        if result == 0 {
            self.state_mut().owed = None;
        }
        Ok(())
    }

    /// Lets the thread run on, still traced, with its own registers.
    ///
    /// # Errors
    /// When ptrace fails.
    pub fn run_on(mut self) -> Result<Tracee<Running>> {
        let (pid, tid) = (self.pid, self.tid);
        let restored = self.state_mut().restore(tid);
        restored.map_err(|t| self.failed(t, "going on"))?;
        raw::resume(tid, Resume::Cont).map_err(|e| self.failed(e.into(), "going on"))?;
        self.state = None;
        Ok(Tracee { pid, tid, state: Some(Box::new(Running)) })
    }

    /// Waits for the end of a thread that was sent SIGKILL.
    pub fn reap(mut self, deadline: Instant) {
        self.state = None;
        while !matches!(wait::wait(self.tid, deadline), Ok(Some(Event::Gone) | None) | Err(_)) {}
    }
}

fn signal_of(info: &[u8; raw::SIGINFO_LEN]) -> i32 {
    i32::from_le_bytes([info[0], info[1], info[2], info[3]])
}

fn fail(point: &str) -> Result<(), Trouble> {
    crate::failpoint::hit(point).map_err(|e| Trouble::Io(io::Error::other(e)))
}
