//! Signal actions and pending signals.

use crate::ctx::Ctx;
use crate::report::{Error, On, Result};
use crate::sys::{process, signal};
use ckpt_format::{Image, PendingSignal, SigAction, Task, Thread};

const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;

/// Nothing is delivered from now on; gives the mask until then. The tracer sets the program's.
pub fn block_all() -> u64 {
    signal::set_mask(u64::MAX)
}

/// Until the program's own handlers are there, signals do to a restore what they do to any command
/// that starts: Ctrl-C ends it.
pub fn unblock(callers_mask: u64) {
    // A file that may not grow is an error with a message (EFBIG), not a death.
    const SIGXFSZ: i32 = 25;
    signal::set_mask(callers_mask | 1 << (SIGXFSZ - 1));
}

/// The default action for a signal of the supervisor's.
pub fn reset(number: i32) {
    let _ = signal::set_action(number, &SigAction::default());
}

/// The program's handlers.
pub fn set_actions(ctx: &Ctx, task: &Task) -> Result<()> {
    let sighand = Image::get(ctx.image.sighands, task.sighand, "signal handlers")?;
    let actions = Image::slice(ctx.image.sig_actions, sighand.actions, "signal actions")?;
    for (action, number) in actions.iter().zip(1..) {
        if number != SIGKILL && number != SIGSTOP {
            signal::set_action(number, action)
                .map_err(|e| Error::os("cannot set the action of signal")(e).on(On::Number(number as u64)))?;
        }
    }
    Ok(())
}

fn number(p: &PendingSignal) -> i32 {
    let [a, b, c, d, ..] = p.siginfo;
    i32::from_le_bytes([a, b, c, d])
}

/// Signals pending for the process. Only a process itself may queue any siginfo (sigqueue(3)).
pub fn queue_for_process(ctx: &Ctx, task: &Task) -> Result<()> {
    let pid = process::getpid();
    for p in Image::slice(ctx.image.pending, task.pending, "pending signals")? {
        signal::queue_to_process(pid, number(p), &p.siginfo).map_err(|e| {
            Error::os("cannot queue the pending signal")(e)
                .on(On::Number(number(p) as u64))
                .remedy("raise the limit of pending signals (ulimit -i)")
        })?;
    }
    Ok(())
}

/// Signals pending for the calling thread.
pub fn queue_for_thread(ctx: &Ctx, t: &Thread) -> Result<()> {
    let pending = Image::slice(ctx.image.pending, t.pending, "pending signals")?;
    if pending.is_empty() {
        return Ok(());
    }
    let (pid, tid) = (process::getpid(), process::gettid());
    for p in pending {
        signal::queue_to_thread(pid, tid, number(p), &p.siginfo).map_err(|e| {
            Error::os("cannot queue the pending signal")(e)
                .on(On::Number(number(p) as u64))
                .remedy("raise the limit of pending signals (ulimit -i)")
        })?;
    }
    Ok(())
}
