//! Terminals.

use super::{Context, Detail, Probe};
use crate::sys;
use anyhow::{Context as _, Result};
use std::os::fd::{AsFd, BorrowedFd};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TtyFacts {
    /// `struct termios2`; `None` for a terminal that was hung up.
    pub termios: Option<[u8; 44]>,
    /// `struct winsize`.
    pub winsize: [u8; 8],
    /// Device number as `/proc/PID/stat` has it, also of what was opened as `/dev/tty`.
    pub device: u32,
    /// TIOCEXCL.
    pub exclusive: bool,
    /// Line discipline: 0 is that of terminals.
    pub discipline: u32,
    /// Bytes that wait to be read: of lines, whole ones only.
    pub unread: usize,
    /// Description of the master, where that is one of those that are observed.
    pub master: Option<usize>,
}

/// Majors of Unix 98 pseudo-terminal slaves.
pub fn is_pty_slave(rdev: u64) -> bool {
    (136..=143).contains(&libc::major(rdev))
}

pub fn collect(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    if probe.info.flags as i32 & libc::O_PATH != 0 {
        return super::regular::collect(cx, probe);
    }
    let ours = cx.duplicate(probe)?;
    match sys::fd::termios2(ours.as_fd()) {
        Ok(termios) => Ok(Detail::Tty(TtyFacts { termios: Some(termios), ..ask(ours.as_fd()) })),
        Err(e) if e.raw_os_error() == Some(libc::EIO) => Ok(Detail::Tty(TtyFacts::default())),
        Err(e) => Err(e).with_context(|| format!("fd {}: TCGETS2 on {}", probe.fd, probe.link_text())),
    }
}

/// What some terminals do not know.
fn ask(ours: BorrowedFd<'_>) -> TtyFacts {
    TtyFacts {
        termios: None,
        winsize: sys::fd::winsize(ours).unwrap_or_default(),
        device: sys::tty::device(ours).unwrap_or(0),
        exclusive: sys::tty::is_exclusive(ours).unwrap_or(false),
        discipline: sys::tty::discipline(ours).unwrap_or(0),
        unread: sys::fd::readable_bytes(ours).unwrap_or(0),
        master: None,
    }
}
