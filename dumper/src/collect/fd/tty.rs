//! Terminals.

use super::{Context, Detail, Probe};
use crate::sys;
use anyhow::{Context as _, Result};
use std::os::fd::AsFd;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TtyFacts {
    /// `struct termios2`; `None` for a terminal that was hung up.
    pub termios: Option<[u8; 44]>,
    /// `struct winsize`.
    pub winsize: [u8; 8],
}

pub fn collect(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    if probe.info.flags as i32 & libc::O_PATH != 0 {
        return super::regular::collect(cx, probe);
    }
    let ours = cx.duplicate(probe)?;
    match sys::fd::termios2(ours.as_fd()) {
        Ok(termios) => {
            let winsize = sys::fd::winsize(ours.as_fd()).unwrap_or_default();
            Ok(Detail::Tty(TtyFacts { termios: Some(termios), winsize }))
        }
        Err(e) if e.raw_os_error() == Some(libc::EIO) => {
            Ok(Detail::Tty(TtyFacts { termios: None, winsize: [0; 8] }))
        }
        Err(e) => Err(e).with_context(|| format!("fd {}: TCGETS2 on {}", probe.fd, probe.link_text())),
    }
}
