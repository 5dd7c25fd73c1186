//! Signal handlers and signals pending for the whole process.

use super::proc;
use crate::ptrace::{Call, Frozen, raw};
use anyhow::{Context, Result};
use ckpt_format::{PendingSignal, SigAction};
use zerocopy::FromBytes;

/// Handlers and the shared queue.
#[derive(Clone, Debug, Default)]
pub struct SignalFacts {
    /// By signal number, 1 first; 64 entries.
    pub actions: Vec<SigAction>,
    /// Oldest first.
    pub pending: Vec<PendingSignal>,
}

const SIGNALS: usize = 64;
const ACTION_LEN: u64 = size_of::<SigAction>() as u64;

/// Asks the target for its handlers, and reads the shared queue.
///
/// # Errors
/// When the target died.
pub fn collect(target: &mut Frozen) -> Result<SignalFacts> {
    let pid = target.pid();
    let status = proc::read(&format!("/proc/{pid}/status"))?;
    let mask = |key| proc::hex_field(&status, key).unwrap_or(0);
    // All others have the default action. SIGCHLD's flags matter even then (SA_NOCLDWAIT).
    let special = mask("SigCgt") | mask("SigIgn") | 1 << (libc::SIGCHLD - 1);
    let signals: Vec<usize> = (0..SIGNALS).filter(|i| special & (1 << i) != 0).collect();
    let scratch = target.scratch()?;
    let calls: Vec<Call> = signals
        .iter()
        .enumerate()
        .map(|(slot, i)| {
            let at = scratch.addr.offset(slot as u64 * ACTION_LEN);
            Call::new(libc::SYS_rt_sigaction, &[*i as u64 + 1, 0, at.0, 8])
        })
        .collect();
    let results = target.batch(&calls)?;
    let mut bytes = vec![0; signals.len() * ACTION_LEN as usize];
    target.read(scratch.addr, &mut bytes)?;
    let mut actions = vec![SigAction::default(); SIGNALS];
    for ((i, result), chunk) in signals.into_iter().zip(results).zip(bytes.chunks_exact(ACTION_LEN as usize))
    {
        super::check_call(result, || format!("rt_sigaction of signal {} in PID {pid}", i + 1))?;
        // struct kernel_sigaction has the fields of ours, in the same order.
        actions[i] = SigAction::read_from_bytes(chunk).unwrap_or_default();
    }
    Ok(SignalFacts { actions, pending: queued(pid, true)? })
}

/// Signals queued for a thread, or (`shared`) for its whole process, oldest first.
///
/// # Errors
/// When the target died.
pub fn queued(tid: i32, shared: bool) -> Result<Vec<PendingSignal>> {
    let queue = raw::pending(tid, shared).with_context(|| {
        format!(
            "reading the signals that are pending for {} {tid}",
            if shared { "process" } else { "thread" }
        )
    })?;
    Ok(queue.into_iter().map(|siginfo| PendingSignal { siginfo }).collect())
}
