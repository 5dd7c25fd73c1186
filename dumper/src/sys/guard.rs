//! A process of its own for what must not be left half done: in its own session, with all signals blocked.
//! Should ckpt-dump be killed, it goes on to the end.

use std::fs::File;
use std::io::{Error, ErrorKind, PipeWriter, Result, Write, pipe};
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
        let (end_fd, alive_fd, fd) = (end.as_raw_fd(), alive.as_raw_fd(), file.as_raw_fd());
        // SAFETY: without CLONE_VM the child has a copy of this stack; it makes raw system calls only, and ends
        // there. No signal is sent at its end.
        let guard = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
        if guard < 0 {
            return Err(Error::last_os_error());
        }
        if guard == 0 {
            // SAFETY: raw system calls on descriptors and memory of its own.
            unsafe {
                let mut all = std::mem::MaybeUninit::uninit();
                libc::sigfillset(all.as_mut_ptr());
                libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
                libc::setsid();
                // Nothing of ours stays open because of it: pipes of whoever waits for our end, above all.
                let mut keep = [end_fd, fd];
                keep.sort_unstable();
                libc::close(alive_fd);
                let mut next = 0;
                for kept in keep {
                    if kept > next {
                        libc::syscall(libc::SYS_close_range, next, kept - 1, 0);
                    }
                    next = kept + 1;
                }
                libc::syscall(libc::SYS_close_range, next, u32::MAX, 0);
                let mut byte = 0_u8;
                while libc::read(end_fd, (&raw mut byte).cast(), 1) < 0
                    && *libc::__errno_location() == libc::EINTR
                {}
                let written = libc::write(fd, will.as_ptr().cast(), will.len());
                libc::_exit(i32::from(written < 0));
            }
        }
        Ok(Self { alive: Some(alive), guard: guard as i32 })
    }

    /// Now, once.
    pub fn execute(&mut self) {
        if let Some(mut alive) = self.alive.take() {
            // What it reads does not matter; an error means that it is gone, and we are only told so.
            let _ = alive.write_all(&[0]);
            drop(alive);
            let mut status = 0;
            // SAFETY: the kernel writes one int.
            while unsafe { libc::waitpid(self.guard, &raw mut status, libc::__WALL) } < 0
                && Error::last_os_error().kind() == ErrorKind::Interrupted
            {}
        }
    }
}

impl Drop for LastWill {
    fn drop(&mut self) {
        self.execute();
    }
}
