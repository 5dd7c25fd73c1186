//! Signals that ask us to stop, and SIGCHLD, are waited for, never handled: nothing of ours runs at
//! a moment that the code does not show.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// The signal that asked us to stop, or 0.
static STOP_REQUEST: AtomicI32 = AtomicI32::new(0);

const STOP_SIGNALS: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

fn waited_for() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set before sigaddset and the read.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in STOP_SIGNALS.into_iter().chain([libc::SIGCHLD]) {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Blocks SIGCHLD and the stop requests in this thread (call before starting others), and makes the
/// kernel send SIGCHLD even if our parent had it ignored.
pub fn block() {
    let set = waited_for();
    // SAFETY: valid set; SIG_DFL needs no code of ours.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Waits for any of the blocked signals, at most `timeout`. Stop requests are remembered.
pub fn wait(timeout: Duration) {
    let set = waited_for();
    let time =
        libc::timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    // SAFETY: valid set and time; no siginfo asked for.
    let signal = unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const time) };
    if STOP_SIGNALS.contains(&signal) {
        STOP_REQUEST.store(signal, Ordering::Relaxed);
    }
}

/// The stop request that arrived so far, if any.
#[must_use]
pub fn stop_request() -> Option<i32> {
    wait(Duration::ZERO);
    seen_stop_request()
}

/// As [`stop_request`], without looking for new signals.
#[must_use]
pub fn seen_stop_request() -> Option<i32> {
    match STOP_REQUEST.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(signal),
    }
}
