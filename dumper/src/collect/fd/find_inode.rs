//! Paths of inodes, for what the kernel tells only by inode number (inotify, fanotify).
//!
//! In this order: paths that the processes are known to use, and the directories above them, which takes a
//! stat(2) each; the kernel's own answer (open_by_handle_at(2), which needs CAP_DAC_READ_SEARCH); then a walk
//! through directories, near ones first, that is given up after a while: the processes are stopped meanwhile.

use super::fanotify::On;
use super::{Description, Detail, FdInfo, FileStat};
use crate::sys;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{DirEntry, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirEntryExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// As the kernel writes it: major << 20 | minor.
    pub device: u64,
    pub ino: u64,
    /// `struct file_handle`: type and bytes.
    pub handle: Option<(i32, Vec<u8>)>,
}

/// Where what is watched can be found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    #[default]
    Unknown,
    Path(FileStat, Vec<u8>),
    /// Only a description (index) leads to it.
    Open(usize),
}

/// What was found, by device (as the kernel writes it) and inode.
type Found = HashMap<(u64, u64), (FileStat, Vec<u8>)>;

/// How long directories are walked through that nobody named.
const PATIENCE: Duration = Duration::from_secs(2);

/// A device number as stat(2) gives it.
#[must_use]
pub fn user_device(device: u64) -> u64 {
    libc::makedev((device >> 20) as u32, (device & 0xf_ffff) as u32)
}

struct Search {
    /// By device (as stat(2) gives it) and inode.
    wanted: HashMap<(u64, u64), Wanted>,
    found: Found,
}

/// Finds what is watched or marked, for all instances and groups at once: `search` are directories that the user
/// named.
pub fn resolve(pids: &[i32], descriptions: &mut [Description], search: &[PathBuf]) {
    // By what is open without a name; then by path.
    let unnamed = unnamed(descriptions);
    let mut wanted: Vec<Wanted> = Vec::new();
    each_place(descriptions, |w, place| match unnamed.get(&(user_device(w.device), w.ino)) {
        Some(index) => *place = Place::Open(*index),
        None => wanted.push(w.clone()),
    });
    if wanted.is_empty() {
        return;
    }
    let links: Vec<&[u8]> = descriptions.iter().map(|d| d.link.as_slice()).collect();
    let found = find(pids, &links, wanted, search);
    each_place(descriptions, |w, place| {
        if *place == Place::Unknown
            && let Some((stat, path)) = found.get(&(w.device, w.ino))
        {
            *place = Place::Path(*stat, path.clone());
        }
    });
}

fn each_place(descriptions: &mut [Description], mut f: impl FnMut(&Wanted, &mut Place)) {
    for d in descriptions {
        match &mut d.detail {
            Detail::Inotify(facts) => facts.watches.iter_mut().for_each(|w| f(&w.on, &mut w.place)),
            Detail::Fanotify(facts) => facts.marks.iter_mut().for_each(|m| {
                if let On::Inode(w) = &m.on {
                    f(w, &mut m.place);
                }
            }),
            _ => {}
        }
    }
}

/// Finds as many as possible.
fn find(pids: &[i32], links: &[&[u8]], wanted: Vec<Wanted>, named: &[PathBuf]) -> Found {
    let wanted = wanted.into_iter().map(|w| ((user_device(w.device), w.ino), w)).collect();
    let mut search = Search { wanted, found: Found::new() };
    let mut near: Vec<PathBuf> = named.to_vec();
    near.extend(known_paths(pids, links));
    let mut seen = HashSet::new();
    for path in near.iter().flat_map(|p| p.ancestors()).filter(|p| p.is_absolute()) {
        if search.is_done() {
            return search.found;
        }
        if seen.insert(path.to_path_buf()) {
            search.look_at(path);
        }
    }
    let mounts = pids.first().map(|pid| mounts(*pid)).unwrap_or_default();
    search.by_handle(&mounts);
    search.walk(named, None);
    let start: Vec<PathBuf> = search
        .found
        .values()
        .map(|(_, path)| PathBuf::from(OsString::from_vec(path.clone())))
        .chain(near.iter().cloned())
        .chain(near.iter().flat_map(|p| p.ancestors().skip(1).map(Path::to_path_buf)))
        .chain(mounts.into_iter().map(|m| m.point))
        .collect();
    search.walk(&start, Some(Instant::now() + PATIENCE));
    search.found
}

impl Search {
    fn is_done(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Takes the path if it is one of those. No watch sees that: nothing is opened.
    fn look_at(&mut self, path: &Path) {
        let Ok(meta) = path.symlink_metadata() else { return };
        if let Some(w) = self.wanted.remove(&(meta.dev(), meta.ino())) {
            let path = path.as_os_str().as_bytes().to_vec();
            self.found.insert((w.device, w.ino), (FileStat::of(&meta), path));
        }
    }

    /// Asks the kernel, where that is permitted.
    fn by_handle(&mut self, mounts: &[Mount]) {
        let mut opened: HashMap<u64, Option<File>> = HashMap::new();
        for (key, w) in self.wanted.clone() {
            let Some((kind, bytes)) = &w.handle else { continue };
            let mount = opened.entry(key.0).or_insert_with(|| {
                let mount = mounts.iter().find(|m| m.device == key.0)?;
                File::open(&mount.point).ok()
            });
            let Some(mount) = mount else { continue };
            match sys::fd::open_by_handle(mount.as_fd(), *kind, bytes) {
                Ok(file) => {
                    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
                    if let Ok(path) = link {
                        self.look_at(&path);
                    }
                }
                // Not permitted, for this one as for all others.
                Err(e) if e.raw_os_error() == Some(libc::EPERM) => return,
                Err(_) => {}
            }
        }
    }

    /// Looks through directories, breadth first, on the file systems that matter.
    fn walk(&mut self, start: &[PathBuf], end: Option<Instant>) {
        let late = || end.is_some_and(|end| Instant::now() > end);
        let mut seen = HashSet::new();
        let mut queue: VecDeque<PathBuf> = start.iter().cloned().collect();
        while let Some(dir) = queue.pop_front() {
            if self.is_done() || late() {
                return;
            }
            let Ok(meta) = dir.symlink_metadata() else { continue };
            let matters = self.wanted.keys().any(|(device, _)| *device == meta.dev());
            if !meta.is_dir() || !matters || !seen.insert((meta.dev(), meta.ino())) {
                continue;
            }
            let inodes: BTreeSet<u64> = self.wanted.keys().map(|(_, ino)| *ino).collect();
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                if inodes.contains(&entry.ino()) {
                    self.look_at(&entry.path());
                }
                if is_dir(&entry) {
                    queue.push_back(entry.path());
                }
            }
        }
    }
}

fn is_dir(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|t| t.is_dir())
}

/// Paths that the processes are known to use.
fn known_paths(pids: &[i32], links: &[&[u8]]) -> Vec<PathBuf> {
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let mut paths = Vec::new();
    for pid in pids {
        let read = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let link = |what: &str| std::fs::read_link(format!("/proc/{pid}/{what}")).ok();
        let cwd = link("cwd").unwrap_or_else(|| "/".into());
        let arguments = read("cmdline");
        // `--watch=DIR` too.
        let arguments = arguments.split(|b| [0, b'='].contains(b)).filter(|a| !a.is_empty());
        paths.extend(arguments.flat_map(|a| [cwd.join(path(a)), resolved(&cwd.join(path(a)))]));
        let environment = read("environ");
        let values = environment.split(|b| [0, b'=', b':'].contains(b));
        paths.extend(values.filter(|v| v.starts_with(b"/")).map(path));
        paths.push(cwd);
        paths.extend(link("root").into_iter().chain(link("exe")));
    }
    paths.extend(links.iter().filter(|l| l.starts_with(b"/")).map(|l| path(l)));
    // What everybody watches.
    paths.extend(
        ["/etc/resolv.conf", "/etc/localtime", "/dev", "/run", "/tmp", "/var/log"].map(PathBuf::from),
    );
    let mut seen = HashSet::new();
    paths.retain(|p| seen.insert(p.clone()));
    paths
}

/// Without symbolic links.
fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// A line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    /// As stat(2) gives it, on most file systems.
    pub device: u64,
    pub point: PathBuf,
}

impl Mount {
    /// What is there, unless another mount covers it.
    pub fn leads_there(&self) -> Option<FileStat> {
        let file = File::options().read(true).custom_flags(libc::O_PATH).open(&self.point).ok()?;
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
        let there = FdInfo::parse(&info)?.number("mnt_id")? == self.id;
        there.then(|| file.metadata().ok().map(|meta| FileStat::of(&meta))).flatten()
    }

    pub fn point_bytes(&self) -> Vec<u8> {
        self.point.as_os_str().as_bytes().to_vec()
    }
}

/// Inodes (device and number) that are open without a name: which description has each.
fn unnamed(descriptions: &[Description]) -> HashMap<(u64, u64), usize> {
    let nameless = |d: &Description| d.link.ends_with(b" (deleted)") || matches!(d.detail, Detail::Memfd(_));
    let found = descriptions.iter().enumerate().filter(|(_, d)| nameless(d));
    found.map(|(i, d)| ((d.stat.dev, d.stat.ino), i)).collect()
}

/// The mounts that a process sees.
pub fn mounts(pid: i32) -> Vec<Mount> {
    let text = std::fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    text.split(|b| *b == b'\n').filter_map(mount).collect()
}

/// `36 35 98:0 /root /point ...` (proc_pid_mountinfo(5)); blanks in paths are octal.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|b| *b == b' ');
    let id = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    let device = std::str::from_utf8(words.nth(1)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let point = PathBuf::from(OsString::from_vec(unescaped(words.nth(1)?)));
    Some(Mount { id, device: libc::makedev(major.parse().ok()?, minor.parse().ok()?), point })
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| std::str::from_utf8(rest.get(1..4)?).ok()).flatten();
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &rest[4..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_lines() {
        let line = br"36 35 98:0 /mnt1 /a\040b rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let expected = Mount { id: 36, device: libc::makedev(98, 0), point: "/a b".into() };
        assert_eq!(mount(line), Some(expected));
        assert_eq!(mount(b""), None);
    }

    #[test]
    fn directories_below_a_named_one_are_walked_through() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        std::fs::create_dir_all(&deep).unwrap();
        let meta = deep.metadata().unwrap();
        let device = u64::from(libc::major(meta.dev())) << 20 | u64::from(libc::minor(meta.dev()));
        let wanted = Wanted { device, ino: meta.ino(), handle: None };
        let found = find(&[], &[], vec![wanted], &[dir.path().to_path_buf()]);
        assert_eq!(found[&(device, meta.ino())].1, deep.as_os_str().as_bytes());
    }
}
