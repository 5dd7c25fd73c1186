//! Regular files, directories, device nodes; memfds and files without a name.

use super::content::{self, Contents};
use super::{Context, Detail, FileStat, Probe, path_of};
use crate::sys;
use anyhow::{Context as _, Result};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Where it can be opened again.
    pub path: Vec<u8>,
    pub name: NameState,
    /// Of a file without a name.
    pub contents: Option<Contents>,
    /// `f_type` of statfs(2).
    pub fs_type: i64,
    /// Of a file that tells of changes by poll(2): none is new.
    pub seen: bool,
}

/// Whether the path still leads to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameState {
    Present,
    /// Deleted, and the file has no other name.
    Deleted,
    /// Deleted, but the file has another name that could not be found.
    NameLost,
    /// The path leads to another file.
    Replaced,
    /// A directory above it does not let us look.
    Hidden,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemfdFacts {
    /// As given to memfd_create(2).
    pub name: Vec<u8>,
    /// F_GET_SEALS.
    pub seals: u32,
    pub contents: Contents,
    /// MFD_HUGETLB.
    pub huge_pages: bool,
}

pub fn collect(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    let stat = &probe.stat;
    let fs_type = cx.fs_type(probe);
    if !probe.link.starts_with(b"/") {
        // What no path leads to.
        let found = own_namespace(probe).map(|path| FileFacts {
            path,
            name: NameState::Present,
            contents: None,
            fs_type,
            seen: false,
        });
        return Ok(found.map_or_else(|| Detail::Unknown(probe.link_text()), Detail::File));
    }
    let (path, name) = find_name(cx, probe, fs_type);
    let regular = stat.kind() == libc::S_IFREG;
    // Opening a leased file would make its holder give the lease back.
    let leased = probe.info.locks.iter().any(|l| l.kind == "LEASE" || l.kind == "DELEG");
    let stored = matches!(name, NameState::Deleted | NameState::NameLost) && regular && !leased;
    let contents = if stored { Some(content::collect(cx, probe)?) } else { None };
    let seen = KERNFS.contains(&fs_type) && regular && is_seen(cx, probe)?;
    Ok(Detail::File(FileFacts { path: path.as_os_str().as_bytes().to_vec(), name, contents, fs_type, seen }))
}

/// `f_type` of file systems whose files the kernel writes (linux/magic.h): proc; sysfs, cgroup, cgroup2.
const PROC: i64 = 0x9fa0;
const KERNFS: [i64; 3] = [0x6265_6572, 0x27_e0eb, 0x6367_7270];

/// Whether the program knows what is new: it has read the file since it changed (kernfs_generic_poll() in
/// fs/kernfs/file.c).
fn is_seen(cx: &Context<'_>, probe: &Probe) -> Result<bool> {
    let flags = probe.info.flags as i32;
    if flags & libc::O_PATH != 0 || flags & libc::O_ACCMODE == libc::O_WRONLY {
        return Ok(false);
    }
    let ours = cx.duplicate(probe)?;
    Ok(sys::fd::poll_now(ours.as_fd(), libc::POLLPRI)? & libc::POLLPRI == 0)
}

/// A namespace (`net:[4026531840]`) that the process itself is in: its file below /proc.
fn own_namespace(probe: &Probe) -> Option<Vec<u8>> {
    let kind = probe.link_text().split_once(":[").map(|(kind, _)| kind.to_owned())?;
    let path = format!("/proc/{}/ns/{kind}", probe.pid);
    let link = std::fs::read_link(&path).ok()?;
    (link.as_os_str().as_bytes() == probe.link).then(|| path.into_bytes())
}

/// `f_type` of memory in huge pages (linux/magic.h).
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

pub fn memfd(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    let ours = cx.duplicate(probe)?;
    let seals = sys::fd::fcntl_get(ours.as_fd(), libc::F_GET_SEALS)
        .with_context(|| format!("fd {}: F_GET_SEALS", probe.fd))? as u32;
    let path = path_of(&probe.link).as_os_str().as_bytes();
    let name = path.strip_prefix(b"/memfd:").unwrap_or(path).to_vec();
    let huge_pages = sys::fd::fs_type(&probe.fd_path()).is_ok_and(|t| t == HUGETLBFS_MAGIC);
    Ok(Detail::Memfd(MemfdFacts { name, seals, contents: content::collect(cx, probe)?, huge_pages }))
}

/// Path by which the file can be opened again. Another hard link in the same directory will do.
fn find_name(cx: &mut Context<'_>, probe: &Probe, fs_type: i64) -> (PathBuf, NameState) {
    let linked = Path::new(std::ffi::OsStr::from_bytes(&probe.link));
    // The files of a process are other inodes at each look; and a pid namespace has a /proc of its own.
    if fs_type == PROC && linked.starts_with("/proc") && !probe.link.ends_with(b" (deleted)") {
        return (linked.to_path_buf(), NameState::Present);
    }
    let found = if probe.stat.kind() == libc::S_IFLNK {
        linked.symlink_metadata().ok().map(|m| (m.dev(), m.ino()))
    } else {
        cx.identity(linked)
    };
    if found == Some((probe.stat.dev, probe.stat.ino)) {
        return (linked.to_path_buf(), NameState::Present);
    }
    let path = path_of(&probe.link).to_path_buf();
    let deleted = path.as_os_str() != linked.as_os_str();
    let state = match (deleted, probe.stat.nlink) {
        (_, 0) => NameState::Deleted,
        (true, _) if probe.stat.kind() != libc::S_IFREG => NameState::Deleted,
        (true, _) => {
            return other_link(&path, &probe.stat)
                .map_or((path, NameState::NameLost), |p| (p, NameState::Present));
        }
        (false, _) => match path.symlink_metadata() {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => NameState::Hidden,
            Err(_) => NameState::NameLost,
            Ok(_) => NameState::Replaced,
        },
    };
    (path, state)
}

fn other_link(path: &Path, stat: &FileStat) -> Option<PathBuf> {
    let entries = std::fs::read_dir(path.parent()?).ok()?;
    entries
        .flatten()
        .map(|e| e.path())
        .find(|p| p.symlink_metadata().is_ok_and(|m| (m.dev(), m.ino()) == (stat.dev, stat.ino)))
}
