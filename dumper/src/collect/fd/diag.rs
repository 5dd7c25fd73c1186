//! What only NETLINK_SOCK_DIAG tells: about unix sockets (include/uapi/linux/unix_diag.h) which socket is
//! connected to which, backlogs, shutdown; about packet sockets (packet_diag.h) memberships and rings.

use crate::sys::socket::{enter_netns, netlink_dump, socket};
use anyhow::{Context as _, Result};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// One socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixDiag {
    /// Inode of the socket file (its low 32 bits).
    pub file_ino: Option<u64>,
    /// Inode of the peer, 0 when that is closed.
    pub peer: Option<u64>,
    /// Inodes of the clients whose connections were not accepted yet, oldest first.
    pub waiting: Vec<u64>,
    pub backlog: u32,
    pub shutdown: u8,
}

/// The sockets of a network namespace by inode.
#[derive(Clone, Debug, Default)]
pub struct UnixTable(HashMap<u64, UnixDiag>);

impl UnixTable {
    /// Asks the kernel, in the network namespace of `pid`. Where it does not answer (no unix_diag,
    /// or not permitted to enter the namespace) the table is empty.
    #[must_use]
    pub fn read(pid: i32) -> Self {
        ask(pid, unix_request()).map(|replies| Self(parse(&replies, message))).unwrap_or_default()
    }

    #[must_use]
    pub fn get(&self, ino: u64) -> Option<&UnixDiag> {
        self.0.get(&ino)
    }

    /// The listening socket at which a client waits to be accepted.
    #[must_use]
    pub fn listener_of(&self, client: u64) -> Option<u64> {
        self.0.iter().find(|(_, s)| s.waiting.contains(&client)).map(|(ino, _)| *ino)
    }
}

/// One packet socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketDiag {
    /// As `struct packet_mreq`, each as often as it was joined.
    pub memberships: Vec<Vec<u8>>,
    pub has_ring: bool,
}

/// A packet socket of the network namespace of `pid`; `None` where the kernel does not tell.
#[must_use]
pub fn packet_socket(pid: i32, ino: u64) -> Option<PacketDiag> {
    let replies = ask(pid, packet_request()).ok()?;
    parse(&replies, packet_message).remove(&ino)
}

/// What shutdown(2) has ended of each socket, by inode, by family and protocol.
#[derive(Clone, Debug, Default)]
pub struct Shutdowns(HashMap<(i32, i32), HashMap<u64, u32>>);

impl Shutdowns {
    /// SHUT_RD = 1, SHUT_WR = 2 bits of a UDP socket of the network namespace of `pid`; `None` where the
    /// kernel does not tell (CONFIG_INET_UDP_DIAG).
    pub fn of(&mut self, pid: i32, (family, protocol): (i32, i32), ino: u64) -> Option<u32> {
        let table = self.0.entry((family, protocol)).or_insert_with(|| {
            let replies = ask(pid, inet_request(family, protocol));
            replies.map(|replies| parse(&replies, inet_message)).unwrap_or_default()
        });
        table.get(&ino).copied()
    }
}

/// Asks the kernel, in the network namespace of `pid`.
fn ask(pid: i32, request: Vec<u8>) -> Result<Vec<u8>> {
    let path = format!("/proc/{pid}/ns/net");
    let theirs = File::open(&path).with_context(|| format!("open {path}"))?;
    let ours = std::fs::metadata("/proc/self/ns/net")?;
    if theirs.metadata()?.ino() == ours.ino() {
        return dump(&request);
    }
    // A namespace is entered per thread, so a thread of its own does it.
    std::thread::spawn(move || {
        enter_netns(theirs.as_fd()).context("enter the network namespace")?;
        dump(&request)
    })
    .join()
    .unwrap_or_else(|_| anyhow::bail!("the netlink thread failed"))
}

const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST | NLM_F_DUMP.
const FLAGS: u16 = 0x301;
/// UDIAG_SHOW_NAME | VFS | PEER | ICONS | RQLEN.
const SHOW: u32 = 0x1f;
/// PACKET_SHOW_MCLIST | PACKET_SHOW_RING_CFG.
const SHOW_PACKET: u32 = 0x6;

fn dump(request: &[u8]) -> Result<Vec<u8>> {
    let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, NETLINK_SOCK_DIAG)?;
    Ok(netlink_dump(socket.as_fd(), request)?)
}

/// `struct nlmsghdr`, family, protocol, and what follows.
fn request(family: i32, protocol: i32, words: &[u32]) -> Vec<u8> {
    let len = 20 + words.len() * 4;
    let mut request = Vec::with_capacity(len);
    request.extend_from_slice(&(len as u32).to_ne_bytes());
    request.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&FLAGS.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(&[family as u8, protocol as u8, 0, 0]);
    request.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    request
}

/// All states, any inode, SHOW, no cookie.
fn unix_request() -> Vec<u8> {
    request(libc::AF_UNIX, 0, &[u32::MAX, 0, SHOW, u32::MAX, u32::MAX])
}

/// Any inode, SHOW_PACKET, no cookie.
fn packet_request() -> Vec<u8> {
    request(libc::AF_PACKET, 0, &[0, SHOW_PACKET, u32::MAX, u32::MAX])
}

/// `struct inet_diag_req_v2`: all states, any addresses.
fn inet_request(family: i32, protocol: i32) -> Vec<u8> {
    let mut words = [0; 13];
    words[0] = u32::MAX;
    request(family, protocol, &words)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// All messages of a dump.
fn parse<T>(mut bytes: &[u8], message: fn(&[u8]) -> Option<(u64, T)>) -> HashMap<u64, T> {
    let mut table = HashMap::new();
    while let (Some(len), Some(kind)) = (word(bytes, 0), half(bytes, 4)) {
        let len = (len as usize).max(16);
        if kind == SOCK_DIAG_BY_FAMILY
            && let Some((ino, socket)) = bytes.get(16..len).and_then(message)
        {
            table.insert(ino, socket);
        }
        let Some(rest) = bytes.get(len.next_multiple_of(4)..) else { break };
        bytes = rest;
    }
    table
}

/// Type and value of each attribute.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (len, kind) = (usize::from(half(rest, 0)?).max(4), half(rest, 2)?);
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// `struct unix_diag_msg` (family, type, state, pad, inode, cookie) and its attributes.
fn message(bytes: &[u8]) -> Option<(u64, UnixDiag)> {
    let mut socket = UnixDiag::default();
    let ino = u64::from(word(bytes, 4)?);
    for (kind, value) in attributes(bytes.get(16..)?) {
        match kind {
            1 => socket.file_ino = word(value, 0).map(u64::from),
            2 => socket.peer = word(value, 0).map(u64::from),
            3 => socket.waiting = value.chunks_exact(4).filter_map(|w| word(w, 0)).map(u64::from).collect(),
            // Of a listening socket the second word is the backlog.
            4 => socket.backlog = word(value, 4)?,
            6 => socket.shutdown = *value.first()?,
            _ => {}
        }
    }
    Some((ino, socket))
}

/// `struct inet_diag_msg`, whose last word is the inode, and INET_DIAG_SHUTDOWN (8).
fn inet_message(bytes: &[u8]) -> Option<(u64, u32)> {
    let shutdown = attributes(bytes.get(72..)?).find(|(kind, _)| *kind == 8)?.1;
    Some((u64::from(word(bytes, 68)?), u32::from(*shutdown.first()?)))
}

/// `struct packet_diag_msg` (family, type, protocol, inode, cookie) and its attributes.
fn packet_message(bytes: &[u8]) -> Option<(u64, PacketDiag)> {
    /// `struct packet_diag_mclist`: interface, count, type, length of the address, 32 bytes for it.
    const MEMBERSHIP: usize = 44;
    let mut socket = PacketDiag::default();
    let ino = u64::from(word(bytes, 4)?);
    for (kind, value) in attributes(bytes.get(16..)?) {
        match kind {
            // PACKET_DIAG_MCLIST.
            1 => {
                for m in value.chunks_exact(MEMBERSHIP) {
                    let request = [&m[..4], &m[8..]].concat();
                    socket.memberships.extend(std::iter::repeat_n(request, word(m, 4)? as usize));
                }
            }
            // PACKET_DIAG_RX_RING, PACKET_DIAG_TX_RING.
            2 | 3 => socket.has_ring = true,
            _ => {}
        }
    }
    Some((ino, socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn ino(fd: &impl AsRawFd) -> u64 {
        std::fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap().ino()
    }

    #[test]
    fn a_pair_knows_its_peers() {
        let (a, b) = UnixStream::pair().unwrap();
        b.shutdown(std::net::Shutdown::Write).unwrap();
        let table = UnixTable::read(std::process::id() as i32);
        if table.0.is_empty() {
            eprintln!("SKIP: this kernel has no unix_diag");
            return;
        }
        assert_eq!(table.get(ino(&a)).unwrap().peer, Some(ino(&b)));
        assert_eq!(table.get(ino(&b)).unwrap().peer, Some(ino(&a)));
        assert_eq!((table.get(ino(&a)).unwrap().shutdown, table.get(ino(&b)).unwrap().shutdown), (1, 2));
        let inode = ino(&a);
        drop(b);
        assert_eq!(UnixTable::read(std::process::id() as i32).get(inode).unwrap().peer, Some(0));
    }

    #[test]
    fn garbage_is_survived() {
        for n in 0..200_usize {
            let bytes: Vec<u8> = (0..n).map(|i| (i * 37 + n) as u8).collect();
            parse(&bytes, message);
            message(&bytes);
            packet_message(&bytes);
            inet_message(&bytes);
        }
    }
}
