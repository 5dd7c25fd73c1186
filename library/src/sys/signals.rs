//! The calling thread's signal mask.

use super::raw;

/// Size of the kernel's signal set.
const SET: usize = 8;

/// All signals of the calling thread are blocked until it is dropped; even those that the C library keeps for
/// itself, so that nothing takes the thread out of its call.
#[derive(Debug)]
pub struct Blocked {
    before: u64,
}

impl Blocked {
    pub fn all() -> Self {
        Self { before: set(u64::MAX) }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        set(self.before);
    }
}

/// Sets the mask; what it was before.
pub fn set(mask: u64) -> u64 {
    let mut before = 0u64;
    let args = [libc::SIG_SETMASK as usize, &raw const mask as usize, &raw mut before as usize, SET, 0, 0];
    // SAFETY: both are sets of that size on the stack.
    unsafe { raw::syscall(libc::SYS_rt_sigprocmask, args) };
    before
}

/// Makes all signals act as they do by default. For a process that is about to call execve(2).
pub fn default_all() {
    // `struct sigaction` of the kernel: handler (SIG_DFL), flags, restorer, mask.
    let action = [0usize; 4];
    for signal in 1..=64 {
        let args = [signal, &raw const action as usize, 0, SET, 0, 0];
        // SAFETY: reads `action`. EINVAL for SIGKILL and SIGSTOP.
        unsafe { raw::syscall(libc::SYS_rt_sigaction, args) };
    }
}
