//! Places at which a dump can be made to fail, for tests of its harmlessness.
//!
//! `CKPT_FAILPOINT=name` makes the dump fail there; `CKPT_FAILPOINT=name=kill` makes ckpt-dump die by
//! SIGKILL there, which undoes nothing; `CKPT_FAILPOINT=name=stop` makes it stop there by SIGSTOP. Names, in the order in which they are passed: `after-open`
//! (the temporary output file exists), `after-seize` (some threads are traced, none asked to stop),
//! `after-freeze` (all threads stopped), `after-scratch` (our memory is mapped in the target),
//! `after-collect`, `after-plan`, `mid-write` (some extents written), `after-write`, `before-sync`,
//! `before-rename`.
//! Inside a system call that the target runs for us: `call-regs` (registers are set), `call-mask` (and
//! all signals blocked), `call-entry`, `call-exit` (at these stops), `call-settled` (back at
//! PTRACE_EVENT_STOP), `call-unmasked` (its signal mask is its own again). `name#3` is the third time
//! that the place is passed: the first maps our memory, the second unmaps it, and others are made so only in
//! programs that catch every signal that could be ignored. While it runs many calls at once: `batch-regs`
//! (registers are set), `batch-mask` (and signals blocked), `batch-ran` (it has told the end),
//! `batch-settled`, `batch-unmasked` (its signal mask is its own again); at least three times.
//! While memory is copied for a snapshot: `copy-helper` (the helper that copies is born), `copy-born` (and the
//! copy), `copy-made` (it will end with us). Where nothing is to be killed: `running` (the target goes on, the
//! image is not complete yet). With --track: `open-begun` (the target has begun to open a userfaultfd for us),
//! `track-armed` (writes are tracked), `track-kept` (the image has its name, tracking is not handed over).

use anyhow::{Result, bail};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

struct Setting {
    name: String,
    /// The signal for ourselves, if it is not to fail.
    signal: Option<i32>,
    /// How often the place must still be passed.
    left: AtomicU32,
}

static SETTING: OnceLock<Option<Setting>> = OnceLock::new();

/// Fails, or does not return, if the environment says so.
///
/// # Errors
/// When this place is the one named by `CKPT_FAILPOINT`.
pub fn hit(name: &str) -> Result<()> {
    let setting = SETTING.get_or_init(|| std::env::var("CKPT_FAILPOINT").ok().map(|v| parse(&v)));
    let Some(setting) = setting.as_ref().filter(|s| s.name == name) else { return Ok(()) };
    if setting.left.fetch_sub(1, Ordering::Relaxed) != 1 {
        return Ok(());
    }
    if let Some(signal) = setting.signal {
        crate::sys::process::kill(std::process::id() as i32, signal);
        return Ok(());
    }
    bail!("fail point {name}")
}

fn parse(value: &str) -> Setting {
    let (rest, signal) = match value.rsplit_once('=') {
        Some((rest, "kill")) => (rest, Some(libc::SIGKILL)),
        Some((rest, "stop")) => (rest, Some(libc::SIGSTOP)),
        _ => (value, None),
    };
    let (name, count) = rest.split_once('#').unwrap_or((rest, "1"));
    Setting { name: name.into(), signal, left: AtomicU32::new(count.parse().unwrap_or(1)) }
}
