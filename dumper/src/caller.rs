//! A process that has itself dumped: libckpt starts ckpt-dump and waits for what it says.
//!
//! One thread of the process waits in read(2) on a socket, the other end of which is our standard output. The
//! process that runs on reads there what came of the dump. In the image the call has returned
//! [`ckpt_format::RESTORED_CALL`], which no read can return: so the two runs know who they are. The descriptor is
//! not in the image, nor are others that libckpt keeps for itself.

use crate::collect::{Facts, LeftOut};
use crate::preflight;
use crate::ptrace::restart::is_restarting;
use anyhow::{Context, Result, bail, ensure};
use ckpt_format::RESTORED_CALL;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// The thread that waits, and on what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub tid: i32,
    pub fd: i32,
    /// Other descriptors that are not to be in the image.
    pub leave_out: Vec<i32>,
}

/// How long it may take from the start of ckpt-dump to the call. Nothing is between the two, but the machine may
/// be busy.
const PATIENCE: Duration = Duration::from_secs(60);

impl Caller {
    #[must_use]
    pub fn leaving_out(self, fds: &[i32]) -> Self {
        Self { leave_out: fds.to_vec(), ..self }
    }

    /// Waits until the thread is in its call. All signals are blocked in it, so that it stays there.
    ///
    /// # Errors
    /// When it does not come, or is gone.
    pub fn await_call(&self, pid: i32) -> Result<()> {
        let path = format!("/proc/{pid}/task/{}/syscall", self.tid);
        let wanted = format!("{} {:#x} ", libc::SYS_read, self.fd);
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(50);
        loop {
            match std::fs::read_to_string(&path) {
                Ok(text) if text.starts_with(&wanted) => return Ok(()),
                Ok(_) => {}
                // Not permitted: to stop it will not be either, and that tells why.
                Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied) => return Ok(()),
                // The kernel may have no such file: it will be seen when all is stopped.
                Err(e) if e.kind() == ErrorKind::NotFound && !preflight::is_gone(pid) => return Ok(()),
                Err(e) => return Err(e).with_context(|| format!("read {path}")),
            }
            ensure!(Instant::now() < deadline, "thread {} does not wait for its dump", self.tid);
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }

    /// The socket at both of its ends, and the rest.
    ///
    /// # Errors
    /// When our standard output cannot be looked at.
    pub fn leaves_out(&self) -> Result<LeftOut> {
        let ours = std::io::stdout().as_fd().try_clone_to_owned().context("standard output")?;
        let ours = std::fs::File::from(ours).metadata().context("looking at standard output")?;
        let fds = [self.fd].into_iter().chain(self.leave_out.iter().copied()).collect();
        Ok(LeftOut { fds, inodes: vec![(ours.dev(), ours.ino())] })
    }

    /// Makes its call return in the image.
    ///
    /// # Errors
    /// When it is somewhere else.
    pub fn answer(&self, facts: &mut Facts) -> Result<()> {
        // There are obstacles, and no threads to speak of.
        if facts.partial {
            return Ok(());
        }
        let threads = facts.tasks.iter_mut().take(1).flat_map(|t| &mut t.threads);
        let mut of_it = threads.filter(|t| t.tid == self.tid);
        let regs = &mut of_it.next().with_context(|| format!("no thread {} to answer", self.tid))?.regs;
        let waits = regs.orig_rax == libc::SYS_read as u64 && regs.rdi == self.fd as u64;
        if !waits || !is_restarting(regs) {
            bail!("thread {} does not wait for its dump (any more)", self.tid);
        }
        regs.rax = RESTORED_CALL;
        // It is not in a system call any more: nothing is to be restarted.
        regs.orig_rax = u64::MAX;
        Ok(())
    }
}
