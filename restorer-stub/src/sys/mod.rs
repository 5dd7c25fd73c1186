//! Thin typed wrappers of system calls, and the only place outside `arch` and `mem` with unsafe
//! code. A wrapper takes slices, numbers and records, so that no caller can name wrong memory.
#![allow(unsafe_code)]

pub mod aio;
pub mod fanotify;
pub mod fd;
pub mod ipc;
pub mod mm;
pub mod mqueue;
pub mod object;
pub mod process;
pub mod ptrace;
pub mod pty;
pub mod sched;
pub mod signal;
pub mod socket;
pub mod thread;
pub mod uffd;

use crate::arch;
use core::fmt;

/// An errno of the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

pub type Result<T> = core::result::Result<T, Errno>;

/// A descriptor number. Copyable: descriptors here end by `close`, `close_range` or the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fd(pub i32);

impl Fd {
    /// AT_FDCWD: paths relative to the working directory.
    pub const CWD: Self = Self(linux_raw_sys::general::AT_FDCWD);
}

fn check(ret: isize) -> Result<usize> {
    if (-4095..0).contains(&ret) { Err(Errno(-ret as i32)) } else { Ok(ret as usize) }
}

/// A system call with up to six arguments; unsafe as [`arch::syscall`].
macro_rules! sys {
    ($nr:ident $(, $arg:expr)*) => {{
        let mut args = [0usize; 6];
        let given = [$($arg as usize),*];
        args[..given.len()].copy_from_slice(&given);
        $crate::sys::check($crate::arch::syscall(linux_raw_sys::general::$nr, args))
    }};
}
pub(crate) use sys;

/// Calls without any argument.
fn plain(nr: u32) -> isize {
    // SAFETY: used for calls that take no arguments and touch no memory (getpid and the like).
    unsafe { arch::syscall(nr, [0; 6]) }
}

macro_rules! errnos {
    ($($name:ident = $value:literal $text:literal;)*) => {
        impl Errno {
            // A table: not every name is used as a constant.
            $(#[allow(dead_code)] pub const $name: Self = Self($value);)*
            fn describe(self) -> Option<(&'static str, &'static str)> {
                match self.0 {
                    $($value => Some((stringify!($name), $text)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM = 1 "operation not permitted";
    ENOENT = 2 "no such file or directory";
    ESRCH = 3 "no such process";
    EINTR = 4 "interrupted";
    EIO = 5 "input/output error";
    ENXIO = 6 "no such device or address";
    EBADF = 9 "bad descriptor";
    ECHILD = 10 "no child process";
    EAGAIN = 11 "resource temporarily unavailable";
    ENOMEM = 12 "out of memory";
    EACCES = 13 "permission denied";
    EFAULT = 14 "bad address";
    EBUSY = 16 "busy";
    EEXIST = 17 "exists already";
    ENODEV = 19 "no such device";
    ENOTDIR = 20 "not a directory";
    EISDIR = 21 "is a directory";
    EINVAL = 22 "invalid argument";
    ENFILE = 23 "too many open files in the system";
    EMFILE = 24 "too many open files";
    ENOTTY = 25 "not a terminal";
    ETXTBSY = 26 "text file busy";
    EFBIG = 27 "file too large";
    ENOSPC = 28 "no space left on device";
    ESPIPE = 29 "illegal seek";
    EROFS = 30 "read-only file system";
    EPIPE = 32 "broken pipe";
    ENAMETOOLONG = 36 "file name too long";
    ENOSYS = 38 "not implemented by this kernel";
    ELOOP = 40 "too many symbolic links";
    EOVERFLOW = 75 "value too large";
    ENOTSOCK = 88 "not a socket";
    EPROTONOSUPPORT = 93 "protocol not supported";
    EOPNOTSUPP = 95 "operation not supported";
    EAFNOSUPPORT = 97 "address family not supported";
    EADDRINUSE = 98 "address already in use";
    EADDRNOTAVAIL = 99 "cannot assign requested address";
    ENETUNREACH = 101 "network is unreachable";
    ECONNREFUSED = 111 "connection refused";
    ETIMEDOUT = 110 "timed out";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.describe() {
            Some((name, text)) => write!(f, "{text} ({name})"),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A path with its final NUL, as the kernel wants it.
pub struct CPath {
    bytes: [u8; Self::MAX + 1],
}

impl CPath {
    /// PATH_MAX without the NUL.
    pub const MAX: usize = 4095;

    /// `ENAMETOOLONG` when it does not fit, `ENOENT` when it is empty or has a NUL inside.
    pub fn new(path: &[u8]) -> Result<Self> {
        Self::concat(&[path])
    }

    /// The parts one after the other.
    pub fn concat(parts: &[&[u8]]) -> Result<Self> {
        let mut path = Self { bytes: [0; Self::MAX + 1] };
        let mut len = 0;
        for part in parts {
            path.bytes[..Self::MAX]
                .get_mut(len..len + part.len())
                .ok_or(Errno::ENAMETOOLONG)?
                .copy_from_slice(part);
            len += part.len();
        }
        if len == 0 || path.bytes[..len].contains(&0) { Err(Errno::ENOENT) } else { Ok(path) }
    }

    /// Without the NUL.
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.bytes.iter().position(|b| *b == 0).unwrap_or(Self::MAX);
        &self.bytes[..len]
    }

    fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }
}

/// A small number in decimal, for paths in /proc.
pub struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    pub fn new(mut n: u64) -> Self {
        let mut d = Self { digits: [b'0'; 20], start: 20 };
        loop {
            d.start -= 1;
            d.digits[d.start] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                return d;
            }
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}
