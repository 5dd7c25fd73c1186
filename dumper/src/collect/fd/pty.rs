//! Pseudo-terminals that the program itself provides: masters, and which slaves are theirs.

use super::{Context, Description, Detail, Probe, tty};
use crate::sys;
use crate::sys::pty_data::Pair;
use anyhow::{Context as _, Result};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterFacts {
    /// TIOCGPTN.
    pub number: u32,
    /// Device number of the slave, as `/proc/PID/stat` has it.
    pub device: u32,
    /// Packet mode; and whether its next packet tells of something else than data.
    pub packets: bool,
    pub event: bool,
    pub locked: bool,
    pub exclusive: bool,
    /// The slave was open once, and is not any more.
    pub hung_up: bool,
    /// A session, inside or outside, has the slave as controlling terminal.
    pub session: Option<u32>,
    pub termios: [u8; 44],
    pub winsize: [u8; 8],
    /// Line discipline other than that of terminals.
    pub discipline: u32,
    /// Bytes that wait to be read; and what they are, if that could be seen.
    pub unread: usize,
    pub output: Option<Vec<u8>>,
    /// The slave's node.
    pub node: Option<NodeFacts>,
}

/// `/dev/pts/N`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub path: Vec<u8>,
    pub dev: u64,
    pub ino: u64,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

/// The slave is not opened: closing it again would hang up a master that has none.
pub fn master(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    if probe.info.flags as i32 & libc::O_PATH != 0 {
        return super::regular::collect(cx, probe);
    }
    let ours = cx.duplicate(probe)?;
    ask(ours.as_fd(), probe)
        .map(Detail::PtyMaster)
        .with_context(|| format!("fd {}: pseudo-terminal", probe.fd))
}

fn ask(ours: BorrowedFd<'_>, probe: &Probe) -> Result<MasterFacts> {
    let number = sys::tty::pty_number(ours)?;
    let events = sys::fd::poll_now(ours, libc::POLLPRI)?;
    Ok(MasterFacts {
        number,
        device: sys::tty::device(ours)?,
        packets: sys::tty::has_packets(ours)?,
        event: events & libc::POLLPRI != 0,
        locked: sys::tty::is_locked(ours)?,
        exclusive: sys::tty::is_exclusive(ours)?,
        hung_up: events & libc::POLLHUP != 0,
        session: sys::tty::session(ours).ok(),
        termios: sys::fd::termios2(ours)?,
        winsize: sys::fd::winsize(ours)?,
        discipline: sys::tty::discipline(ours)?,
        unread: sys::fd::readable_bytes(ours)?,
        output: None,
        node: node(probe, number),
    })
}

/// `/dev/ptmx` and `/dev/pts/ptmx` both make nodes in `/dev/pts`.
fn node(probe: &Probe, number: u32) -> Option<NodeFacts> {
    let dir = Path::new(OsStr::from_bytes(&probe.link)).parent()?;
    let dir = if dir.ends_with("pts") { dir.to_owned() } else { dir.join("pts") };
    let path = dir.join(number.to_string());
    let mut seen = format!("/proc/{}/root", probe.pid).into_bytes();
    seen.extend_from_slice(path.as_os_str().as_bytes());
    let meta = std::fs::metadata(OsStr::from_bytes(&seen)).ok()?;
    let is_slave = tty::is_pty_slave(meta.rdev()) && libc::minor(meta.rdev()) == number;
    is_slave.then(|| NodeFacts {
        path: path.into_os_string().into_encoded_bytes(),
        dev: meta.dev(),
        ino: meta.ino(),
        uid: meta.uid(),
        gid: meta.gid(),
        mode: meta.mode() & 0o7777,
    })
}

/// Looks at what waits in the pairs, when all slaves are known.
pub fn contents(cx: &Context<'_>, descriptions: &mut [Description]) -> Result<()> {
    let master_of = |d: &Description| if let Detail::Tty(slave) = &d.detail { slave.master } else { None };
    let with_slave: HashSet<usize> = descriptions.iter().filter_map(master_of).collect();
    for (index, d) in descriptions.iter_mut().enumerate() {
        let (at, opened) = ((d.pid, d.fd), with_slave.contains(&index));
        let Detail::PtyMaster(m) = &mut d.detail else { continue };
        // Then a change of modes, too, is an event to be read.
        let [.., a, b, c, d] = m.termios[..16] else { continue };
        let modes_are_told = m.packets && u32::from_le_bytes([a, b, c, d]) & libc::EXTPROC != 0;
        if modes_are_told {
            continue;
        }
        if m.unread == 0 || m.event || m.locked || m.discipline != 0 || !(opened || m.hung_up) {
            continue;
        }
        let ours = cx.duplicate_at(at)?;
        let pair = Pair::open(ours.as_fd(), m.termios, m.packets);
        m.output = match pair.and_then(|pair| pair.output()) {
            Ok(output) => Some(output),
            Err(e) if e.raw_os_error() == Some(libc::EIO) => {
                return Err(e).with_context(|| format!("fd {}: what waits there", at.1));
            }
            Err(_) => None,
        };
    }
    Ok(())
}

/// Finds the masters of all slaves. One that was opened as `/dev/tty` is told by its number only.
pub fn resolve(descriptions: &mut [Description]) {
    let masters: Vec<(usize, MasterFacts)> = descriptions
        .iter()
        .enumerate()
        .filter_map(|(i, d)| match &d.detail {
            Detail::PtyMaster(facts) => Some((i, facts.clone())),
            _ => None,
        })
        .collect();
    for d in descriptions {
        let (dev, ino) = (d.stat.dev, d.stat.ino);
        let named = tty::is_pty_slave(d.stat.rdev);
        let Detail::Tty(facts) = &mut d.detail else { continue };
        let is_its = |m: &MasterFacts| {
            let node = m.node.as_ref().filter(|_| named);
            m.device == facts.device && node.is_none_or(|n| (n.dev, n.ino) == (dev, ino))
        };
        facts.master = masters.iter().find(|(_, m)| is_its(m)).map(|(i, _)| *i);
    }
}
