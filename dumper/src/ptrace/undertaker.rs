//! Takes note of the end of threads while attaching to another one keeps us from it.
//!
//! PTRACE_SEIZE waits for `cred_guard_mutex` of the process (`ptrace_attach`, kernel/ptrace.c). A thread in execve
//! holds it until all others have ended, which are only gone when their tracer knows (`de_thread`, fs/exec.c,
//! Linux 6.18). So each waits for the other. wait(2) gives any thread of ours what another one traces: this one
//! breaks the circle. It can go when ptrace_attach waits in a way that lets us reap.

use super::freeze;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Attaching takes microseconds when nobody is in execve.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The process to which we are attaching; in the high half, a count that tells one time from the next. 0: none.
static ATTACHING: AtomicU64 = AtomicU64::new(0);

/// Attaches by `seize`, to a thread of `pid`.
pub fn attaching<T>(pid: i32, seize: impl FnOnce() -> T) -> T {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    ATTACHING.store(count << 32 | u64::from(pid.unsigned_abs()), Ordering::Relaxed);
    let result = seize();
    ATTACHING.store(0, Ordering::Relaxed);
    result
}

/// At work until dismissed.
#[derive(Debug)]
pub struct Undertaker {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Undertaker {
    /// Without it, when there can be no thread, a dump at the moment of an execve may hang.
    pub fn start() -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let seen = done.clone();
        let thread = thread::Builder::new().name("undertaker".into()).spawn(move || work(&seen)).ok();
        Self { done, thread }
    }

    /// Nothing is attached to any more: it ends, and is not waited for while something is stopped.
    pub fn dismiss(&self) {
        self.done.store(true, Ordering::Relaxed);
        self.thread.iter().for_each(|thread| thread.thread().unpark());
    }
}

impl Drop for Undertaker {
    fn drop(&mut self) {
        self.dismiss();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(done: &AtomicBool) {
    let mut before = 0;
    while !done.load(Ordering::Relaxed) {
        thread::park_timeout(LOOK_EVERY);
        let now = ATTACHING.load(Ordering::Relaxed);
        if now != 0 && now == before {
            let pid = now as u32 as i32;
            crate::report::debug(|| format!("attaching to PID {pid} waits for an execve"));
            freeze::reap_others(pid, 0);
        }
        before = now;
    }
}
