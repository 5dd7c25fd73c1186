//! The few things without a safe wrapper.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};

/// What the kernel told about this program beside its arguments.
#[derive(Debug, Default)]
pub struct Aux {
    /// AT_EXECFD: what was executed, if this program was run for it (flag O of binfmt_misc).
    pub image: Option<OwnedFd>,
    /// AT_FLAGS_PRESERVE_ARGV0: the second argument is the first one of whoever executed it (flag P; the kernel
    /// tells since Linux 5.12).
    pub argv0: bool,
}

/// Include/uapi/linux/binfmts.h.
const AT_FLAGS_PRESERVE_ARGV0: libc::c_ulong = 1;

/// Takes over the descriptor that the kernel has passed on.
///
/// # Safety
/// Once only, before any descriptor is closed.
pub unsafe fn auxv() -> Aux {
    let value = |kind| {
        nix::errno::Errno::clear();
        // SAFETY: touches no memory of ours.
        let value = unsafe { libc::getauxval(kind) };
        (nix::errno::Errno::last_raw() != libc::ENOENT).then_some(value)
    };
    let image = value(libc::AT_EXECFD).map(|fd| {
        // SAFETY: the kernel made it for us, and (see the caller) nobody else has taken it.
        unsafe { OwnedFd::from_raw_fd(fd as c_int) }
    });
    Aux { image, argv0: value(libc::AT_FLAGS).is_some_and(|f| f & AT_FLAGS_PRESERVE_ARGV0 != 0) }
}

/// The arguments of `main`.
///
/// # Safety
/// `argv` has `argc` strings.
pub unsafe fn arguments(argc: c_int, argv: *const *const c_char) -> Vec<CString> {
    // SAFETY: the caller's.
    (0..argc as usize).map(|i| unsafe { CStr::from_ptr(*argv.add(i)) }.to_owned()).collect()
}

/// Whether a number is open at all.
#[must_use]
pub fn is_open(fd: c_int) -> bool {
    // SAFETY: touches no memory; of a closed number it gives an error.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// A descriptor that was made just now.
#[must_use]
pub fn owned(fd: c_int) -> OwnedFd {
    // SAFETY: our callers pass what fcntl(F_DUPFD) has returned, once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A file in memory that can be executed, gone with its last user.
///
/// # Errors
/// `vm.memfd_noexec=2` (EACCES), or none are to be had.
pub fn executable_memfd(name: &CStr) -> std::io::Result<File> {
    let make = |flags| {
        // SAFETY: `name` is a string.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
        // SAFETY: a new descriptor of ours.
        (fd >= 0).then(|| unsafe { File::from_raw_fd(fd) }).ok_or_else(std::io::Error::last_os_error)
    };
    // MFD_EXEC is known since Linux 6.3 (EINVAL before).
    let file = make(libc::MFD_CLOEXEC | libc::MFD_EXEC);
    file.or_else(|e| if e.raw_os_error() == Some(libc::EINVAL) { make(libc::MFD_CLOEXEC) } else { Err(e) })
}
