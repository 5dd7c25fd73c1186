//! Descriptors, and the kernel objects behind them. One file per kind.
//!
//! First a cheap look at every descriptor (link, fdinfo, stat), then kcmp(2) tells which of them
//! share an open file description, then one duplicate per description answers what only a
//! descriptor can be asked. The duplicate is the target's own description: nothing may change it.

pub mod content;
pub mod diag;
pub mod event;
pub mod fdinfo;
pub mod inet;
pub mod multicast;
pub mod pipe;
pub mod regular;
pub mod socket;
pub mod tty;
pub mod unix;

use crate::ptrace::Frozen;
use crate::sys;
use anyhow::{Context as _, Result, anyhow};
pub use fdinfo::{FdInfo, LockFacts};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A descriptor table.
#[derive(Clone, Debug, Default)]
pub struct FdTableFacts {
    /// Sorted by number.
    pub fds: Vec<FdFacts>,
    /// Sorted by lowest number.
    pub descriptions: Vec<Description>,
    /// Files of ours whose contents must be stored: [`elf_writer::Source::File`] names them by index.
    pub files: Vec<Arc<File>>,
}

/// One descriptor.
#[derive(Clone, Copy, Debug)]
pub struct FdFacts {
    pub fd: i32,
    pub cloexec: bool,
    /// Index in [`FdTableFacts::descriptions`].
    pub description: usize,
}

/// An open file description.
#[derive(Clone, Debug)]
pub struct Description {
    /// Lowest descriptor that refers to it.
    pub fd: i32,
    /// What `/proc/PID/fd/N` links to.
    pub link: Vec<u8>,
    pub stat: FileStat,
    pub info: FdInfo,
    /// F_GETOWN_EX type and id (0: none), F_GETSIG.
    pub owner: (i32, i32),
    pub signal: i32,
    pub detail: Detail,
}

impl Description {
    /// The link, for messages.
    #[must_use]
    pub fn link_text(&self) -> String {
        String::from_utf8_lossy(&self.link).into_owned()
    }

    /// O_RDONLY, O_WRONLY or O_RDWR.
    #[must_use]
    pub fn access_mode(&self) -> i32 {
        self.info.flags as i32 & libc::O_ACCMODE
    }
}

/// `struct stat`, of what a descriptor refers to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub nlink: u64,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub mtime_ns: i64,
}

impl FileStat {
    pub(crate) fn of(meta: &std::fs::Metadata) -> Self {
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            mode: meta.mode(),
            nlink: meta.nlink(),
            uid: meta.uid(),
            gid: meta.gid(),
            rdev: meta.rdev(),
            size: meta.size(),
            mtime_ns: meta.mtime().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec()),
        }
    }

    /// File type bits of the mode.
    #[must_use]
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
}

/// What is particular to a kind.
#[derive(Clone, Debug)]
pub enum Detail {
    File(regular::FileFacts),
    Pipe(pipe::PipeFacts),
    EventFd(event::EventFdFacts),
    TimerFd(event::TimerFdFacts),
    /// The mask.
    SignalFd(u64),
    Epoll(Vec<event::EpollTarget>),
    Inet(inet::InetFacts),
    Unix(unix::UnixFacts),
    Tty(tty::TtyFacts),
    Memfd(regular::MemfdFacts),
    /// A kind that nobody here knows, in words.
    Unknown(String),
    /// It could not be observed, and why.
    Failed(String),
}

/// The cheap look at one descriptor.
#[derive(Clone, Debug)]
pub struct Probe {
    pub fd: i32,
    pub link: Vec<u8>,
    pub info: FdInfo,
    pub stat: FileStat,
}

impl Probe {
    pub fn link_text(&self) -> String {
        String::from_utf8_lossy(&self.link).into_owned()
    }
}

/// What collectors of one kind need.
pub struct Context<'a> {
    pid: i32,
    pidfd: BorrowedFd<'a>,
    /// Lowest number of each description, in their order.
    lowest: Vec<i32>,
    /// Description and inode by number.
    by_fd: HashMap<i32, (usize, u64)>,
    files: Vec<Arc<File>>,
    unix: Option<diag::UnixTable>,
    defaults: socket::Defaults,
}

impl Context<'_> {
    /// A descriptor of ours for the target's open file description.
    pub fn duplicate(&self, fd: i32) -> Result<OwnedFd> {
        sys::fd::pidfd_getfd(self.pidfd, fd).with_context(|| format!("fd {fd}: pidfd_getfd"))
    }

    pub fn fdinfo(&self, fd: i32) -> Result<FdInfo> {
        read_fdinfo(self.pid, fd)
    }

    pub fn fd_path(&self, fd: i32) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{fd}", self.pid))
    }

    pub fn description_of(&self, fd: i32) -> Option<usize> {
        self.by_fd.get(&fd).map(|(d, _)| *d)
    }

    pub fn inode_of(&self, fd: i32) -> Option<u64> {
        self.by_fd.get(&fd).map(|(_, ino)| *ino)
    }

    /// `(description, one of its numbers)` of all.
    pub fn representatives(&self) -> impl Iterator<Item = (usize, i32)> + '_ {
        self.lowest.iter().copied().enumerate()
    }

    /// Keeps a file open until the image is written; its key.
    pub fn keep(&mut self, file: File) -> u32 {
        self.files.push(Arc::new(file));
        (self.files.len() - 1) as u32
    }

    /// Unix sockets of the target's network namespace.
    pub fn unix_sockets(&mut self) -> &diag::UnixTable {
        self.unix.get_or_insert_with(|| diag::UnixTable::read(self.pid))
    }
}

type Collect = fn(&mut Context<'_>, &Probe) -> Result<Detail>;

/// How a kind is recognised.
enum Sign {
    /// The link starts with this.
    Link(&'static str),
    /// `S_IFMT` of the mode.
    Mode(u32),
    /// A character device with one of these major numbers.
    Major(std::ops::RangeInclusive<u32>),
    /// AF_* of a socket.
    Family(i32),
}

/// Kinds in the order in which they are tried.
const KINDS: &[(Sign, Collect)] = &[
    (Sign::Link("anon_inode:[eventfd]"), event::eventfd),
    (Sign::Link("anon_inode:[eventpoll]"), event::epoll),
    (Sign::Link("anon_inode:[timerfd]"), event::timerfd),
    (Sign::Link("anon_inode:[signalfd]"), event::signalfd),
    (Sign::Link("anon_inode:"), unknown),
    (Sign::Link("/memfd:"), regular::memfd),
    (Sign::Mode(libc::S_IFREG), regular::collect),
    (Sign::Mode(libc::S_IFDIR), regular::collect),
    (Sign::Mode(libc::S_IFLNK), regular::collect),
    (Sign::Mode(libc::S_IFBLK), regular::collect),
    (Sign::Mode(libc::S_IFIFO), pipe::collect),
    // Unix 98 pty slaves (Documentation/admin-guide/devices.txt), virtual consoles, serial lines,
    // and 5:0 /dev/tty, 5:1 /dev/console.
    (Sign::Major(136..=143), tty::collect),
    (Sign::Major(4..=5), tty::collect),
    (Sign::Mode(libc::S_IFCHR), regular::collect),
    (Sign::Family(libc::AF_INET), inet::collect),
    (Sign::Family(libc::AF_INET6), inet::collect),
    (Sign::Family(libc::AF_UNIX), unix::collect),
    (Sign::Mode(libc::S_IFSOCK), socket::unknown),
];

/// 5:2 is `/dev/ptmx`: a pty master, not a terminal to be had from the caller.
const PTMX: (u32, u32) = (5, 2);

/// Observes the descriptor table of a stopped process.
///
/// # Errors
/// When `/proc/PID/fd` cannot be read, or the target died.
pub fn collect(target: &mut Frozen) -> Result<FdTableFacts> {
    let pid = target.pid();
    sys::fd::raise_descriptor_limit();
    let probes = probe_all(pid)?;
    let owner_of = group(pid, &probes)?;
    let lowest: Vec<usize> = (0..probes.len()).filter(|i| owner_of[*i] == *i).collect();
    let description: HashMap<usize, usize> = lowest.iter().enumerate().map(|(d, i)| (*i, d)).collect();
    let fds: Vec<FdFacts> = probes
        .iter()
        .zip(&owner_of)
        .map(|(p, i)| FdFacts { fd: p.fd, cloexec: p.info.cloexec, description: description[i] })
        .collect();
    let mut cx = Context {
        pid,
        pidfd: target.pidfd(),
        lowest: lowest.iter().map(|i| probes[*i].fd).collect(),
        by_fd: fds.iter().zip(&probes).map(|(f, p)| (f.fd, (f.description, p.stat.ino))).collect(),
        files: Vec::new(),
        unix: None,
        defaults: socket::Defaults::default(),
    };
    let mut descriptions = Vec::with_capacity(lowest.len());
    for i in lowest {
        descriptions.push(describe(&mut cx, &probes[i])?);
    }
    for d in &mut descriptions {
        if let Detail::Epoll(targets) = &mut d.detail {
            event::resolve_targets(&cx, d.fd, targets);
        }
    }
    Ok(FdTableFacts { fds, descriptions, files: cx.files })
}

/// The cheap look at every descriptor, by number.
fn probe_all(pid: i32) -> Result<Vec<Probe>> {
    let dir = format!("/proc/{pid}/fd");
    let mut probes = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("read {dir}"))? {
        let entry = entry.with_context(|| format!("read {dir}"))?;
        let Some(fd) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let path = entry.path();
        let link = std::fs::read_link(&path).with_context(|| format!("read link {}", path.display()))?;
        let stat = std::fs::metadata(&path).with_context(|| format!("stat {}", path.display()))?;
        let link = link.as_os_str().as_bytes().to_vec();
        probes.push(Probe { fd, link, info: read_fdinfo(pid, fd)?, stat: FileStat::of(&stat) });
    }
    probes.sort_by_key(|p| p.fd);
    Ok(probes)
}

fn read_fdinfo(pid: i32, fd: i32) -> Result<FdInfo> {
    let path = format!("/proc/{pid}/fdinfo/{fd}");
    let text = std::fs::read(&path).with_context(|| format!("read {path}"))?;
    FdInfo::parse(&String::from_utf8_lossy(&text)).ok_or_else(|| anyhow!("{path} has no flags"))
}

/// For each probe the index of the lowest-numbered one with the same open file description. Only
/// descriptors that look alike are compared, by sorting with the order that kcmp(2) gives.
fn group(pid: i32, probes: &[Probe]) -> Result<Vec<usize>> {
    let mut alike: HashMap<_, Vec<usize>> = HashMap::new();
    for (i, p) in probes.iter().enumerate() {
        alike.entry((p.stat.dev, p.stat.ino, p.info.flags, p.info.pos)).or_default().push(i);
    }
    let mut owner_of: Vec<usize> = (0..probes.len()).collect();
    for mut indices in alike.into_values().filter(|v| v.len() > 1) {
        let mut failure = None;
        let mut compare = |a: usize, b: usize| {
            sys::fd::kcmp_file(pid, probes[a].fd, probes[b].fd).unwrap_or_else(|e| {
                failure = Some(e);
                a.cmp(&b)
            })
        };
        indices.sort_by(|a, b| compare(*a, *b).then(a.cmp(b)));
        for pair in 1..indices.len() {
            let (before, this) = (indices[pair - 1], indices[pair]);
            if compare(before, this) == Ordering::Equal {
                owner_of[this] = owner_of[before];
            }
        }
        if let Some(e) = failure {
            return Err(e).context("kcmp, to find descriptors that share an open file description");
        }
    }
    Ok(owner_of)
}

fn describe(cx: &mut Context<'_>, probe: &Probe) -> Result<Description> {
    let detail = collector(cx, probe).and_then(|collect| collect(cx, probe));
    let (detail, (owner, signal)) = match detail.and_then(|d| Ok((d, ownership(cx, probe)?))) {
        Ok(both) => both,
        Err(e) if vanished(&e) => return Err(e),
        Err(e) => (Detail::Failed(format!("{e:#}")), ((0, 0), 0)),
    };
    let Probe { fd, link, info, stat } = probe.clone();
    Ok(Description { fd, link, stat, info, owner, signal, detail })
}

/// F_GETSIG, which libc does not name.
const F_GETSIG: i32 = 11;

/// Whether the target is gone, which is nothing to list as an obstacle.
fn vanished(e: &anyhow::Error) -> bool {
    e.downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.raw_os_error() == Some(libc::ESRCH) || e.kind() == ErrorKind::NotFound)
}

fn ownership(cx: &Context<'_>, probe: &Probe) -> Result<((i32, i32), i32)> {
    if probe.info.flags as i32 & libc::O_PATH != 0 {
        return Ok(((0, 0), 0));
    }
    let ours = cx.duplicate(probe.fd)?;
    Ok((sys::fd::owner(ours.as_fd())?, sys::fd::fcntl_get(ours.as_fd(), F_GETSIG)?))
}

/// The collector of the kind that a descriptor is of.
fn collector(cx: &Context<'_>, probe: &Probe) -> Result<Collect> {
    let mode = probe.stat.kind();
    let device = (libc::major(probe.stat.rdev), libc::minor(probe.stat.rdev));
    let family = if mode == libc::S_IFSOCK && probe.link.starts_with(b"socket:") {
        let ours = cx.duplicate(probe.fd)?;
        sys::socket::option_int(ours.as_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN)?
    } else {
        libc::AF_UNSPEC
    };
    let matches = |sign: &Sign| match sign {
        Sign::Link(prefix) => probe.link.starts_with(prefix.as_bytes()),
        Sign::Mode(m) => mode == *m,
        Sign::Major(range) => mode == libc::S_IFCHR && range.contains(&device.0) && device != PTMX,
        Sign::Family(f) => family == *f,
    };
    Ok(KINDS.iter().find(|(sign, _)| matches(sign)).map_or(unknown as Collect, |(_, collect)| *collect))
}

fn unknown(_: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    Ok(Detail::Unknown(probe.link_text()))
}

/// The path in a link, without the " (deleted)" that the kernel adds.
pub(crate) fn path_of(link: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(link.strip_suffix(b" (deleted)").unwrap_or(link)))
}
