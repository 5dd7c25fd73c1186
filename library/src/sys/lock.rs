//! A lock that the child of a fork can have again.
//!
//! A std Mutex that another thread holds at a fork is held for ever in the child, where that thread does not
//! exist. This one is released there ([`at_fork`]).

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

thread_local! {
    static MARK: u8 = const { 0 };
}

/// An address that is no other thread's as long as this one lives.
fn this_thread() -> usize {
    MARK.with(|mark| std::ptr::from_ref(mark) as usize)
}

/// Taken by one thread at a time; it knows which.
#[derive(Debug)]
pub struct Turn {
    /// 0: free, 1: taken, 2: taken and waited for.
    state: AtomicU32,
    /// Thread that has it. Not by its id, which may be another one in a restored run.
    owner: AtomicUsize,
}

/// Releases it when dropped.
#[derive(Debug)]
pub struct Taken<'a>(&'a Turn);

impl Turn {
    pub const fn new() -> Self {
        Self { state: AtomicU32::new(0), owner: AtomicUsize::new(0) }
    }

    /// Waits for it; `None` if the calling thread has it.
    pub fn take(&self) -> Option<Taken<'_>> {
        if self.state.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            if self.owner.load(Ordering::Relaxed) == this_thread() {
                return None;
            }
            while self.state.swap(2, Ordering::Acquire) != 0 {
                self.wait();
            }
        }
        self.owner.store(this_thread(), Ordering::Relaxed);
        Some(Taken(self))
    }

    /// In the child of a fork, in which there is no other thread: nobody has it.
    pub fn reset(&self) {
        self.owner.store(0, Ordering::Relaxed);
        self.state.store(0, Ordering::Release);
    }

    fn wait(&self) {
        let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the word lives as long as `self`; no timeout.
        unsafe { libc::syscall(libc::SYS_futex, self.state.as_ptr(), op, 2, std::ptr::null::<u8>()) };
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let turn = self.0;
        turn.owner.store(0, Ordering::Relaxed);
        if turn.state.swap(0, Ordering::Release) == 2 {
            let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
            // SAFETY: the word is only an address here.
            unsafe { libc::syscall(libc::SYS_futex, turn.state.as_ptr(), op, 1) };
        }
    }
}

/// Held for moments, whenever something is looked up or changed: no fork comes in between.
pub static SHORT: Turn = Turn::new();

/// Whose turn it is to make a checkpoint, or to return to one.
pub static LONG: Turn = Turn::new();

extern "C" fn before_fork() {
    // Not by this thread: it would be in a hook, or in a function of ours, which does not fork.
    std::mem::forget(SHORT.take());
}

extern "C" fn in_parent() {
    drop(Taken(&SHORT));
}

extern "C" fn in_child() {
    SHORT.reset();
    LONG.reset();
}

/// Sees to it that locks are free in children, by pthread_atfork(3). Nobody waits here for another thread that does
/// it just now: after a fork in that moment there would be nobody to wait for.
///
/// # Errors
/// When there is no memory.
pub fn survive_forks() -> io::Result<()> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if REGISTERED.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    // SAFETY: plain functions, which live as long as the library.
    match unsafe { libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child)) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}
