//! A process of its own for what must not be left half done: in its own session, with all signals blocked.
//! Should ckpt-dump be killed, it goes on to the end.

use super::child;
use std::fs::File;
use std::io::{Error, PipeWriter, Result, Write, pipe};
use std::os::fd::AsRawFd;

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
    // SAFETY: the child runs `work` only, and ends there.
    let child = unsafe { child::fork() }?;
    if child == 0 {
        child::seclude();
        // SAFETY: the mapping is shared with a process that waits for our end.
        unsafe { libc::_exit(work(std::slice::from_raw_parts_mut(memory.at, memory.len))) };
    }
    let status = child::wait(child)?;
    match status {
        _ if !libc::WIFEXITED(status) => Err(Error::other("the process that looked at it was killed")),
        0 => Ok(()),
        _ => Err(Error::from_raw_os_error(libc::WEXITSTATUS(status))),
    }
}

/// Bytes that are written to a file when this is dropped, or executed, or when we die before.
#[derive(Debug)]
pub struct LastWill {
    /// Closed by our death.
    alive: Option<PipeWriter>,
    guard: i32,
}

impl LastWill {
    /// Starts a process that waits for our end, in its own session.
    ///
    /// # Errors
    /// As pipe(2), clone(2).
    pub fn new(file: File, will: &'static [u8]) -> Result<Self> {
        let (end, alive) = pipe()?;
        let (end_fd, fd) = (end.as_raw_fd(), file.as_raw_fd());
        // SAFETY: the child makes raw system calls only, and ends there.
        let guard = unsafe { child::fork() }?;
        if guard == 0 {
            child::seclude();
            let mut kept = [end_fd, fd];
            kept.sort_unstable();
            // SAFETY: raw system calls on descriptors and memory of its own.
            unsafe {
                // Nothing of ours stays open because of it: pipes of whoever waits for our end, above all.
                child::close_all_but(&kept);
                let mut byte = 0_u8;
                while libc::read(end_fd, (&raw mut byte).cast(), 1) < 0
                    && *libc::__errno_location() == libc::EINTR
                {}
                let written = libc::write(fd, will.as_ptr().cast(), will.len());
                libc::_exit(i32::from(written < 0));
            }
        }
        Ok(Self { alive: Some(alive), guard })
    }

    /// Now, once.
    pub fn execute(&mut self) {
        if let Some(mut alive) = self.alive.take() {
            // What it reads does not matter; an error means that it is gone, and we are only told so.
            let _ = alive.write_all(&[0]);
            drop(alive);
            // It has ended, one way or the other.
            let _ = child::wait(self.guard);
        }
    }
}

impl Drop for LastWill {
    fn drop(&mut self) {
        self.execute();
    }
}
