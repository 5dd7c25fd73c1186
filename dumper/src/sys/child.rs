//! Processes of ours that do one thing, by raw system calls: other threads may have held any lock when they were made.

use std::io::{Error, ErrorKind, Result};
use std::mem::MaybeUninit;

/// fork(2), without a signal at the child's end: 0 in the child.
///
/// # Errors
/// EAGAIN when there is no process to be had.
///
/// # Safety
/// The child has a copy of this stack only: it ends by _exit(2), and does nothing for which another thread may
/// have held a lock, unless there is none.
pub unsafe fn fork() -> Result<i32> {
    // SAFETY: without CLONE_VM, as promised by the caller.
    match unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) } {
        -1 => Err(Error::last_os_error()),
        child => Ok(child as i32),
    }
}

/// Waits for the end of a child; its status, as wait(2) returns it.
///
/// # Errors
/// ECHILD.
pub fn wait(child: i32) -> Result<i32> {
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    while unsafe { libc::waitpid(child, &raw mut status, libc::__WALL) } < 0 {
        let error = Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(status)
}

/// In a child: no signal but SIGKILL reaches it, and no terminal.
pub fn seclude() {
    // SAFETY: raw system calls; the set is initialised by the first.
    unsafe {
        let mut all = MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
        libc::setsid();
    }
}

/// In a child: closes all descriptors but these, in ascending order.
///
/// # Safety
/// Nothing in the child uses, or closes, one of the others.
pub unsafe fn close_all_but(kept: &[i32]) {
    let mut first = 0_u32;
    for fd in kept {
        let fd = *fd as u32;
        if fd > first {
            // SAFETY: no pointers; nothing of this process uses them.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
        }
        first = fd + 1;
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}
