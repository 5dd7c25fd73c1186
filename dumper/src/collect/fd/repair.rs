//! TCP connections whose other end is not dumped: what it takes to go on with them (TCP_REPAIR).

use super::inet::InetFacts;
use super::tcp::OtherEnd;
use super::{Context, Description, Detail, tcp};
use crate::sys;
use crate::sys::tcp::{Afterwards, Hold};
use anyhow::{Context as _, Result};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

/// What is wanted of such connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// They are looked into.
    pub look: bool,
    /// Nothing may arrive any more: the processes will be killed, and the connections held so long after
    /// that.
    pub hold: Option<Duration>,
    /// Of the image.
    pub uuid: [u8; 16],
}

/// Looks into all connections that have no other end here. Fills [`tcp::TcpFacts::outside`].
///
/// # Errors
/// When a target died, or no process can be had.
pub fn look(cx: &Context<'_>, descriptions: &mut [Description], wish: Wish) -> Result<Option<Hold>> {
    let chosen = if wish.look { outside(descriptions) } else { Vec::new() };
    if chosen.is_empty() {
        return Ok(None);
    }
    let fds: Result<Vec<_>> = chosen.iter().map(|i| cx.duplicate_of(&descriptions[*i])).collect();
    let afterwards = match wish.hold.filter(|time| !time.is_zero()) {
        Some(time) => {
            Some(Afterwards { door: sys::tcp::door(&wish.uuid).context("bind a unix socket")?, time })
        }
        None => None,
    };
    let (hold, looks) = sys::tcp::hold(fds?, afterwards).context("looking into TCP connections")?;
    let any = looks.iter().any(Result::is_ok);
    for (index, looked) in chosen.into_iter().zip(looks) {
        // Nothing arrives any more: what waits, and where it ends, is one state.
        let ours = cx.duplicate_of(&descriptions[index])?;
        if let Detail::Inet(InetFacts { tcp: Some(facts), .. }) = &mut descriptions[index].detail {
            let seen = looked.map_err(|e| match e.raw_os_error() {
                Some(libc::EPERM) => "TCP_REPAIR needs CAP_NET_ADMIN".to_owned(),
                _ => e.to_string(),
            });
            facts.outside = Some(seen.and_then(|look| match facts.look_again(ours.as_fd()) {
                Ok(()) => Ok(look),
                Err(e) => Err(format!("{e:#}")),
            }));
        }
    }
    // Otherwise it lets go here and now.
    Ok(Some(hold).filter(|_| any && wish.hold.is_some()))
}

/// Connections without an other end among these sockets.
fn outside(descriptions: &[Description]) -> Vec<usize> {
    let ends = |d: &Description| -> Option<(SocketAddr, SocketAddr)> {
        let Detail::Inet(InetFacts { local, remote: Some(remote), tcp: Some(facts), .. }) = &d.detail else {
            return None;
        };
        if !facts.is_connection() {
            return None;
        }
        Some((tcp::address(local)?, tcp::address(remote)?))
    };
    let all: HashSet<_> = descriptions.iter().filter_map(ends).collect();
    // The other end is closed, or has not been accepted by one of these processes: made anew without it.
    let needs_nobody = |d: &Description| {
        let Detail::Inet(InetFacts { remote: Some(remote), tcp: Some(facts), .. }) = &d.detail else {
            return false;
        };
        let waits = |at| descriptions.iter().any(|l| accepts(l, at));
        facts.other == OtherEnd::Nobody
            && (facts.state == tcp::state::CLOSE_WAIT || tcp::address(remote).is_some_and(waits))
    };
    let chosen = |d: &Description| {
        let Detail::Inet(i) = &d.detail else { return false };
        // A filter of the program's own would be replaced.
        let filtered =
            i.options.iter().any(|o| (o.level, o.name) == (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER));
        i.protocol == libc::IPPROTO_TCP
            && !filtered
            && !needs_nobody(d)
            && ends(d).is_some_and(|(local, remote)| !all.contains(&(remote, local)))
    };
    (0..descriptions.len()).filter(|i| chosen(&descriptions[*i])).collect()
}

/// Whether a connection to this address waits, or could wait, at a listening socket.
fn accepts(listener: &Description, to: SocketAddr) -> bool {
    let Detail::Inet(InetFacts { local, tcp: Some(facts), .. }) = &listener.detail else { return false };
    let reached = |at: SocketAddr| at.port() == to.port() && (at.ip().is_unspecified() || at.ip() == to.ip());
    facts.state == tcp::state::LISTEN && facts.waiting > 0 && tcp::address(local).is_some_and(reached)
}
