//! Multicast memberships of a socket. The kernel lists the groups of an interface
//! (`/proc/PID/net/igmp`, `igmp6`), and answers for each whether a socket has joined it
//! (MCAST_MSFILTER: EADDRNOTAVAIL if not; net/ipv4/igmp.c, ip_mc_gsfget).

use super::socket::OptionFacts;
use crate::sys;
use std::os::fd::BorrowedFd;

/// include/uapi/linux/in.h: the same numbers for IPv4 and IPv6.
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_MSFILTER: i32 = 48;
/// `gf_fmode` and `gf_numsrc` of `struct group_filter`: MCAST_EXCLUDE (0) of no source is what joining gives.
const MODE: usize = 136;
const FROM_ALL: [u8; 8] = [0; 8];
/// Offset and size of `struct sockaddr_storage` in `struct group_req` and `struct group_filter`.
const ADDRESS: usize = 8;
const STORAGE: usize = 128;

/// A group on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    interface: u32,
    /// `struct sockaddr_in` or `sockaddr_in6`, without port.
    address: Vec<u8>,
}

impl Group {
    /// The start of `struct group_req`, which is that of `struct group_filter`, too.
    fn request(&self) -> Vec<u8> {
        let mut bytes = vec![0; ADDRESS + STORAGE];
        bytes[..4].copy_from_slice(&self.interface.to_ne_bytes());
        bytes[ADDRESS..ADDRESS + self.address.len()].copy_from_slice(&self.address);
        bytes
    }
}

/// Memberships as options that join again, and choose the sources.
#[must_use]
pub fn memberships(pid: i32, fd: BorrowedFd<'_>, family: i32) -> Vec<OptionFacts> {
    let read = |name| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let mut found = Vec::new();
    let levels = [(libc::SOL_IP, groups_v4(&read("igmp"))), (libc::SOL_IPV6, groups_v6(&read("igmp6")))];
    for (level, groups) in levels {
        if level == libc::SOL_IPV6 && family != libc::AF_INET6 {
            continue;
        }
        for group in groups {
            let Some(filter) = sys::socket::group_filter(fd, level, &group.request()) else { continue };
            found.push(OptionFacts { level, name: MCAST_JOIN_GROUP, value: group.request() });
            let all = filter.get(MODE..) == Some(&FROM_ALL[..]);
            found.extend((!all).then_some(OptionFacts { level, name: MCAST_MSFILTER, value: filter }));
        }
    }
    found
}

/// `2  eth0  :  2  V3` followed by lines `\t\t\t\tFB0000E0  1 0:00000000  0`.
fn groups_v4(text: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut interface = 0;
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if line.starts_with(char::is_whitespace) {
            let Ok(address) = u32::from_str_radix(first, 16) else { continue };
            let mut bytes = vec![libc::AF_INET as u8, 0, 0, 0];
            bytes.extend_from_slice(&address.to_ne_bytes());
            bytes.resize(16, 0);
            groups.push(Group { interface, address: bytes });
        } else {
            interface = first.parse().unwrap_or(0);
        }
    }
    groups
}

/// `2  eth0  ff0200000000000000000000000000fb  1 00000004 0`.
fn groups_v6(text: &str) -> Vec<Group> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let interface = words.next()?.parse().ok()?;
            let address = u128::from_str_radix(words.nth(1)?, 16).ok()?;
            let mut bytes = vec![libc::AF_INET6 as u8, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend_from_slice(&address.to_be_bytes());
            bytes.resize(28, 0);
            Some(Group { interface, address: bytes })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, UdpSocket};
    use std::os::fd::AsFd;

    #[test]
    fn both_tables() {
        let v4 = groups_v4(
            "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
             1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
             2\teth0      :     2      V3\n\t\t\t\tFB0000E0     1 0:00000000\t\t0\n",
        );
        assert_eq!(v4.len(), 2);
        assert_eq!((v4[1].interface, &v4[1].address[..8]), (2, &[2, 0, 0, 0, 224, 0, 0, 251][..]));
        let v6 = groups_v6("2    eth0            ff0200000000000000000000000000fb     1 00000004 0\n");
        assert_eq!((v6[0].interface, v6[0].address[8], v6[0].address[23]), (2, 0xff, 0xfb));
    }

    #[test]
    fn a_membership_is_found() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let pid = std::process::id() as i32;
        assert_eq!(memberships(pid, socket.as_fd(), libc::AF_INET), vec![]);
        if socket.join_multicast_v4(&Ipv4Addr::new(239, 1, 2, 3), &Ipv4Addr::LOCALHOST).is_err() {
            eprintln!("SKIP: no multicast on the loopback");
            return;
        }
        let found = memberships(pid, socket.as_fd(), libc::AF_INET);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].value[12..16], [239, 1, 2, 3]);
    }
}
