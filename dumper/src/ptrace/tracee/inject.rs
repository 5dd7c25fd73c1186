//! System calls that a stopped thread runs for us.

use super::{At, RemoteAddr, RemoteMemory, SOON, Stopped, Tracee, Trouble, fail};
use crate::ptrace::copy::{self, MemoryCopy};
use crate::ptrace::parachute::{self, MOST_CALLS};
use crate::ptrace::raw::{self, Resume};
use crate::ptrace::remote::{Call, Site};
use crate::ptrace::wait::{self, Event, Stop};
use anyhow::{Result, bail};
use ckpt_format::Regs;
use std::time::Instant;

/// Signals that do nothing by default, those that programs catch least first.
const TELLERS: [i32; 3] = [libc::SIGURG, libc::SIGWINCH, libc::SIGCHLD];
/// SIGCONT and the stop signals do something even when they are ignored (kernel/signal.c,
/// prepare_signal()); SIGTRAP has a meaning of its own here.
const NEVER: [i32; 7] =
    [libc::SIGKILL, libc::SIGSTOP, libc::SIGCONT, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGTRAP];

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Signals that a process would ignore, given those that it ignores and catches.
#[must_use]
pub fn quiet_signals(ignored: u64, caught: u64) -> u64 {
    let set = |signals: &[i32]| signals.iter().fold(0, |set, s| set | bit(*s));
    const STANDARD: u64 = (1 << 31) - 1;
    (ignored | set(&TELLERS)) & !caught & !set(&NEVER) & STANDARD
}

/// One of these that is not blocked: a blocked one might be waited for (sigwait, signalfd).
fn teller(quiet: u64, mask: u64) -> Option<i32> {
    let usable = |signal: &i32| quiet & !mask & bit(*signal) != 0;
    TELLERS.into_iter().chain(1..32).find(usable)
}

impl Tracee<Stopped> {
    /// Runs system calls in the thread, one after the other; results as the kernel returns them.
    ///
    /// # Errors
    /// When the thread died, or did not come back from a call.
    pub fn run(&mut self, memory: &RemoteMemory, site: &Site, calls: &[Call]) -> Result<Vec<i64>> {
        let tid = self.tid;
        if self.state().compat || !matches!(self.state().at, At::Event | At::Told) {
            bail!("thread {tid} is not in a state in which it can run system calls for us");
        }
        match site {
            Site::Parachute { code, frame, quiet } => match teller(*quiet, self.mask()) {
                Some(signal) => Ok(self.run_tables(memory, (*code, *frame), Some(signal), calls)?.0),
                None => {
                    memory.write(*frame, &self.way_back(*frame)?)?;
                    let base = parachute::one_regs(self.regs(), code.0, frame.0);
                    self.run_each(&base, calls)
                }
            },
            Site::Bare(instruction) => {
                let base = Regs { rip: instruction.0, orig_rax: u64::MAX, ..*self.regs() };
                self.run_each(&base, calls)
            }
            Site::Stack(gadgets, stack) => {
                let (regs, mask) = (self.portable_regs(), self.mask());
                let laid = gadgets.lay(&regs, mask, self.xstate()?, stack);
                let Some((before, laid)) = laid.and_then(|laid| Some((laid.write(memory).ok()?, laid)))
                else {
                    let base = Regs { rip: gadgets.call.0, orig_rax: u64::MAX, ..*self.regs() };
                    return self.run_each(&base, calls);
                };
                let result = self.run_each(&laid.regs, calls);
                if !self.state().dirty {
                    memory.write(laid.addr, &before)?;
                }
                result
            }
        }
    }

    fn way_back(&mut self, frame: RemoteAddr) -> Result<Vec<u8>> {
        let (regs, mask) = (self.portable_regs(), self.mask());
        Ok(parachute::frame(frame.0, &regs, mask, self.xstate()?))
    }

    /// As [`Self::run`], with a [`Call::COPY`] among the calls, which are made to the end whatever happens to
    /// us.
    ///
    /// # Errors
    /// As [`Self::run`]; when the process has no code of ours; when there are too many calls.
    pub fn run_copy(
        &mut self,
        memory: &RemoteMemory,
        site: &Site,
        calls: &[Call],
    ) -> Result<(Vec<i64>, Option<MemoryCopy>)> {
        let Site::Parachute { code, frame, quiet } = site else {
            bail!("the security policy lets PID {} run no code of ours", self.pid)
        };
        if calls.len() > MOST_CALLS {
            bail!("PID {} would need {} calls at once, {MOST_CALLS} are possible", self.pid, calls.len());
        }
        let follow = libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACECLONE;
        raw::set_options(self.tid, follow).map_err(|e| self.failed(e.into(), "being copied"))?;
        self.run_tables(memory, (*code, *frame), teller(*quiet, self.mask()), calls)
    }

    /// As many calls as there are, with one stop for each [`MOST_CALLS`] of them; without a signal to tell the
    /// end by, with two for each call.
    fn run_tables(
        &mut self,
        memory: &RemoteMemory,
        (code, frame): (RemoteAddr, RemoteAddr),
        signal: Option<i32>,
        calls: &[Call],
    ) -> Result<(Vec<i64>, Option<MemoryCopy>)> {
        let way_back = self.way_back(frame)?;
        let mut results = Vec::with_capacity(calls.len());
        let mut copy = None;
        for calls in calls.chunks(MOST_CALLS) {
            let mut bytes = parachute::table(calls);
            let table = RemoteAddr(frame.0 - bytes.len() as u64);
            bytes.extend_from_slice(&way_back);
            memory.write(table, &bytes)?;
            let base = parachute::loop_regs(self.regs(), code.0, frame.0, table.0, signal.unwrap_or(0));
            let (tid, told) = (self.tid, code.0 + parachute::TOLD);
            let outcome = run_loop(self.state_mut(), tid, &base, signal, told);
            copy = self.finish(outcome)?.or(copy);
            bytes.truncate(calls.len() * parachute::ENTRY);
            memory.read(table, &mut bytes)?;
            results.extend(parachute::results(&bytes));
        }
        Ok((results, copy))
    }

    /// Lets the thread begin with calls, while others do the same, each with a table and a way back of its own;
    /// [`Self::end`] waits for it. `false` when it cannot: see [`Self::run`].
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn begin(
        &mut self,
        memory: &RemoteMemory,
        (code, frame, quiet): (RemoteAddr, RemoteAddr, u64),
        room: u64,
        calls: &[Call],
    ) -> Result<bool> {
        let (tid, signal) = (self.tid, teller(quiet, self.mask()));
        let able = !self.state().compat && matches!(self.state().at, At::Event | At::Told);
        let (Some(signal), true) = (signal, able) else { return Ok(false) };
        let way_back = self.way_back(frame)?;
        if way_back.len() as u64 > room {
            return Ok(false);
        }
        let mut bytes = parachute::table(calls);
        let table = RemoteAddr(frame.0 - bytes.len() as u64);
        bytes.extend_from_slice(&way_back);
        memory.write(table, &bytes)?;
        let base = parachute::loop_regs(self.regs(), code.0, frame.0, table.0, signal);
        let outcome = begin_loop(self.state_mut(), tid, &base, Some(signal));
        if outcome.is_err() {
            self.finish(outcome)?;
        }
        Ok(true)
    }

    /// Waits until it has made the calls of [`Self::begin`].
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn end(&mut self, code: RemoteAddr, quiet: u64) -> Result<()> {
        let (tid, signal) = (self.tid, teller(quiet, self.mask()));
        let outcome = end_loop(self.state_mut(), tid, signal, code.0 + parachute::TOLD);
        self.finish(outcome).map(drop)
    }

    fn run_each(&mut self, base: &Regs, calls: &[Call]) -> Result<Vec<i64>> {
        let tid = self.tid;
        let outcome = run_calls(self.state_mut(), tid, base, calls);
        self.finish(outcome)
    }

    /// Gives the thread its registers and mask back, whatever came of the calls.
    fn finish<R>(&mut self, outcome: Result<R, Trouble>) -> Result<R> {
        let (pid, tid) = (self.pid, self.tid);
        let restored = self.state_mut().restore(tid);
        self.state_mut().pay_sigstop(pid);
        let doing = "a system call that it ran for us";
        let outcome = outcome.map_err(|t| self.failed(t, doing))?;
        restored.map_err(|t| self.failed(t, doing))?;
        Ok(outcome)
    }
}

/// The thread runs a loop of ours, until it tells the end by `signal` at `told`, or comes there.
fn run_loop(
    state: &mut Stopped,
    tid: i32,
    base: &Regs,
    signal: Option<i32>,
    told: u64,
) -> Result<Option<MemoryCopy>, Trouble> {
    begin_loop(state, tid, base, signal)?;
    end_loop(state, tid, signal, told)
}

fn begin_loop(state: &mut Stopped, tid: i32, base: &Regs, signal: Option<i32>) -> Result<(), Trouble> {
    state.dirty = true;
    raw::set_regs(tid, base)?;
    // After the registers: should we die in between, the parachute knows the real mask.
    fail("batch-regs")?;
    raw::set_sigmask(tid, !signal.map_or(0, bit))?;
    fail("batch-mask")?;
    go_on(state, tid, signal)
}

fn go_on(state: &mut Stopped, tid: i32, signal: Option<i32>) -> Result<(), Trouble> {
    raw::resume(tid, if signal.is_some() { Resume::Cont } else { Resume::Syscall })?;
    state.at = At::Call;
    Ok(())
}

fn end_loop(
    state: &mut Stopped,
    tid: i32,
    signal: Option<i32>,
    told: u64,
) -> Result<Option<MemoryCopy>, Trouble> {
    let deadline = Instant::now() + SOON;
    let mut made = Ok(None);
    loop {
        match wait::wait(tid, deadline)?.ok_or(Trouble::Stuck)? {
            Event::Gone => return Err(Trouble::Gone),
            // Somebody else may send it, too, at any time; the program ignores it.
            Event::Stop(Stop::Signal(got)) if got == signal.unwrap_or(libc::SIGTRAP) => {
                if raw::rip(tid)? == told && (signal.is_some() || ended_call(tid)?) {
                    if signal.is_some() {
                        state.at = At::Told;
                    }
                    fail("batch-ran")?;
                    return Ok(made?);
                }
            }
            Event::Stop(Stop::Other(libc::PTRACE_EVENT_CLONE)) => {
                // Whatever came of it: the process must come to where it has waited for its helper.
                made = copy::of_helper(raw::event_message(tid)?);
            }
            // Not blockable. It is sent again when the calls are done.
            Event::Stop(Stop::Signal(libc::SIGSTOP)) => state.owes_sigstop = true,
            Event::Stop(Stop::Signal(signal)) => return Err(Trouble::Signal(signal)),
            Event::Stop(_) => {}
        }
        go_on(state, tid, signal)?;
    }
}

/// Of a thread at the entry to a call `rax` is still -ENOSYS.
fn ended_call(tid: i32) -> Result<bool, Trouble> {
    Ok(raw::rax(tid)? != -i64::from(libc::ENOSYS))
}

impl Stopped {
    /// Goes on to the next entry to, or exit from, a system call.
    fn run_to_syscall_stop(&mut self, tid: i32) -> Result<(), Trouble> {
        let deadline = Instant::now() + SOON;
        loop {
            raw::resume(tid, Resume::Syscall)?;
            self.at = At::Call;
            match wait::wait(tid, deadline)?.ok_or(Trouble::Stuck)? {
                Event::Gone => return Err(Trouble::Gone),
                // All signals that can be blocked are: it is no signal but the stop.
                Event::Stop(Stop::Signal(libc::SIGTRAP)) => return Ok(()),
                // Not blockable. It is sent again when the call is done.
                Event::Stop(Stop::Signal(libc::SIGSTOP)) => self.owes_sigstop = true,
                Event::Stop(Stop::Signal(signal)) => return Err(Trouble::Signal(signal)),
                Event::Stop(_) => {}
            }
        }
    }
}

/// One call after the other, each with a stop at its entry and at its exit.
fn run_calls(state: &mut Stopped, tid: i32, base: &Regs, calls: &[Call]) -> Result<Vec<i64>, Trouble> {
    let all_blocked = u64::MAX;
    let mut results = Vec::with_capacity(calls.len());
    for (i, call) in calls.iter().enumerate() {
        let [rdi, rsi, rdx, r10, r8, r9] = call.args;
        state.dirty = true;
        raw::set_regs(tid, &Regs { rax: call.number as u64, rdi, rsi, rdx, r10, r8, r9, ..*base })?;
        if i == 0 {
            // After the registers: should we die in between, the parachute knows the real mask.
            fail("call-regs")?;
            raw::set_sigmask(tid, all_blocked)?;
            fail("call-mask")?;
        }
        state.run_to_syscall_stop(tid)?;
        fail("call-entry")?;
        state.run_to_syscall_stop(tid)?;
        fail("call-exit")?;
        results.push(raw::rax(tid)?);
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signal_that_tells_is_one_that_nobody_sees() {
        let free = quiet_signals(0, 0);
        assert_eq!(teller(free, 0), Some(libc::SIGURG));
        assert_eq!(teller(free, bit(libc::SIGURG)), Some(libc::SIGWINCH));
        let go = bit(libc::SIGURG) | bit(libc::SIGWINCH) | bit(libc::SIGCHLD);
        assert_eq!(teller(quiet_signals(0, go), 0), None);
        assert_eq!(teller(quiet_signals(bit(libc::SIGPIPE), go), 0), Some(libc::SIGPIPE));
        assert_eq!(teller(quiet_signals(bit(libc::SIGPIPE), go), bit(libc::SIGPIPE)), None);
        assert_eq!(teller(quiet_signals(bit(libc::SIGTSTP) | bit(libc::SIGCONT), go), 0), None);
    }
}
