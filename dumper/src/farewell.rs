//! What a tree that is killed would leave behind: connections between its own processes that linger in
//! TIME_WAIT for a minute and keep the image from having their addresses again.

use crate::collect::Facts;
use crate::collect::fd::tcp::OtherEnd;
use crate::collect::fd::{Description, Detail};
use crate::ptrace::FrozenTree;
use crate::sys;
use crate::sys::tcp::Hold;
use anyhow::{Context as _, Result};
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Duplicates of the TCP connections whose ends are all inside. Nothing changes for those who have them.
#[must_use]
pub fn hold(frozen: &FrozenTree, facts: &Facts) -> Vec<OwnedFd> {
    let inside: HashSet<u64> = facts.fds.descriptions.iter().map(|d| d.stat.ino).collect();
    let is_inner = |d: &&Description| {
        let Detail::Inet(inet) = &d.detail else { return false };
        inet.tcp.as_ref().is_some_and(|tcp| match tcp.other {
            OtherEnd::Socket(inode) => tcp.is_connection() && inside.contains(&inode),
            OtherEnd::Nobody => tcp.is_connection(),
            OtherEnd::Elsewhere => false,
        })
    };
    let duplicate = |d: &Description| {
        let holder = frozen.live.iter().find(|f| f.pid() == d.pid)?;
        sys::fd::pidfd_getfd(holder.pidfd(), d.fd).ok()
    };
    facts.fds.descriptions.iter().filter(is_inner).filter_map(duplicate).collect()
}

/// Resets the connections, whose other holders have ended. Errors do not matter: they only linger then.
pub fn reset(held: Vec<OwnedFd>) {
    for fd in &held {
        let _ = sys::socket::reset_when_closed(fd.as_fd());
    }
}

/// Connections to the outside, which go on later: nobody is told that they end.
///
/// # Errors
/// When the process that holds them is gone: the image may lack what arrived since.
pub fn silence(facts: &mut Facts) -> Result<Option<Hold>> {
    let hold = facts.fds.hold.take().and_then(Arc::into_inner);
    if let Some(hold) = &hold {
        hold.silence().context("silencing TCP connections")?;
    }
    Ok(hold)
}
