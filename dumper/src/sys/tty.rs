//! Questions about terminals that change nothing.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

/// asm-generic/ioctls.h.
const TIOCGSID: libc::Ioctl = 0x5429;
const TIOCGPTN: libc::Ioctl = 0x8004_5430;
const TIOCGDEV: libc::Ioctl = 0x8004_5432;
const TIOCGPKT: libc::Ioctl = 0x8004_5438;
const TIOCGPTLCK: libc::Ioctl = 0x8004_5439;
const TIOCGEXCL: libc::Ioctl = 0x8004_5440;

/// A question that is answered by one int.
fn ask(fd: BorrowedFd<'_>, question: libc::Ioctl) -> Result<u32> {
    let mut answer = 0_u32;
    // SAFETY: the questions of this file write one 32-bit number.
    match unsafe { libc::ioctl(fd.as_raw_fd(), question, &raw mut answer) } {
        -1 => Err(Error::last_os_error()),
        _ => Ok(answer),
    }
}

/// Number of the pseudo-terminal whose master this is.
///
/// # Errors
/// ENOTTY for what is no master.
pub fn pty_number(master: BorrowedFd<'_>) -> Result<u32> {
    ask(master, TIOCGPTN)
}

/// Packet mode of a master.
///
/// # Errors
/// As [`pty_number`].
pub fn has_packets(master: BorrowedFd<'_>) -> Result<bool> {
    ask(master, TIOCGPKT).map(|n| n != 0)
}

/// Whether the slave of a master cannot be opened.
///
/// # Errors
/// As [`pty_number`].
pub fn is_locked(master: BorrowedFd<'_>) -> Result<bool> {
    ask(master, TIOCGPTLCK).map(|n| n != 0)
}

/// TIOCEXCL.
///
/// # Errors
/// ENOTTY, EIO.
pub fn is_exclusive(tty: BorrowedFd<'_>) -> Result<bool> {
    ask(tty, TIOCGEXCL).map(|n| n != 0)
}

/// Line discipline: 0 is N_TTY.
///
/// # Errors
/// ENOTTY, EIO.
pub fn discipline(tty: BorrowedFd<'_>) -> Result<u32> {
    ask(tty, libc::TIOCGETD)
}

/// Device number as `/proc/PID/stat` has it; of a master that of its slave.
///
/// # Errors
/// ENOTTY, EIO.
pub fn device(tty: BorrowedFd<'_>) -> Result<u32> {
    ask(tty, TIOCGDEV)
}

/// Session whose controlling terminal is the slave of this master.
///
/// # Errors
/// ENOTTY when there is none.
pub fn session(master: BorrowedFd<'_>) -> Result<u32> {
    ask(master, TIOCGSID)
}
