//! Unix sockets.

use super::diag::UnixDiag;
use super::outside::Outside;
use super::regular::NameState;
use super::socket::{self, OptionFacts};
use super::{Context, Detail, Probe};
use crate::sys;
use crate::sys::socket::{PeekWalk, Peeked, local_name, option_int, peek, peer_name};
use anyhow::{Context as _, Result, ensure};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixFacts {
    /// SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET.
    pub kind: i32,
    pub ino: u64,
    /// Bound name: a path, or abstract (first byte NUL); empty for none.
    pub name: Vec<u8>,
    pub file: Option<SocketFile>,
    pub listening: bool,
    pub backlog: u32,
    /// Inodes of the clients whose connections were not accepted yet, oldest first.
    pub waiting: Vec<u64>,
    /// Sent, and not yet received by the other end (not exactly in bytes).
    pub unreceived: usize,
    pub peer: Peer,
    /// Who has the other end, when that is outside.
    pub outside: Vec<Outside>,
    /// SO_PEERCRED: process that made the other end; 0 for none.
    pub peer_pid: i32,
    /// Name of the peer.
    pub remote: Vec<u8>,
    /// SHUT_RD = 1, SHUT_WR = 2 bits.
    pub shutdown: u8,
    /// What waits to be read, oldest first; a stream is cut where descriptors come along.
    pub queue: Vec<Queued>,
    /// Something in the queue that cannot be saved.
    pub queue_problem: Option<String>,
    pub options: Vec<OptionFacts>,
}

/// A message that waits to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    pub bytes: Vec<u8>,
    /// Name of the datagram socket that sent it; empty for none.
    pub from: Vec<u8>,
    /// Descriptors that it carries: indices in [`super::FdFacts::descriptions`].
    pub fds: Vec<usize>,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    None,
    /// Its inode.
    Socket(u64),
    /// It has been closed.
    Gone,
    /// Not accepted yet by the listening socket of that inode.
    Waiting(u64),
    /// Connected, but this kernel does not tell to what.
    Unknown,
}

/// The socket file of a bound name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketFile {
    /// Where a relative name starts.
    pub dir: Vec<u8>,
    pub state: NameState,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

pub fn collect(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    let ours = cx.duplicate(probe)?;
    let fd = ours.as_fd();
    let kind = option_int(fd, libc::SOL_SOCKET, libc::SO_TYPE)?;
    let listening = option_int(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0;
    let name = path_in(&local_name(fd).context("getsockname")?);
    let remote = peer_name(fd).context("getpeername")?;
    let table = cx.unix_sockets(probe);
    let known = table.get(probe.stat.ino);
    let peer = match (known, &remote) {
        (Some(d), _) if !listening => match d.peer {
            Some(0) => table.listener_of(probe.stat.ino).map_or(Peer::Gone, Peer::Waiting),
            Some(ino) => Peer::Socket(ino),
            None => Peer::None,
        },
        (None, Some(_)) => Peer::Unknown,
        _ => Peer::None,
    };
    let known = match known {
        Some(known) => known.clone(),
        None => UnixDiag { shutdown: shutdown(fd)?, ..UnixDiag::default() },
    };
    let file = socket_file(probe.pid, &name, known.file_ino);
    let (queue, queue_problem) =
        if listening { Default::default() } else { queue(cx, probe, fd, (kind, known.shutdown & 1 != 0))? };
    let unreceived = sys::fd::unreceived_bytes(fd).unwrap_or(0);
    Ok(Detail::Unix(UnixFacts {
        kind,
        ino: probe.stat.ino,
        name,
        file,
        listening,
        backlog: known.backlog,
        waiting: known.waiting,
        unreceived,
        peer,
        outside: Vec::new(),
        // The first word of `struct ucred`.
        peer_pid: option_int(fd, libc::SOL_SOCKET, libc::SO_PEERCRED).unwrap_or(0),
        remote: remote.map(|r| path_in(&r)).unwrap_or_default(),
        shutdown: known.shutdown,
        queue,
        queue_problem,
        options: socket::options(&mut cx.defaults, fd, (libc::AF_UNIX, kind, 0))?,
    }))
}

/// What poll(2) tells about shutdown(2), where the kernel has no unix_diag: both directions, or
/// reading only. (That writing only was shut down shows at the other end.)
fn shutdown(fd: BorrowedFd<'_>) -> Result<u8> {
    let events = sys::fd::poll_now(fd, libc::POLLRDHUP)?;
    Ok(match (events & libc::POLLHUP != 0, events & libc::POLLRDHUP != 0) {
        (true, _) => 3,
        (false, true) => 1,
        _ => 0,
    })
}

/// The name in a `struct sockaddr_un`: abstract names whole, paths up to their NUL.
fn path_in(addr: &[u8]) -> Vec<u8> {
    let path = addr.get(2..).unwrap_or_default();
    match path.first() {
        None | Some(0) => path.to_vec(),
        Some(_) => path.split(|b| *b == 0).next().unwrap_or_default().to_vec(),
    }
}

fn socket_file(pid: i32, name: &[u8], ino: Option<u64>) -> Option<SocketFile> {
    if matches!(name.first(), None | Some(0)) {
        return None;
    }
    let path = Path::new(OsStr::from_bytes(name));
    let dir = if path.is_absolute() {
        PathBuf::new()
    } else {
        std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default()
    };
    let mut file = SocketFile {
        dir: dir.as_os_str().as_bytes().to_vec(),
        state: NameState::Deleted,
        mode: 0o755,
        uid: 0,
        gid: 0,
    };
    if let Ok(meta) = dir.join(path).symlink_metadata() {
        // unix_diag shows 32 bits of the inode number.
        let same = ino.is_none_or(|ino| ino == meta.ino() & 0xffff_ffff);
        file.state = if same { NameState::Present } else { NameState::Replaced };
        (file.mode, file.uid, file.gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
    }
    Some(file)
}

/// Longest message that is expected in a queue, in bytes (net.core.wmem_max is 212992 by default).
const LONGEST: usize = 4 << 20;

type Queue = (Vec<Queued>, Option<String>);

/// What waits to be read, left where it is.
fn queue(
    cx: &mut Context<'_>,
    probe: &Probe,
    fd: BorrowedFd<'_>,
    (kind, read_closed): (i32, bool),
) -> Result<Queue> {
    let stream = kind == libc::SOCK_STREAM;
    let waits = if stream {
        sys::fd::readable_bytes(fd)? > 0
    } else {
        sys::fd::poll_now(fd, libc::POLLIN)? & libc::POLLIN != 0
    };
    if !waits {
        return Ok(Queue::default());
    }
    let mut walk = PeekWalk::start(fd)?;
    let peeked = if stream { stream_parts(&mut walk)? } else { messages(&walk, read_closed)? };
    drop(walk);
    let mut queue = Queue::default();
    for message in peeked {
        if message.truncated {
            queue.1 = Some("more descriptors in flight (SCM_RIGHTS) than can be open here".into());
        }
        let fds = message.descriptors.into_iter().map(|fd| cx.in_flight(probe, fd)).collect();
        // The sender of a connection is its other end.
        let from = if kind == libc::SOCK_DGRAM { path_in(&message.from) } else { Vec::new() };
        queue.0.push(Queued { bytes: message.bytes, from, fds });
    }
    Ok(queue)
}

fn messages(walk: &PeekWalk<'_>, read_closed: bool) -> Result<Vec<Peeked>> {
    let mut messages = Vec::new();
    while let Some(message) = peek(walk.fd(), LONGEST)? {
        if message.bytes.is_empty() && read_closed {
            break;
        }
        messages.push(message);
    }
    Ok(messages)
}

/// A stream in parts, each with the descriptors that come with its first byte.
fn stream_parts(walk: &mut PeekWalk<'_>) -> Result<Vec<Peeked>> {
    let total = sys::fd::readable_bytes(walk.fd())?;
    let mut parts: Vec<Peeked> = Vec::new();
    let mut done = 0;
    while done < total {
        walk.seek(done)?;
        // A peek ends where the sender changes, and behind descriptors.
        let Some(part) = peek(walk.fd(), total - done)?.filter(|p| !p.bytes.is_empty()) else { break };
        let len = part.bytes.len();
        let plain = if part.descriptors.is_empty() {
            len
        } else {
            walk.seek(done)?;
            sys::socket::peek_all_but_last(walk.fd(), len)?
        };
        done += len;
        let (before, behind) = part.bytes.split_at(plain);
        if !before.is_empty() {
            match parts.last_mut().filter(|p| p.descriptors.is_empty()) {
                Some(last) => last.bytes.extend_from_slice(before),
                None => parts.push(Peeked { bytes: before.to_vec(), ..Peeked::default() }),
            }
        }
        if !behind.is_empty() {
            parts.push(Peeked { bytes: behind.to_vec(), ..part });
        }
    }
    ensure!(done == total, "only {done} of {total} queued bytes can be read");
    Ok(parts)
}

/// A socket name for messages.
#[must_use]
pub fn name_text(name: &[u8]) -> String {
    match name.split_first() {
        None => "an unnamed socket".into(),
        Some((0, rest)) => format!("@{}", String::from_utf8_lossy(rest)),
        Some(_) => String::from_utf8_lossy(name).into_owned(),
    }
}
