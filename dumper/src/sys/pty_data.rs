//! What waits to be read in a pseudo-terminal. The kernel lets nobody look at it, so it is read and written
//! again, by a process that goes on to the end should this one be killed ([`guard`]).
//!
//! Two facts of drivers/tty make that exact: poll(2) of an end without input first moves there what is
//! still on its way (n_tty_poll), so that nothing can follow what was read; and what is written to a
//! slave without OPOST comes out of its master unchanged.

use super::fd::{poll_now, readable_bytes};
use super::guard::{self, SharedMemory};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A pseudo-terminal that nobody else uses meanwhile.
#[derive(Debug)]
pub struct Pair<'a> {
    master: BorrowedFd<'a>,
    /// Our own, without waiting.
    slave: OwnedFd,
    /// `struct termios2`.
    termios: [u8; 44],
    /// The master is in packet mode.
    packets: bool,
}

const TIOCGPTPEER: libc::Ioctl = 0x5441;
const TCSETS2: libc::Ioctl = 0x402c_542b;
const TCXONC: libc::Ioctl = 0x540a;

/// Room for all that a pair holds in one direction: 4 KiB of the line discipline, 8 KiB on the way.
const ROOM: usize = 1 << 16;
/// With as much there is always room for more, unless output is stopped. (It holds 4095 bytes, and more
/// is on its way only behind those.)
const SURELY_ROOM: usize = 4000;
/// In pieces of this size as much fits in again as lines can have brought in, 20,480 bytes
/// (drivers/tty/tty_buffer.c: a piece fills a buffer of the smallest size, twice, as it has no flags).
/// Larger ones waste room.
const PIECE: usize = 512;

/// Offset of the output flags in `struct termios2`.
const OFLAG: usize = 4;

impl<'a> Pair<'a> {
    /// Opens the slave, which must have been open before (closing it would otherwise hang up the master).
    ///
    /// # Errors
    /// EIO for a locked pair, EBUSY for one in exclusive use.
    pub fn open(master: BorrowedFd<'a>, termios: [u8; 44], packets: bool) -> Result<Self> {
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC;
        // SAFETY: no pointers.
        let slave = unsafe { libc::ioctl(master.as_raw_fd(), TIOCGPTPEER, flags) };
        if slave < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: a fresh descriptor, owned by nobody else.
        Ok(Self { master, slave: unsafe { OwnedFd::from_raw_fd(slave) }, termios, packets })
    }

    /// Whether all that is there can be put back: not when output is stopped (Ctrl-S), and of a full
    /// terminal only what was written as lines.
    fn fits_again(&self) -> Result<bool> {
        let writable = poll_now(self.slave.as_fd(), libc::POLLOUT)? & libc::POLLOUT != 0;
        let lines = self.termios[OFLAG] & libc::OPOST as u8 != 0;
        Ok(if readable_bytes(self.master)? < SURELY_ROOM { writable } else { lines })
    }

    /// What the master has not read yet.
    ///
    /// # Errors
    /// When it cannot be put back; nothing was read then. EIO when something was, and was lost.
    pub fn output(&self) -> Result<Vec<u8>> {
        if !self.fits_again()? {
            return Err(Error::new(ErrorKind::WouldBlock, "there might be no room to put it back"));
        }
        let mut memory = SharedMemory::new(8 + ROOM)?;
        // SAFETY: it allocates nothing and takes no lock.
        unsafe {
            guard::run(&mut memory, |memory| {
                let (len, bytes) = memory.split_at_mut(8);
                let n = self.read_output(bytes);
                len.copy_from_slice(&n.to_le_bytes());
                self.write_output(&bytes[..n])
            })?;
        }
        let (len, bytes) = memory.bytes().split_at(8);
        let len = u64::from_le_bytes(len.try_into().unwrap_or_default()) as usize;
        Ok(bytes[..len.min(ROOM)].to_vec())
    }

    fn read_output(&self, bytes: &mut [u8]) -> usize {
        let mut n = 0;
        while n < bytes.len() && poll_now(self.master, libc::POLLIN).is_ok_and(|e| e & libc::POLLIN != 0) {
            let rest = &mut bytes[n..];
            let mut kind = 0_u8;
            let mut parts = [
                libc::iovec { iov_base: (&raw mut kind).cast(), iov_len: usize::from(self.packets) },
                libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() },
            ];
            // SAFETY: the kernel writes at most as much as the two parts have room for.
            let got = unsafe { libc::readv(self.master.as_raw_fd(), parts.as_mut_ptr(), 2) };
            if got <= 0 {
                break;
            }
            n += got as usize - usize::from(self.packets);
        }
        n
    }

    fn write_output(&self, bytes: &[u8]) -> i32 {
        if bytes.is_empty() {
            return 0;
        }
        self.set(|flags| flags[OFLAG] &= !(libc::OPOST as u8));
        let rest = self.write(bytes, 5000);
        // Rather later than not at all: as soon as somebody reads.
        // SAFETY: the child goes on in this function.
        if !rest.is_empty() && unsafe { libc::fork() } != 0 {
            return libc::EIO;
        }
        self.write(rest, u32::MAX);
        self.set(|_| {});
        0
    }

    /// Gives what could not be written within so many milliseconds.
    fn write<'b>(&self, mut rest: &'b [u8], attempts: u32) -> &'b [u8] {
        for attempt in 0..attempts {
            while !rest.is_empty() {
                let piece = &rest[..rest.len().min(PIECE)];
                // SAFETY: the bytes are only read.
                let n = unsafe { libc::write(self.slave.as_raw_fd(), piece.as_ptr().cast(), piece.len()) };
                match usize::try_from(n) {
                    Ok(n) => rest = &rest[n..],
                    Err(_) if Error::last_os_error().kind() != ErrorKind::WouldBlock => return &[],
                    Err(_) => break,
                }
            }
            if rest.is_empty() {
                break;
            }
            // Full and stopped at the same time, which could not be known before.
            if attempt == 300 {
                // SAFETY: no pointers.
                unsafe { libc::ioctl(self.slave.as_raw_fd(), TCXONC, libc::TCOON) };
            }
            // SAFETY: no pointers.
            unsafe { libc::usleep(1000) };
        }
        rest
    }

    /// Sets the modes to what they were but for a change.
    fn set(&self, change: impl FnOnce(&mut [u8; 44])) {
        let mut termios = self.termios;
        change(&mut termios);
        // SAFETY: a `struct termios2`, 44 bytes, only read.
        unsafe { libc::ioctl(self.slave.as_raw_fd(), TCSETS2, termios.as_ptr()) };
    }
}
