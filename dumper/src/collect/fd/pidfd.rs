//! pidfds: whose, and how that one ended.

use super::{Context, Detail, Probe};
use crate::collect::proc;
use crate::sys;
use anyhow::{Result, anyhow};
use std::os::fd::AsFd;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PidfdFacts {
    /// Process or thread as we see it; -1 for one that is gone, 0 for one of a pid namespace that we do not
    /// see.
    pub tid: i32,
    pub name: String,
    /// PIDFD_THREAD.
    pub thread: bool,
    /// Of one that is gone: wait status, where the kernel tells (Linux 6.15).
    pub status: Option<i32>,
}

/// PIDFD_THREAD is O_EXCL (include/uapi/linux/pidfd.h).
const PIDFD_THREAD: u32 = libc::O_EXCL as u32;

pub fn collect(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    let tid = probe.info.signed("Pid");
    let tid = tid.ok_or_else(|| anyhow!("fd {}: /proc shows no Pid for {}", probe.fd, probe.link_text()))?;
    let thread = probe.info.flags & PIDFD_THREAD != 0;
    if tid > 0 {
        return Ok(Detail::Pidfd(PidfdFacts { tid, name: proc::name(tid), thread, status: None }));
    }
    let status = if tid < 0 { sys::fd::pidfd_exit_status(cx.duplicate(probe)?.as_fd()) } else { None };
    Ok(Detail::Pidfd(PidfdFacts { tid, thread, status, ..PidfdFacts::default() }))
}
