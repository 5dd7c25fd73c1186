//! The process that keeps tracking on between two dumps: it holds the userfaultfd of each tracked address space,
//! with whose last copy tracking would end, and knows of which image it began. It ends with the processes, when it
//! is told to by the next dump, or when it is killed.

use crate::sys::keep;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

/// One that does not answer is none.
const PATIENCE: Duration = Duration::from_secs(5);
const MAGIC: [u8; 8] = *b"ckpt-tr1";
const END: u8 = b'E';
const DONE: u8 = b'D';

/// What is known of an address space that is tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The process, and when it began (`/proc/PID/stat`).
    pub pid: i32,
    pub began: u64,
    /// The image after which tracking began, and which of its address spaces this is.
    pub uuid: [u8; 16],
    pub space: u32,
}

const LEN: usize = 40;

impl Facts {
    fn bytes(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.began.to_le_bytes());
        out[16..32].copy_from_slice(&self.uuid);
        out[32..36].copy_from_slice(&self.pid.to_le_bytes());
        out[36..].copy_from_slice(&self.space.to_le_bytes());
        out
    }

    fn parse(bytes: &[u8; LEN]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let began = u64::from(word(8)?) | u64::from(word(12)?) << 32;
        let uuid = bytes[16..32].try_into().ok()?;
        let facts = Self { pid: word(32)? as i32, began, uuid, space: word(36)? };
        (bytes[..8] == MAGIC).then_some(facts)
    }
}

/// The name by which the keeper of a process is found: in the network namespace, by any process, so both sides ask
/// the kernel who the other is.
fn address(pid: i32, began: u64) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("ckpt-track-{pid}-{began}"))
}

/// Our end of a connection to a keeper that is not needed yet.
#[derive(Debug)]
pub struct Fresh(UnixStream);

impl Fresh {
    /// Starts it: before there are other threads, and while there is little memory to copy.
    ///
    /// # Errors
    /// When there is no process to be had.
    pub fn start() -> io::Result<Self> {
        // SAFETY: see above.
        #[allow(unsafe_code)]
        let control = unsafe { keep::spawn(c"ckpt-keeper", |control| run(&control)) };
        control.map(Self)
    }

    /// Hands over what it is to keep, with a userfaultfd and a pidfd for each. It ends if that fails.
    ///
    /// # Errors
    /// Those of the keeper: a name that is taken.
    pub fn entrust(self, entries: &[(Facts, BorrowedFd<'_>, BorrowedFd<'_>)]) -> io::Result<()> {
        self.0.set_read_timeout(Some(PATIENCE))?;
        keep::send(&self.0, &(entries.len() as u32).to_le_bytes(), &[])?;
        for (facts, uffd, pidfd) in entries {
            keep::send(&self.0, &facts.bytes(), &[*uffd, *pidfd])?;
        }
        let mut answer = [0; 4];
        keep::receive(&self.0, &mut answer)?;
        match i32::from_le_bytes(answer) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// What a keeper has of a process.
#[derive(Debug)]
pub struct Offer {
    pub facts: Facts,
    pub uffd: OwnedFd,
    stream: UnixStream,
}

impl Offer {
    /// Asks the keeper of a process; `None` if it has none that we could believe: one of our own, of root's, or, if
    /// we are root, of the `owner` of the process.
    #[must_use]
    pub fn ask(pid: i32, began: u64, owner: u32) -> Option<Self> {
        let stream = UnixStream::connect_addr(&address(pid, began).ok()?).ok()?;
        let (_, uid) = keep::peer(&stream).ok()?;
        let own = own_uid();
        if uid != 0 && uid != own && !(own == 0 && uid == owner) {
            return None;
        }
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut bytes = [0; LEN];
        let fds = keep::receive(&stream, &mut bytes).ok()?;
        let facts = Facts::parse(&bytes).filter(|f| (f.pid, f.began) == (pid, began))?;
        Some(Self { facts, uffd: fds.into_iter().next()?, stream })
    }

    /// Makes the keeper let go, and its name free; returns what may be the last copy of the userfaultfd.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn end(self) -> io::Result<OwnedFd> {
        keep::send(&self.stream, &[END], &[])?;
        keep::receive(&self.stream, &mut [0])?;
        Ok(self.uffd)
    }
}

fn own_uid() -> u32 {
    // That of the file system is what sockets are made with, the effective one unless somebody changed it.
    std::os::unix::fs::MetadataExt::uid(&match std::fs::metadata("/proc/self") {
        Ok(meta) => meta,
        Err(_) => return u32::MAX,
    })
}

/// An address space that is kept.
struct Kept {
    facts: Facts,
    uffd: OwnedFd,
    pidfd: OwnedFd,
    listener: UnixListener,
}

/// The life of the keeper.
fn run(control: &UnixStream) {
    let Some(mut kept) = accept_all(control) else { return };
    let mut clients: Vec<(UnixStream, Facts)> = Vec::new();
    while !kept.is_empty() {
        let doors = kept.iter().flat_map(|k| [k.listener.as_fd(), k.pidfd.as_fd()]);
        let fds: Vec<BorrowedFd<'_>> = doors.chain(clients.iter().map(|(c, _)| c.as_fd())).collect();
        let ready = match keep::wait(&fds) {
            Ok(ready) => ready,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let (doors, of_clients) = ready.split_at(kept.len() * 2);
        let mut lost = Vec::new();
        let mut come = Vec::new();
        for (k, ready) in kept.iter().zip(doors.chunks(2)) {
            if ready[1] {
                lost.push(k.facts);
            } else if ready[0] {
                come.extend(welcome(k).map(|stream| (stream, k.facts)));
            }
        }
        let mut said = of_clients.iter();
        clients.retain_mut(|(stream, facts)| {
            if !said.next().is_some_and(|ready| *ready) {
                return true;
            }
            let mut word = [0];
            if keep::receive(stream, &mut word).is_ok() && word == [END] {
                kept.retain(|k| k.facts != *facts);
                // Not before: the name is free now.
                let _ = keep::send(stream, &[DONE], &[]);
            }
            false
        });
        kept.retain(|k| !lost.contains(&k.facts));
        clients.extend(come);
    }
}

/// Receives what is to be kept; `None` if ckpt-dump came to nothing.
fn accept_all(control: &UnixStream) -> Option<Vec<Kept>> {
    let mut count = [0; 4];
    keep::receive(control, &mut count).ok()?;
    let mut kept = Vec::new();
    let mut failed = 0;
    for _ in 0..u32::from_le_bytes(count) {
        let mut bytes = [0; LEN];
        let mut fds = keep::receive(control, &mut bytes).ok()?.into_iter();
        let (facts, uffd, pidfd) = (Facts::parse(&bytes)?, fds.next()?, fds.next()?);
        let listener = address(facts.pid, facts.began).and_then(|a| UnixListener::bind_addr(&a));
        match listener.and_then(|l| l.set_nonblocking(true).map(|()| l)) {
            Ok(listener) => kept.push(Kept { facts, uffd, pidfd, listener }),
            Err(e) => failed = e.raw_os_error().unwrap_or(libc::EIO),
        }
    }
    keep::send(control, &i32::to_le_bytes(failed), &[]).ok()?;
    (failed == 0).then_some(kept)
}

/// Tells who has come, if he may know, what there is.
fn welcome(kept: &Kept) -> Option<UnixStream> {
    let (stream, _) = kept.listener.accept().ok()?;
    let (_, uid) = keep::peer(&stream).ok()?;
    if uid != 0 && uid != own_uid() {
        return None;
    }
    keep::send(&stream, &kept.facts.bytes(), &[kept.uffd.as_fd()]).ok()?;
    Some(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_survive_the_way() {
        let facts = Facts { pid: 77, began: 0x1234_5678_9abc, uuid: [7; 16], space: 3 };
        assert_eq!(Facts::parse(&facts.bytes()), Some(facts));
        assert_eq!(Facts::parse(&[0; LEN]), None);
    }
}
