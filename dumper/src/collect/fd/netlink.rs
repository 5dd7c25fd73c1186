//! Netlink sockets.

use super::socket::{self, OptionFacts};
use super::{Context, Detail, Probe};
use crate::sys;
use crate::sys::socket::{local_name, option, option_int, peer_name};
use anyhow::{Context as _, Result};
use ckpt_format::fd::options::SOL_NETLINK;
use std::os::fd::AsFd;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetlinkFacts {
    /// SOCK_RAW, SOCK_DGRAM.
    pub kind: i32,
    /// NETLINK_ROUTE ...
    pub protocol: i32,
    /// Its address; 0 for none.
    pub port: u32,
    /// `struct sockaddr_nl` of its destination, without groups.
    pub remote: Option<Vec<u8>>,
    pub groups: Vec<u32>,
    pub options: Vec<OptionFacts>,
    /// Messages or an error wait in it, or the answer to a request is not complete.
    pub waits: bool,
    /// What the kernel does for this very socket beyond that.
    pub role: Option<&'static str>,
}

const NETLINK_ADD_MEMBERSHIP: i32 = 1;
const NETLINK_LIST_MEMBERSHIPS: i32 = 9;
const NETLINK_NETFILTER: i32 = 12;

pub fn collect(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    let ours = cx.duplicate(probe)?;
    let fd = ours.as_fd();
    let kind = option_int(fd, libc::SOL_SOCKET, libc::SO_TYPE)?;
    let protocol = option_int(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL)?;
    let local = local_name(fd).context("getsockname")?;
    let port = word(&local, 4);
    let remote = peer_name(fd).context("getpeername")?.filter(|r| word(r, 4) != 0 || word(r, 8) != 0);
    let bits = option(fd, SOL_NETLINK as i32, NETLINK_LIST_MEMBERSHIPS).unwrap_or_default();
    let groups = groups(&bits);
    let mut options = socket::options(&mut cx.defaults, fd, (libc::AF_NETLINK, kind, protocol))?;
    options.extend(groups.iter().map(|group| OptionFacts {
        level: SOL_NETLINK as i32,
        name: NETLINK_ADD_MEMBERSHIP,
        value: group.to_ne_bytes().to_vec(),
    }));
    let events = sys::fd::poll_now(fd, libc::POLLIN)?;
    let table = std::fs::read_to_string(format!("/proc/{}/net/netlink", probe.pid)).unwrap_or_default();
    let waits = events & (libc::POLLIN | libc::POLLERR) != 0 || answers(&table, probe.stat.ino);
    let role = (protocol == NETLINK_NETFILTER && netfilter_sends_to(probe.pid, port))
        .then_some("netfilter sends packets to it");
    Ok(Detail::Netlink(NetlinkFacts { kind, protocol, port, remote, groups, options, waits, role }))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

/// Numbers of the groups in a set of bits, from 1.
fn groups(bits: &[u8]) -> Vec<u32> {
    let is_set = |group: &u32| bits[*group as usize / 8] >> (group % 8) & 1 == 1;
    (0..bits.len() as u32 * 8).filter(is_set).map(|bit| bit + 1).collect()
}

/// Whether a request is being answered: column "Dump" of `/proc/PID/net/netlink`, by inode.
fn answers(table: &str, ino: u64) -> bool {
    let rows = table.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<&str>>());
    let mut own = rows.filter(|r| r.last().and_then(|i| i.parse().ok()) == Some(ino));
    own.any(|r| r.get(6).is_some_and(|dump| *dump != "0"))
}

/// Whether packets are queued or logged to this address (second column of these files).
fn netfilter_sends_to(pid: i32, port: u32) -> bool {
    ["nfnetlink_queue", "nfnetlink_log"].iter().any(|name| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/netfilter/{name}")).unwrap_or_default();
        let mut ports = text.lines().filter_map(|l| l.split_whitespace().nth(1)?.parse::<u32>().ok());
        ports.any(|p| p == port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_groups() {
        assert_eq!(groups(&[0b101, 0, 0, 0, 0b10, 0, 0, 0]), [1, 3, 34]);
        assert_eq!(groups(&[]), []);
    }

    #[test]
    fn a_dump_under_way() {
        let text = "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode\n\
                    00000000 0 7 00000000 0 0 0 2 0 11\n00000000 0 8 00000000 0 0 1 2 0 12\n";
        assert!(!answers(text, 11) && answers(text, 12) && !answers(text, 13));
    }
}
