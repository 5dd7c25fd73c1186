//! Signals that ask us to stop, and SIGCHLD, are waited for, never handled: nothing of ours runs at
//! a moment that the code does not show.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

/// The signal that asked us to stop, or 0.
static STOP_REQUEST: AtomicI32 = AtomicI32::new(0);

const STOP_SIGNALS: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Signals that ask for a dump: bit `n - 1` for signal `n`.
static ASKING: AtomicU64 = AtomicU64::new(0);

/// `signal` asks for a dump from now on, not for an end. To be called before [`block`].
pub fn dump_on(signal: i32) {
    ASKING.fetch_or(1 << (signal - 1), Ordering::Relaxed);
}

fn asks_for_dump(signal: i32) -> bool {
    signal > 0 && ASKING.load(Ordering::Relaxed) & 1 << (signal - 1) != 0
}

fn stop_signals() -> impl Iterator<Item = i32> {
    STOP_SIGNALS.into_iter().filter(|signal| !asks_for_dump(*signal))
}

fn set_of(signals: impl Iterator<Item = i32>) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set before sigaddset and the read.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

fn waited_for() -> libc::sigset_t {
    set_of(stop_signals().chain([libc::SIGCHLD]))
}

/// Blocks SIGCHLD, the stop requests and what asks for dumps in this thread (call before starting others),
/// and makes the kernel send SIGCHLD even if our parent had it ignored.
pub fn block() {
    let set =
        set_of(STOP_SIGNALS.into_iter().chain([libc::SIGCHLD]).chain((1..=64).filter(|s| asks_for_dump(*s))));
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

/// What ended a [`sleep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The process has ended.
    Ended,
    /// By a signal of [`dump_on`].
    Asked(i32),
    /// By a stop request, which is remembered.
    Stop(i32),
    /// The time is over.
    Due,
}

/// Waits for the end of a process, a signal, or the end of the time (`None`: for ever).
///
/// # Errors
/// As signalfd(2), poll(2).
pub fn sleep(process: BorrowedFd<'_>, time: Option<Duration>) -> io::Result<Woken> {
    let set = set_of(stop_signals().chain((1..=64).filter(|s| asks_for_dump(*s))));
    // SAFETY: valid set; a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: nobody else has it.
    let signals = unsafe { OwnedFd::from_raw_fd(fd) };
    let wait_for = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut fds = [wait_for(process.as_raw_fd()), wait_for(signals.as_raw_fd())];
    // A time longer than poll(2) takes is one that nobody waits for.
    let ms = time.map_or(-1, |t| t.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32);
    // SAFETY: valid array.
    if unsafe { libc::poll(fds.as_mut_ptr(), 2, ms) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if fds[0].revents != 0 {
        return Ok(Woken::Ended);
    }
    // SAFETY: valid set and time; no siginfo asked for.
    let signal = unsafe {
        let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const none)
    };
    match signal {
        ..=0 => Ok(Woken::Due),
        signal if asks_for_dump(signal) => Ok(Woken::Asked(signal)),
        signal => {
            STOP_REQUEST.store(signal, Ordering::Relaxed);
            Ok(Woken::Stop(signal))
        }
    }
}
