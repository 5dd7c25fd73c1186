//! A process with all of its threads stopped.

use super::remote::Scratch;
use super::{Call, RemoteAddr};
use anyhow::{Result, bail};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A process whose threads are all in a ptrace stop. Dropping it undoes everything (scratch memory,
/// registers, signal masks) and lets it run on.
#[derive(Debug)]
pub struct Frozen {
    pid: i32,
    tids: Vec<i32>,
    pidfd: OwnedFd,
}

impl Frozen {
    /// Process id (of the thread group).
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Thread ids, the leader's first.
    #[must_use]
    pub fn tids(&self) -> &[i32] {
        &self.tids
    }

    /// For pidfd_getfd(2).
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Runs system calls in the leader, in order; results as the kernel returns them (-errno).
    ///
    /// # Errors
    /// When the target died or cannot run system calls; never for a call that failed.
    pub fn batch(&mut self, _calls: &[Call]) -> Result<Vec<i64>> {
        bail!("remote system calls are not there yet")
    }

    /// As [`Self::batch`], in the thread `tid`.
    ///
    /// # Errors
    /// As [`Self::batch`].
    pub fn batch_in(&mut self, _tid: i32, _calls: &[Call]) -> Result<Vec<i64>> {
        bail!("remote system calls are not there yet")
    }

    /// Memory for arguments of calls: mapped in the target at first use, unmapped when it runs on.
    ///
    /// # Errors
    /// When the target cannot map it.
    pub fn scratch(&mut self) -> Result<Scratch> {
        bail!("remote system calls are not there yet")
    }

    /// Where the scratch memory is, if it is mapped: `/proc/PID/maps` shows it, the image must not.
    #[must_use]
    pub fn scratch_range(&self) -> Option<std::ops::Range<u64>> {
        None
    }

    /// Reads the target's memory, whatever its protection (`/proc/PID/mem`).
    ///
    /// # Errors
    /// Naming address and cause.
    pub fn read(&self, addr: RemoteAddr, _buf: &mut [u8]) -> Result<()> {
        bail!("reading {addr} is not there yet")
    }

    /// Writes the target's memory; only ever scratch memory.
    ///
    /// # Errors
    /// Naming address and cause.
    pub fn write(&mut self, addr: RemoteAddr, _bytes: &[u8]) -> Result<()> {
        bail!("writing {addr} is not there yet")
    }
}
