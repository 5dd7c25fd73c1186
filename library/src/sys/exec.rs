//! execveat(2) of an image.

use super::signals;
use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;
use std::ptr;

/// Replaces the program by an open file, with all signals blocked, and without its timers and its own signals. Returns only if that is not possible.
///
/// # Errors
/// Of execveat(2).
pub fn replace(file: RawFd, args: &[CString], env: &[CString]) -> io::Result<Infallible> {
    let list = |of: &[CString]| -> Vec<*const libc::c_char> {
        of.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
    };
    let (args, env) = (list(args), list(env));
    let blocked = signals::Blocked::all();
    let put = signals::Put::aside();
    // SAFETY: lists of strings that end with a null pointer.
    unsafe {
        let empty = c"".as_ptr();
        libc::syscall(libc::SYS_execveat, file, empty, args.as_ptr(), env.as_ptr(), libc::AT_EMPTY_PATH);
    }
    let error = io::Error::last_os_error();
    put.back();
    drop(blocked);
    Err(error)
}
