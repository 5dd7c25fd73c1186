//! Memory without a name that processes outside of the image map, too: after a restore it would be
//! two memories.

use super::smaps::{self, Entry};
use crate::collect::proc;
use std::collections::HashSet;

/// One such memory, and one of those who share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharer {
    /// Where the target maps it.
    pub start: u64,
    pub end: u64,
    pub path: Vec<u8>,
    pub pid: i32,
    pub name: String,
}

/// Looks at the maps of every process, if the target has memory that could be shared so.
///
/// Processes whose maps we may not read are passed over: without privileges, these belong to others.
pub fn collect(pid: i32, entries: &[Entry]) -> Vec<Sharer> {
    let candidates: Vec<&Entry> = entries.iter().filter(|e| is_nameless(e)).collect();
    let mut wanted: HashSet<((u32, u32), u64)> = candidates.iter().map(|e| (e.dev, e.ino)).collect();
    let mut found = Vec::new();
    if wanted.is_empty() {
        return found;
    }
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for other in pids.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok()).filter(|p| *p != pid) {
        let Ok(text) = std::fs::read(format!("/proc/{other}/maps")) else { continue };
        // What cannot be parsed has ended meanwhile.
        for theirs in smaps::parse(&text).unwrap_or_default().iter().filter(|e| is_nameless(e)) {
            if !wanted.remove(&(theirs.dev, theirs.ino)) {
                continue;
            }
            let ours = candidates.iter().find(|e| (e.dev, e.ino) == (theirs.dev, theirs.ino));
            found.extend(ours.map(|e| Sharer {
                start: e.start,
                end: e.end,
                path: e.path.clone(),
                pid: other,
                name: proc::name(other),
            }));
        }
    }
    found
}

/// Anonymous shared memory, memfds, deleted files: what comes back as a copy.
fn is_nameless(e: &Entry) -> bool {
    e.shared
        && e.ino != 0
        && (e.path.ends_with(b" (deleted)")
            || e.path.starts_with(b"/memfd:")
            || e.path.starts_with(b"[anon_shmem:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shared_memory_without_a_name_counts() {
        let text = "\
10000-11000 rw-s 00000000 00:01 7  /dev/zero (deleted)
20000-21000 rw-s 00000000 00:05 8  /memfd:x (deleted)
30000-31000 rw-s 00000000 fe:00 9  /tmp/file
40000-41000 r--p 00000000 fe:00 10  /tmp/gone (deleted)
";
        let entries = smaps::parse(text.as_bytes()).unwrap();
        let starts: Vec<u64> = entries.iter().filter(|e| is_nameless(e)).map(|e| e.start).collect();
        assert_eq!(starts, [0x10000, 0x20000]);
    }
}
