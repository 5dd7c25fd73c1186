//! A process of its own for what must not be left half done: in its own session, with all signals blocked.
//! Should ckpt-dump be killed, it goes on to the end.

use std::io::{Error, ErrorKind, Result};

/// Memory that a forked process shares with us.
pub struct SharedMemory {
    at: *mut u8,
    len: usize,
}

impl SharedMemory {
    /// # Errors
    /// ENOMEM.
    pub fn new(len: usize) -> Result<Self> {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping where the kernel likes.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
        if at == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(Self { at: at.cast(), len }) }
    }

    /// Where a forked process writes to it.
    #[must_use]
    pub fn start(&self) -> *mut u8 {
        self.at
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: our own mapping; whoever wrote to it has ended ([`run`]).
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: our own mapping; slices of it do not outlive this.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

/// Runs `work` on the memory in a process of its own, and waits for its end. What it returns is an errno
/// or 0.
///
/// # Errors
/// That errno; EAGAIN when there is no process to be had; when it was killed.
///
/// # Safety
/// `work` allocates nothing and takes no lock: other threads of ours may have held one.
pub unsafe fn run(memory: &mut SharedMemory, work: impl FnOnce(&mut [u8]) -> i32) -> Result<()> {
    // SAFETY: without CLONE_VM the child has a copy of this stack; it runs `work` only, and ends there. No
    // signal is sent at its end.
    let child = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
    if child < 0 {
        return Err(Error::last_os_error());
    }
    if child == 0 {
        // SAFETY: raw system calls; the mapping is shared with a process that waits for our end.
        unsafe {
            let mut all = std::mem::MaybeUninit::uninit();
            libc::sigfillset(all.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
            libc::setsid();
            let errno = work(std::slice::from_raw_parts_mut(memory.at, memory.len));
            libc::_exit(errno);
        }
    }
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    while unsafe { libc::waitpid(child as i32, &raw mut status, libc::__WALL) } < 0 {
        let error = Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
    match status {
        _ if !libc::WIFEXITED(status) => Err(Error::other("the process that looked at it was killed")),
        0 => Ok(()),
        _ => Err(Error::from_raw_os_error(libc::WEXITSTATUS(status))),
    }
}
