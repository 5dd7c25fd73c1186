//! Pseudo-terminals, and who has which terminal.

use super::{Fd, Result, sys};
use linux_raw_sys::general::*;

/// asm-generic/ioctls.h.
const TIOCEXCL: u32 = 0x540c;
const TIOCSWINSZ: u32 = 0x5414;
const TIOCPKT: u32 = 0x5420;
const TIOCNOTTY: u32 = 0x5422;
const TIOCGPTN: u32 = 0x8004_5430;
const TIOCSPTLCK: u32 = 0x4004_5431;
const TIOCGPTPEER: u32 = 0x5441;

/// Number of the pair that a master belongs to.
pub fn number(master: Fd) -> Result<u32> {
    let mut number = 0u32;
    // SAFETY: the kernel writes one int.
    unsafe { sys!(__NR_ioctl, master.0, TIOCGPTN, &raw mut number) }?;
    Ok(number)
}

/// A switch that is given by the address of an int.
fn switch(fd: Fd, which: u32, on: bool) -> Result<()> {
    let on = i32::from(on);
    // SAFETY: one int that is only read.
    unsafe { sys!(__NR_ioctl, fd.0, which, &raw const on) }.map(drop)
}

/// Whether the slave of a master can not be opened.
pub fn lock(master: Fd, locked: bool) -> Result<()> {
    switch(master, TIOCSPTLCK, locked)
}

/// Packet mode of a master.
pub fn set_packets(master: Fd) -> Result<()> {
    switch(master, TIOCPKT, true)
}

/// Nobody else may open the terminal.
pub fn set_exclusive(tty: Fd) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_ioctl, tty.0, TIOCEXCL, 0) }.map(drop)
}

/// Opens the slave of a master (Linux 4.13), by whatever name it has; never as controlling terminal. Not with
/// O_CLOEXEC, which would stay among the flags of the open file, as no program has them that opened it by name.
pub fn peer(master: Fd, flags: u32) -> Result<Fd> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_ioctl, master.0, TIOCGPTPEER, flags | O_NOCTTY) }.map(|fd| Fd(fd as i32))
}

/// Sets `struct winsize`.
pub fn set_winsize(tty: Fd, size: &[u8; 8]) -> Result<()> {
    // SAFETY: four 16-bit numbers that are only read.
    unsafe { sys!(__NR_ioctl, tty.0, TIOCSWINSZ, size.as_ptr()) }.map(drop)
}

/// Gives up the controlling terminal; if the calling process leads its session, all of that do.
pub fn give_up_controlling(tty: Fd) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys!(__NR_ioctl, tty.0, TIOCNOTTY, 0) }.map(drop)
}
