//! System calls, and the functions for C.
//!
//! Around a dump they are made without the C library ([`raw`]): what it keeps per thread is none of the helper's
//! business, which runs in the same memory for a moment.
#![allow(unsafe_code)]

pub mod c;
pub mod exec;
pub mod fd;
pub mod lock;
mod raw;
pub mod signals;
pub mod spawn;

use std::io;

/// The thread that calls.
pub fn gettid() -> i32 {
    // SAFETY: touches no memory.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// The program runs with rights that its caller does not have: what the environment says is not to be trusted.
pub fn is_secure() -> bool {
    // SAFETY: reads the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Random bytes.
///
/// # Errors
/// When the kernel has none.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the kernel writes at most N bytes.
    let n = unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), N, 0) };
    if n == N as i64 { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

/// Whether the calling process has children: running, stopped, or ended and not waited for.
pub fn has_children() -> bool {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: writes only `info`; WNOWAIT leaves the children as they are.
    unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), how) == 0 }
}

/// Whether orphans below the calling process become its children.
pub fn is_subreaper() -> bool {
    let mut is = 0i32;
    // SAFETY: writes only `is`.
    unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut is) == 0 && is != 0 }
}

pub fn set_subreaper(on: bool) {
    // SAFETY: touches no memory.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, i32::from(on) as libc::c_ulong, 0, 0, 0) };
}

/// Lets a process trace the calling one where Yama allows that to ancestors only; 0: none.
pub fn set_ptracer(pid: i32) {
    // SAFETY: touches no memory. EINVAL where there is no Yama.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, pid as libc::c_ulong, 0, 0, 0) };
}
