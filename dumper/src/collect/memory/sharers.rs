//! Memory without a name that processes outside of the image map, too: after a restore it would be
//! two memories.

use super::smaps::{self, Entry};
use crate::collect::sysv::segment;
use crate::collect::{TaskFacts, proc};
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

/// Looks at the maps of every other process, if the tasks have memory that could be shared so.
///
/// Processes whose maps we may not read are passed over: without privileges, these belong to others.
pub fn collect(tasks: &mut [TaskFacts]) {
    let mut wanted: HashSet<Key> = tasks
        .iter()
        .flat_map(|t| &t.mm.vmas)
        .filter(|v| is_nameless(&v.shown))
        .map(|v| key(&v.shown))
        .collect();
    if wanted.is_empty() {
        return;
    }
    let members: HashSet<i32> = tasks.iter().map(|t| t.pid).collect();
    for other in proc::processes().filter(|pid| !members.contains(pid)) {
        let Ok(text) = std::fs::read(format!("/proc/{other}/maps")) else { continue };
        // What cannot be parsed has ended meanwhile.
        for theirs in smaps::parse(&text).unwrap_or_default().iter().filter(|e| is_nameless(e)) {
            // Ids of segments are those of an IPC namespace.
            if segment(theirs).is_some() && namespace(other) != tasks.first().and_then(|t| namespace(t.pid)) {
                continue;
            }
            if wanted.remove(&key(theirs)) {
                note(tasks, theirs, other);
            }
        }
    }
}

/// Device and inode. That of a System V segment is its id, which others on the same device may have.
pub type Key = ((u32, u32), u64, Option<i32>);

#[must_use]
pub fn key(e: &Entry) -> Key {
    (e.dev, e.ino, segment(e))
}

fn namespace(pid: i32) -> Option<std::path::PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/ipc")).ok()
}

/// Tells the first task that has this memory who else has it.
fn note(tasks: &mut [TaskFacts], theirs: &Entry, pid: i32) {
    for task in tasks {
        let ours = task.mm.vmas.iter().map(|v| &v.shown);
        if let Some(e) = ours.into_iter().find(|e| is_nameless(e) && key(e) == key(theirs)) {
            let (start, end, path) = (e.start, e.end, e.path.clone());
            task.mm.sharers.push(Sharer { start, end, path, pid, name: proc::name(pid) });
            return;
        }
    }
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
