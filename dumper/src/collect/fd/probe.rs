//! The cheap look at every descriptor: link, fdinfo, stat; and which of them are one open file description.

use super::{FdInfo, FileStat};
use crate::collect::proc;
use crate::sys;
use crate::sys::dir::Dir;
use anyhow::{Context as _, Result, anyhow};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The cheap look at one descriptor.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Index of its table.
    pub(super) table: usize,
    pub pid: i32,
    pub fd: i32,
    pub link: Vec<u8>,
    pub info: FdInfo,
    pub stat: FileStat,
    /// Why even that was not possible.
    pub(super) failed: Option<String>,
}

impl Probe {
    pub fn link_text(&self) -> String {
        String::from_utf8_lossy(&self.link).into_owned()
    }

    pub fn fdinfo(&self) -> Result<FdInfo> {
        Probing::open(self.pid)?.fdinfo(self.fd)
    }

    pub fn fd_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", self.pid, self.fd))
    }
}

/// So many descriptors are worth a second thread.
const MANY: usize = 512;

/// The directories of a process in which its descriptors are shown.
struct Probing {
    pid: i32,
    fds: Dir,
    infos: Dir,
}

impl Probing {
    fn open(pid: i32) -> Result<Self> {
        let dir = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            Dir::open(&path).with_context(|| format!("open {path}"))
        };
        Ok(Self { pid, fds: dir("fd")?, infos: dir("fdinfo")? })
    }

    /// A file system that does not answer must not hide what else there is.
    fn probe(&self, table: usize, fd: i32) -> Probe {
        let link = self.fds.read_link(fd).unwrap_or_default();
        let stat = self.fds.stat(fd).with_context(|| format!("stat /proc/{}/fd/{fd}", self.pid));
        let (info, stat) = (self.fdinfo(fd), stat.map(|s| FileStat::from_raw(&s)));
        let failed = [info.as_ref().err(), stat.as_ref().err()].into_iter().flatten().next();
        let failed = failed.map(|e| format!("{e:#}"));
        let (info, stat) = (info.unwrap_or_default(), stat.unwrap_or_default());
        Probe { table, pid: self.pid, fd, link, info, stat, failed }
    }

    fn fdinfo(&self, fd: i32) -> Result<FdInfo> {
        let path = || format!("/proc/{}/fdinfo/{fd}", self.pid);
        let text = self.infos.file(fd).and_then(proc::once).with_context(|| format!("read {}", path()))?;
        FdInfo::parse(&proc::text(text)).ok_or_else(|| anyhow!("{} has no flags", path()))
    }
}

/// The cheap look at every descriptor of a table, by number.
pub(super) fn probe_all(table: usize, pid: i32, probes: &mut Vec<Probe>) -> Result<()> {
    let dir = format!("/proc/{pid}/fd");
    let mut fds: Vec<i32> = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("read {dir}"))? {
        let entry = entry.with_context(|| format!("read {dir}"))?;
        fds.extend(entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()));
    }
    fds.sort_unstable();
    let probing = Probing::open(pid)?;
    let some = |fds: &[i32]| fds.iter().map(|fd| probing.probe(table, *fd)).collect::<Vec<_>>();
    if fds.len() < MANY {
        probes.extend(some(&fds));
        return Ok(());
    }
    let (first, second) = fds.split_at(fds.len() / 2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| some(second));
        probes.extend(some(first));
        probes.extend(other.join().map_err(|_| anyhow!("looking at descriptors of PID {pid} failed"))?);
        Ok(())
    })
}

/// One descriptor.
pub(super) fn probe(table: usize, pid: i32, fd: i32) -> Result<Probe> {
    Ok(Probing::open(pid)?.probe(table, fd))
}

/// What all descriptors of an open file description have in common, for ever: device and inode; how it may be
/// used; by which mount it was opened; of an eventfd its id. (Offset and other flags say nothing: who is outside,
/// and not stopped, may share the description and change them.)
type Class = (u64, u64, u32, Option<u64>, Option<u64>);

fn class(p: &Probe) -> Class {
    const FOR_EVER: i32 = libc::O_ACCMODE | libc::O_PATH;
    let (mount, eventfd) = (p.info.number("mnt_id"), p.info.number("eventfd-id"));
    (p.stat.dev, p.stat.ino, p.info.flags & FOR_EVER as u32, mount, eventfd)
}

/// For each probe the index of the first one with the same open file description. Only descriptors
/// of the same class are compared, by sorting with the order that kcmp(2) gives.
pub(super) fn group(probes: &[Probe]) -> Result<Vec<usize>> {
    let mut alike: HashMap<Class, Vec<usize>> = HashMap::new();
    for (i, p) in probes.iter().enumerate() {
        alike.entry(class(p)).or_default().push(i);
    }
    let mut owner_of: Vec<usize> = (0..probes.len()).collect();
    for indices in alike.into_values().filter(|v| v.len() > 1) {
        for same in same_file(probes, indices)? {
            same[1..].iter().for_each(|i| owner_of[*i] = same[0]);
        }
    }
    Ok(owner_of)
}

/// Divides probes, which are given in ascending order, by open file description.
fn same_file(probes: &[Probe], mut indices: Vec<usize>) -> Result<Vec<Vec<usize>>> {
    let failure = Mutex::new(None);
    let compare = |a: usize, b: usize| {
        let of = |i: usize| (probes[i].pid, probes[i].fd);
        sys::fd::kcmp_file(of(a), of(b)).unwrap_or_else(|e| {
            failure.lock().unwrap_or_else(PoisonError::into_inner).replace(e);
            a.cmp(&b)
        })
    };
    if indices.len() >= MANY {
        let half = indices.len() / 2;
        let (first, second) = indices.split_at_mut(half);
        std::thread::scope(|scope| {
            scope.spawn(|| second.sort_by(|a, b| compare(*a, *b)));
            first.sort_by(|a, b| compare(*a, *b));
        });
    }
    // Of two sorted halves each is compared once.
    indices.sort_by(|a, b| compare(*a, *b));
    let groups = indices.chunk_by(|a, b| compare(*a, *b) == Ordering::Equal).map(<[usize]>::to_vec).collect();
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => Ok(groups),
        Some(e) => Err(e).context("kcmp, to find descriptors that share an open file description"),
    }
}
