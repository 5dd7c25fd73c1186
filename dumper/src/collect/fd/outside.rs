//! Who outside of the image has the other end of a pipe or socket, or the same message queue: by its inode, among the descriptors
//! of all processes that may be looked into.

use super::tcp::OtherEnd;
use super::unix::Peer;
use super::{Description, Detail};
use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

/// A descriptor of another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    pub pid: i32,
    pub name: String,
    pub fd: i32,
    pub reads: bool,
    pub writes: bool,
}

impl Outside {
    /// Whether it is a POSIX message queue with this inode.
    fn is_queue(&self, ino: u64) -> bool {
        let path = format!("/proc/{}/fd/{}", self.pid, self.fd);
        std::fs::metadata(&path).is_ok_and(|m| m.ino() == ino)
            && crate::sys::fd::fs_type(path.as_ref()).is_ok_and(|t| t == super::mqueue::FILE_SYSTEM)
    }
}

/// In words.
#[must_use]
pub fn in_words(found: &[Outside]) -> String {
    const MOST: usize = 3;
    let mut words: Vec<String> =
        found.iter().take(MOST).map(|o| format!("fd {} of PID {} ({})", o.fd, o.pid, o.name)).collect();
    if found.len() > MOST {
        words.push(format!("{} more", found.len() - MOST));
    }
    if words.is_empty() { "in a process that you may not look into".to_owned() } else { words.join(", ") }
}

/// Fills in who has the other ends of pipes and sockets that the processes `inside` do not have.
pub fn find(descriptions: &mut [Description], inside: &[i32]) {
    let wanted: Vec<Option<Vec<u8>>> = wanted(descriptions);
    let own: Vec<Option<Vec<u8>>> = descriptions.iter().map(repairable).collect();
    let links: HashSet<&[u8]> = wanted.iter().chain(&own).flatten().map(Vec::as_slice).collect();
    if links.is_empty() {
        return;
    }
    let found = scan(&links, inside);
    for (d, link) in descriptions.iter_mut().zip(&own) {
        if let (Detail::Inet(i), Some(all)) = (&mut d.detail, link.as_ref().and_then(|l| found.get(l))) {
            i.sharers.clone_from(all);
        }
    }
    for (d, link) in descriptions.iter_mut().zip(&wanted) {
        let Some(all) = link.as_ref().and_then(|l| found.get(l)) else { continue };
        let writes = d.access_mode() != libc::O_RDONLY;
        match &mut d.detail {
            Detail::Pipe(p) => {
                p.outside = all.iter().filter(|o| if writes { o.reads } else { o.writes }).cloned().collect();
            }
            Detail::Unix(u) => u.outside.clone_from(all),
            Detail::Inet(i) => i.outside.clone_from(all),
            // The link is a name: a file may have the same.
            Detail::MessageQueue(q) => {
                q.outside = all.iter().filter(|o| o.is_queue(d.stat.ino)).cloned().collect();
            }
            _ => {}
        }
    }
}

/// What a connection to the outside that can be gone on with links to.
fn repairable(d: &Description) -> Option<Vec<u8>> {
    let Detail::Inet(i) = &d.detail else { return None };
    matches!(i.tcp.as_ref()?.outside, Some(Ok(_))).then(|| d.link.clone())
}

/// What `/proc/PID/fd/N` of the other end would link to, for each description that lacks it.
fn wanted(descriptions: &[Description]) -> Vec<Option<Vec<u8>>> {
    let sockets: HashSet<u64> = descriptions
        .iter()
        .filter(|d| matches!(d.detail, Detail::Unix(_) | Detail::Inet(_)))
        .map(|d| d.stat.ino)
        .collect();
    let socket = |ino: u64| (!sockets.contains(&ino)).then(|| format!("socket:[{ino}]").into_bytes());
    let mut access: HashMap<(u64, u64), (bool, bool)> = HashMap::new();
    for d in descriptions.iter().filter(|d| matches!(d.detail, Detail::Pipe(_))) {
        let (reads, writes) = access.entry((d.stat.dev, d.stat.ino)).or_default();
        *reads |= d.access_mode() != libc::O_WRONLY;
        *writes |= d.access_mode() != libc::O_RDONLY;
    }
    let link = |d: &Description| match &d.detail {
        Detail::Pipe(p) => {
            let complete = access.get(&(d.stat.dev, d.stat.ino)) == Some(&(true, true));
            (!complete && !p.other_end_closed && !p.no_writer_yet).then(|| d.link.clone())
        }
        Detail::Unix(u) => match u.peer {
            Peer::Socket(ino) => socket(ino),
            _ => None,
        },
        Detail::Inet(i) => match i.tcp.as_ref()?.other {
            OtherEnd::Socket(ino) => socket(ino),
            _ => None,
        },
        Detail::MessageQueue(_) => Some(d.link.clone()),
        _ => None,
    };
    // Standard descriptors come from the caller: nobody asks who has the other end.
    descriptions.iter().map(|d| if d.fd > 2 { link(d) } else { None }).collect()
}

fn scan(links: &HashSet<&[u8]>, inside: &[i32]) -> HashMap<Vec<u8>, Vec<Outside>> {
    let mut found: HashMap<Vec<u8>, Vec<Outside>> = HashMap::new();
    let own = std::process::id() as i32;
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids.filter(|pid| *pid != own && !inside.contains(pid)) {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let Ok(link) = std::fs::read_link(entry.path()) else { continue };
            let link = link.as_os_str().as_bytes();
            let Some(fd) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
            if !links.contains(link) {
                continue;
            }
            // The link's own mode says how it is open.
            let mode = entry.path().symlink_metadata().map_or(0, |m| m.mode());
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let name = name.trim_end().to_owned();
            let (reads, writes) = (mode & 0o400 != 0, mode & 0o200 != 0);
            found.entry(link.to_vec()).or_default().push(Outside { pid, name, fd, reads, writes });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_words_names_some() {
        let one = |pid| Outside { pid, name: "cat".into(), fd: 3, reads: true, writes: false };
        assert_eq!(in_words(&[one(5)]), "fd 3 of PID 5 (cat)");
        assert!(in_words(&[one(1), one(2), one(3), one(4), one(5)]).ends_with("PID 3 (cat), 2 more"));
        assert!(in_words(&[]).contains("may not look into"));
    }
}
