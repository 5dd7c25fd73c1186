//! Descriptors, and the kernel objects behind them. One file per kind.
//!
//! First a cheap look at every descriptor (link, fdinfo, stat), then kcmp(2) tells which of them
//! share an open file description, then one duplicate per description answers what only a
//! descriptor can be asked. The duplicate is the target's own description: nothing may change it.

pub mod cloexec;
pub mod content;
pub mod datagram;
pub mod diag;
pub mod event;
pub mod fanotify;
pub mod fdinfo;
pub mod find_inode;
pub mod inet;
pub mod inotify;
mod kinds;
mod left_out;
pub mod mqueue;
pub mod multicast;
pub mod netlink;
pub mod outside;
pub mod packet;
pub mod pidfd;
pub mod pipe;
mod probe;
pub mod pty;
pub mod regular;
pub mod repair;
pub mod socket;
mod stat;
pub mod tcp;
pub mod tty;
pub mod unix;

use crate::ptrace::Frozen;
use crate::sys;
use crate::sys::process::{Shared, sharing};
use anyhow::{Context as _, Result, anyhow};
pub use fdinfo::{FdInfo, LockFacts};
pub use left_out::LeftOut;
pub use probe::Probe;
use probe::{group, probe, probe_all};
pub use stat::FileStat;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The descriptors of all processes.
#[derive(Clone, Debug, Default)]
pub struct FdFacts {
    /// In the order of the first process that has each.
    pub tables: Vec<FdTableFacts>,
    /// In the order of their first table and lowest number.
    pub descriptions: Vec<Description>,
    /// Files of ours whose contents must be stored: [`elf_writer::Source::File`] names them by index.
    pub files: Vec<Arc<File>>,
    /// TCP connections to the outside that must not move until the processes end.
    pub hold: Option<Arc<sys::tcp::Hold>>,
}

/// A descriptor table (`files_struct`).
#[derive(Clone, Debug, Default)]
pub struct FdTableFacts {
    /// Processes that use it, by their index among those that were given to [`collect`].
    pub tasks: Vec<usize>,
    /// Sorted by number.
    pub fds: Vec<FdEntryFacts>,
    /// POSIX locks, which belong to the table, and the description through which each was taken.
    pub posix_locks: Vec<(usize, LockFacts)>,
}

/// One descriptor.
#[derive(Clone, Copy, Debug)]
pub struct FdEntryFacts {
    pub fd: i32,
    pub cloexec: bool,
    /// Index in [`FdFacts::descriptions`].
    pub description: usize,
}

/// An open file description.
#[derive(Clone, Debug)]
pub struct Description {
    /// First process that has it, and its lowest descriptor there; of one that is only in a message, our
    /// own duplicate.
    pub pid: i32,
    pub fd: i32,
    /// The socket (process and descriptor) in which such a message waits.
    pub on_the_way_to: Option<(i32, i32)>,
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
    Netlink(netlink::NetlinkFacts),
    Packet(packet::PacketFacts),
    Tty(tty::TtyFacts),
    PtyMaster(pty::MasterFacts),
    Memfd(regular::MemfdFacts),
    MessageQueue(mqueue::QueueFacts),
    Pidfd(pidfd::PidfdFacts),
    Inotify(inotify::InotifyFacts),
    Fanotify(fanotify::FanotifyFacts),
    /// A kind that nobody here knows, in words.
    Unknown(String),
    /// It could not be observed, and why.
    Failed(String),
}

impl Detail {
    /// The kind, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Pipe(_) => "pipe",
            Self::EventFd(_) => "eventfd",
            Self::TimerFd(_) => "timerfd",
            Self::SignalFd(_) => "signalfd",
            Self::Epoll(_) => "epoll",
            Self::Inet(_) => "internet socket",
            Self::Unix(_) => "unix socket",
            Self::Netlink(_) => "netlink socket",
            Self::Packet(_) => "packet socket",
            Self::Tty(_) => "terminal",
            Self::PtyMaster(_) => "pseudo-terminal master",
            Self::Memfd(_) => "memfd",
            Self::MessageQueue(_) => "message queue",
            Self::Pidfd(_) => "pidfd",
            Self::Inotify(_) => "inotify",
            Self::Fanotify(_) => "fanotify",
            Self::Unknown(_) => "unknown",
            Self::Failed(_) => "not observed",
        }
    }
}

/// A process that was frozen.
#[derive(Clone, Copy)]
struct Holder<'a> {
    pid: i32,
    pidfd: BorrowedFd<'a>,
}

/// A descriptor that was found in a message.
struct InFlight {
    ours: OwnedFd,
    /// Process and descriptor of the socket where it waits.
    to: (i32, i32),
    description: usize,
}

/// Instead of a table, for those in flight.
const NO_TABLE: usize = usize::MAX;

/// What collectors of one kind need.
pub struct Context<'a> {
    /// The first process of each table.
    holders: Vec<Holder<'a>>,
    /// Process and number by which each description is observed, in their order.
    first: Vec<(i32, i32)>,
    /// Description and inode by table and number.
    by_fd: HashMap<(usize, i32), (usize, u64)>,
    /// Tables that have each description.
    tables_of: Vec<Vec<usize>>,
    /// Descriptors in messages.
    in_flight: Vec<InFlight>,
    files: Vec<Arc<File>>,
    unix: Option<diag::UnixTable>,
    tcp: Option<tcp::TcpTable>,
    destinations: Option<datagram::Destinations>,
    shutdowns: diag::Shutdowns,
    defaults: socket::Defaults,
    /// Types of file systems, by device and mount.
    file_systems: HashMap<(u64, Option<u64>), i64>,
    /// Device and inode that paths lead to.
    identities: HashMap<Vec<u8>, Option<(u64, u64)>>,
    /// Descriptors whose fdinfo does not tell whether they are closed on exec.
    doubtful: Vec<(i32, i32)>,
}

impl Context<'_> {
    /// A descriptor of ours for the target's open file description.
    pub fn duplicate(&self, probe: &Probe) -> Result<OwnedFd> {
        if let Some(holder) = self.holders.get(probe.table) {
            return sys::fd::pidfd_getfd(holder.pidfd, probe.fd)
                .with_context(|| format!("fd {}: pidfd_getfd", probe.fd));
        }
        self.duplicate_in_flight(probe.fd)
    }

    /// Notes a descriptor that waits in a message for the socket of `probe`; its index, which
    /// [`describe_in_flight`] replaces by that of its description.
    pub fn in_flight(&mut self, probe: &Probe, ours: OwnedFd) -> usize {
        self.in_flight.push(InFlight { ours, to: (probe.pid, probe.fd), description: 0 });
        self.in_flight.len() - 1
    }

    /// As [`Self::duplicate`], by process and number.
    fn duplicate_at(&self, (pid, fd): (i32, i32)) -> Result<OwnedFd> {
        let holder = self.holders.iter().find(|h| h.pid == pid);
        let holder = holder.with_context(|| format!("PID {pid} is not observed"))?;
        sys::fd::pidfd_getfd(holder.pidfd, fd).with_context(|| format!("fd {fd}: pidfd_getfd"))
    }

    /// Description, process and inode behind a number, in each of the tables that have `description`.
    fn behind(&self, number: i32, description: usize) -> impl Iterator<Item = (usize, i32, u64)> + '_ {
        self.tables_of[description].iter().filter_map(move |t| {
            self.by_fd.get(&(*t, number)).map(|(d, ino)| (*d, self.holders[*t].pid, *ino))
        })
    }

    /// As [`Self::duplicate`].
    fn duplicate_of(&self, d: &Description) -> Result<OwnedFd> {
        match self.holders.iter().find(|h| h.pid == d.pid) {
            Some(holder) => sys::fd::pidfd_getfd(holder.pidfd, d.fd)
                .with_context(|| format!("PID {} fd {}: pidfd_getfd", d.pid, d.fd)),
            None => self.duplicate_in_flight(d.fd),
        }
    }

    fn duplicate_in_flight(&self, fd: i32) -> Result<OwnedFd> {
        let ours = self.in_flight.iter().find(|f| f.ours.as_raw_fd() == fd);
        Ok(ours.context("no such descriptor in flight")?.ours.try_clone()?)
    }

    /// Keeps a file open until the image is written; its key.
    pub fn keep(&mut self, file: File) -> u32 {
        self.files.push(Arc::new(file));
        (self.files.len() - 1) as u32
    }

    /// Who has the TCP socket with these addresses, in the targets' network namespace; `None` when there
    /// is none.
    fn tcp_end(&mut self, probe: &Probe, local: SocketAddr, remote: SocketAddr) -> Option<tcp::OtherEnd> {
        let table = self.tcp.get_or_insert_with(|| tcp::table(probe.pid));
        table.get(&(local, remote)).map(|ino| match ino {
            0 => tcp::OtherEnd::Nobody,
            ino => tcp::OtherEnd::Socket(*ino),
        })
    }

    /// `f_type` of statfs(2), asked once for each mount; 0 where it is not told.
    fn fs_type(&mut self, probe: &Probe) -> i64 {
        let look = || sys::fd::fs_type(&probe.fd_path()).unwrap_or(0);
        *self.file_systems.entry((probe.stat.dev, probe.info.number("mnt_id"))).or_insert_with(look)
    }

    /// Device and inode that a path leads to, looked up once: many descriptors may be of one file.
    fn identity(&mut self, path: &Path) -> Option<(u64, u64)> {
        let look = || path.metadata().ok().map(|m| (m.dev(), m.ino()));
        *self.identities.entry(path.as_os_str().as_bytes().to_vec()).or_insert_with(look)
    }

    /// See [`datagram::destinations`].
    fn destination(&mut self, probe: &Probe) -> Option<SocketAddr> {
        let all = self.destinations.get_or_insert_with(|| datagram::destinations(probe.pid));
        all.get(&probe.stat.ino).copied()
    }

    /// Unix sockets of the targets' network namespace.
    pub fn unix_sockets(&mut self, probe: &Probe) -> &diag::UnixTable {
        self.unix.get_or_insert_with(|| diag::UnixTable::read(probe.pid))
    }
}

/// Observes the descriptors of stopped processes. `search`: directories to look for files in of which
/// only the inode is known.
///
/// # Errors
/// When `/proc/PID/fd` cannot be read, or a target died.
pub fn collect(
    targets: &mut [Frozen],
    search: &[PathBuf],
    connections: repair::Wish,
    leave_out: &LeftOut,
) -> Result<FdFacts> {
    sys::fd::raise_descriptor_limit();
    let mut tables = tables(targets)?;
    let holders: Vec<Holder<'_>> = tables
        .iter()
        .map(|t| &targets[t.tasks[0]])
        .map(|target| Holder { pid: target.pid(), pidfd: target.pidfd() })
        .collect();
    let mut probes = Vec::new();
    for (table, holder) in holders.iter().enumerate() {
        probe_all(table, holder.pid, &mut probes)?;
    }
    let owner_of = group(&probes)?;
    let (probes, owner_of) = leave_out.apply(probes, owner_of)?;
    let firsts: Vec<usize> = (0..probes.len()).filter(|i| owner_of[*i] == *i).collect();
    let description: HashMap<usize, usize> = firsts.iter().enumerate().map(|(d, i)| (*i, d)).collect();
    let mut by_fd = HashMap::new();
    let mut tables_of = vec![Vec::new(); firsts.len()];
    for (p, i) in probes.iter().zip(&owner_of) {
        let description = description[i];
        by_fd.insert((p.table, p.fd), (description, p.stat.ino));
        tables[p.table].add(p, description);
        if tables_of[description].last() != Some(&p.table) {
            tables_of[description].push(p.table);
        }
    }
    let mut cx = Context {
        holders,
        first: firsts.iter().map(|i| (probes[*i].pid, probes[*i].fd)).collect(),
        by_fd,
        tables_of,
        in_flight: Vec::new(),
        files: Vec::new(),
        unix: None,
        tcp: None,
        destinations: None,
        shutdowns: diag::Shutdowns::default(),
        defaults: socket::Defaults::default(),
        file_systems: HashMap::new(),
        identities: HashMap::new(),
        doubtful: Vec::new(),
    };
    let mut descriptions = Vec::with_capacity(firsts.len());
    for i in firsts {
        descriptions.push(describe(&mut cx, &probes[i])?);
    }
    describe_in_flight(&mut cx, &mut descriptions)?;
    tcp::settle(&cx, &mut descriptions)?;
    let hold = repair::look(&cx, &mut descriptions, connections)?.map(Arc::new);
    let ours = hold.as_ref().map(|hold| hold.pid());
    let inside: Vec<i32> = targets.iter().map(Frozen::pid).chain(ours).collect();
    outside::find(&mut descriptions, &inside);
    for (index, d) in descriptions.iter_mut().enumerate() {
        if let Detail::Epoll(targets) = &mut d.detail {
            event::resolve_targets(&cx, (index, d.pid, d.fd), targets);
        }
    }
    event::seen_edges(&cx, &mut descriptions);
    find_inode::resolve(&inside, &mut descriptions, search);
    fanotify::resolve_mounts(&inside, &mut descriptions);
    pty::resolve(&mut descriptions);
    pty::contents(&cx, &mut descriptions)?;
    let Context { files, doubtful, .. } = cx;
    cloexec::settle(targets, &mut tables, &descriptions, &doubtful)?;
    Ok(FdFacts { tables, descriptions, files, hold })
}

/// Identifies the descriptors in messages, among which sockets may be with messages of their own;
/// what no process has open is a description of its own.
fn describe_in_flight(cx: &mut Context<'_>, descriptions: &mut Vec<Description>) -> Result<()> {
    let own = std::process::id() as i32;
    let mut next = 0;
    while let Some(InFlight { ours, to, .. }) = cx.in_flight.get(next) {
        let (fd, to) = (ours.as_raw_fd(), *to);
        let path = format!("/proc/self/fd/{fd}");
        let stat = std::fs::metadata(&path).map(|m| FileStat::of(&m)).unwrap_or_default();
        let known = descriptions.iter().position(|d| {
            (d.stat.dev, d.stat.ino) == (stat.dev, stat.ino)
                && sys::fd::kcmp_file((own, fd), (d.pid, d.fd)).is_ok_and(Ordering::is_eq)
        });
        cx.in_flight[next].description = match known {
            Some(index) => index,
            None => {
                let d = describe(cx, &probe(NO_TABLE, own, fd)?)?;
                descriptions.push(Description { on_the_way_to: Some(to), ..d });
                cx.first.push((own, fd));
                cx.tables_of.push(Vec::new());
                descriptions.len() - 1
            }
        };
        next += 1;
    }
    for d in descriptions {
        if let Detail::Unix(u) = &mut d.detail {
            let fds = u.queue.iter_mut().flat_map(|m| &mut m.fds);
            fds.for_each(|fd| *fd = cx.in_flight[*fd].description);
        }
    }
    Ok(())
}

/// The distinct tables, each with the processes that use it.
fn tables(targets: &[Frozen]) -> Result<Vec<FdTableFacts>> {
    let pids: Vec<i32> = targets.iter().map(Frozen::pid).collect();
    let first =
        sharing(&pids, Shared::Descriptors).context("kcmp, to find processes that share descriptors")?;
    let mut tables: Vec<FdTableFacts> = Vec::new();
    let mut table_of = HashMap::new();
    for (index, first) in first.into_iter().enumerate() {
        let table = *table_of.entry(first).or_insert_with(|| {
            tables.push(FdTableFacts::default());
            tables.len() - 1
        });
        tables[table].tasks.push(index);
    }
    Ok(tables)
}

impl FdFacts {
    /// Whether a terminal (`tty_nr` of `/proc/PID/stat`) is provided by one of the processes.
    #[must_use]
    pub fn provide_terminal(&self, tty_nr: u32) -> bool {
        let is_it = |d: &Description| matches!(&d.detail, Detail::PtyMaster(m) if m.device == tty_nr);
        tty_nr != 0 && self.descriptions.iter().any(is_it)
    }
}

impl FdTableFacts {
    fn add(&mut self, p: &Probe, description: usize) {
        // All numbers of a description show the same locks.
        if !p.info.locks.is_empty() && !self.fds.iter().any(|f| f.description == description) {
            let locks = p.info.locks.iter().filter(|l| l.kind == "POSIX");
            self.posix_locks.extend(locks.map(|l| (description, l.clone())));
        }
        self.fds.push(FdEntryFacts { fd: p.fd, cloexec: p.info.cloexec, description });
    }
}

fn describe(cx: &mut Context<'_>, probe: &Probe) -> Result<Description> {
    let known = match &probe.failed {
        None => kinds::collector(cx, probe),
        Some(why) => Err(anyhow!("{why}")),
    };
    let detail = known.and_then(|collect| collect(cx, probe));
    let (detail, (owner, signal)) = match detail.and_then(|d| Ok((d, ownership(cx, probe)?))) {
        Ok(both) => both,
        Err(e) if vanished(&e) && crate::preflight::is_gone(probe.pid) => return Err(e),
        Err(e) => (Detail::Failed(format!("{e:#}")), ((0, 0), 0)),
    };
    let Probe { pid, fd, link, info, stat, .. } = probe.clone();
    Ok(Description { pid, fd, on_the_way_to: None, link, stat, info, owner, signal, detail })
}

/// F_GETSIG, which libc does not name.
const F_GETSIG: i32 = 11;

/// Whether the target is gone, which is nothing to list as an obstacle.
fn vanished(e: &anyhow::Error) -> bool {
    e.downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.raw_os_error() == Some(libc::ESRCH) || e.kind() == ErrorKind::NotFound)
}

fn ownership(cx: &mut Context<'_>, probe: &Probe) -> Result<((i32, i32), i32)> {
    if probe.info.flags as i32 & libc::O_PATH != 0 {
        return Ok(((0, 0), 0));
    }
    let ours = cx.duplicate(probe)?;
    if probe.info.cloexec && cloexec::is_doubtful(ours.as_fd())? {
        cx.doubtful.push((probe.pid, probe.fd));
    }
    Ok((sys::fd::owner(ours.as_fd())?, sys::fd::fcntl_get(ours.as_fd(), F_GETSIG)?))
}

/// The path in a link, without the " (deleted)" that the kernel adds.
pub(crate) fn path_of(link: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(link.strip_suffix(b" (deleted)").unwrap_or(link)))
}
