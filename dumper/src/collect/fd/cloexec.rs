//! FD_CLOEXEC where fdinfo does not tell it. The kernel shows there the flags of the open file description,
//! with O_CLOEXEC added if the descriptor has FD_CLOEXEC (fs/proc/fd.c, seq_show()). open(2) keeps O_CLOEXEC out
//! of a description's flags (fs/open.c, build_open_flags()), but mq_open(2) and TIOCGPTPEER do not: all
//! descriptors of what they made show it for ever.

use super::{Description, FdTableFacts};
use crate::ptrace::{Call, Frozen};
use crate::sys;
use anyhow::{Context as _, Result};
use std::os::fd::BorrowedFd;

/// Whether a description is one of those.
pub fn is_doubtful(ours: BorrowedFd<'_>) -> Result<bool> {
    Ok(sys::fd::fcntl_get(ours, libc::F_GETFL)? & libc::O_CLOEXEC != 0)
}

/// Asks the targets themselves about their descriptors of these descriptions.
pub fn settle(
    targets: &mut [Frozen],
    tables: &mut [FdTableFacts],
    descriptions: &[Description],
    doubtful: &[(i32, i32)],
) -> Result<()> {
    if doubtful.is_empty() {
        return Ok(());
    }
    for table in tables {
        let target = table.tasks.first().and_then(|task| targets.get_mut(*task));
        let target = target.context("a descriptor table without a process")?;
        let is_doubtful = |d: &Description| doubtful.contains(&(d.pid, d.fd));
        for entry in table.fds.iter_mut().filter(|f| is_doubtful(&descriptions[f.description])) {
            let question = Call::new(libc::SYS_fcntl, &[entry.fd as u64, libc::F_GETFD as u64]);
            let answer = target.batch(&[question]).context("fcntl(F_GETFD)")?;
            entry.cloexec = answer.first().is_some_and(|a| a & i64::from(libc::FD_CLOEXEC) != 0);
        }
    }
    Ok(())
}
