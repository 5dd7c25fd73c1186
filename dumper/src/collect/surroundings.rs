//! What the process shares with others: namespaces, directories, and its own threads' tables.

use super::proc;
use crate::collect::CredsFacts;
use crate::sys::dir::Dir;
use crate::sys::process::{self, Shared};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

fn link(pid: &str, name: &str) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{name}")).ok()
}

fn differ<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a != b)
}

/// Namespaces that the process does not share with us, of those that change what the image's names
/// mean. A pid namespace only changes numbers, which are recorded as the process sees them; so does a
/// user namespace in which its ids are what they are here, and no capabilities come with it. A mount
/// namespace counts if something else is mounted at its root; a time namespace, if it has other clocks than that
/// of the `first` process, whose clocks the image records.
pub fn namespaces(pid: i32, first: i32, creds: &CredsFacts) -> Vec<String> {
    let theirs = pid.to_string();
    let root_mount = |pid: &str| {
        let info = proc::read(&format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        proc::root_mount(&info).map(str::to_owned)
    };
    // For the IPC namespace see `sysv`.
    let mut found: Vec<String> = ["mnt", "net", "time", "user", "uts"]
        .into_iter()
        .filter(|name| differ(link(&theirs, name), link("self", name)))
        .filter(|name| match *name {
            "mnt" => root_mount(&theirs) != root_mount("self"),
            "user" => creds.cap_permitted != 0 || !same_ids(pid, creds),
            "time" => {
                let clocks = clock_offsets(&theirs);
                clocks.is_none() || clocks != clock_offsets(&first.to_string())
            }
            _ => true,
        })
        .map(str::to_owned)
        .collect();
    // unshare(2) or setns(2) without a fork since.
    for (own, next) in [("pid", "pid_for_children"), ("time", "time_for_children")] {
        if differ(link(&theirs, own), link(&theirs, next)) {
            found.push(format!("{own} of its next child"));
        }
    }
    found
}

/// What the time namespace of a process adds to CLOCK_MONOTONIC and CLOCK_BOOTTIME, in ns
/// (time_namespaces(7)); it has the clocks of its children.
pub fn clock_offsets(pid: &str) -> Option<[i64; 2]> {
    offsets(&proc::read(&format!("/proc/{pid}/timens_offsets")).ok()?)
}

/// `text`: lines of "clock, seconds, nanoseconds".
fn offsets(text: &str) -> Option<[i64; 2]> {
    let of = |clock: &str| {
        let mut words = text.lines().find(|line| line.starts_with(clock))?.split_whitespace().skip(1);
        let mut number = || words.next()?.parse::<i64>().ok();
        number()?.checked_mul(1_000_000_000)?.checked_add(number()?)
    };
    Some([of("monotonic")?, of("boottime")?])
}

/// Whether two processes have different ids for the same process.
pub fn other_pid_namespace(root: i32, pid: i32) -> bool {
    differ(link(&root.to_string(), "pid"), link(&pid.to_string(), "pid"))
}

/// Whether the process sees its ids as we see them.
fn same_ids(pid: i32, creds: &CredsFacts) -> bool {
    let identity = |map: &str, ids: &[u32]| {
        let map = proc::read(&format!("/proc/{pid}/{map}")).unwrap_or_default();
        ids.iter().all(|id| maps_to_itself(&map, *id))
    };
    identity("uid_map", &creds.uid) && identity("gid_map", &creds.gid)
}

/// `map`: lines of "id inside, id outside, count" (user_namespaces(7)).
fn maps_to_itself(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        matches!(numbers[..], [inside, outside, count]
            if inside == outside && (outside..outside + count).contains(&u64::from(id)))
    })
}

/// Threads that do not share what the threads of a process usually do, with the name of what.
pub fn apart(pid: i32, tids: &[i32]) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    let names = ["ipc", "net", "uts"].map(|name| (name, link(&pid.to_string(), name)));
    let dir = Dir::open(&format!("/proc/{pid}/task")).ok();
    for &tid in tids.iter().filter(|tid| **tid != pid) {
        let own = [
            (Shared::Descriptors, "a descriptor table of its own (unshare(CLONE_FILES))"),
            (Shared::Directories, "working and root directories of its own (unshare(CLONE_FS))"),
        ];
        // Without kcmp(2) nobody can tell.
        let own = own.into_iter().filter(|(what, _)| !process::share(pid, tid, *what).unwrap_or(true));
        found.extend(own.map(|(_, what)| (tid, what.to_owned())));
        for (name, own) in &names {
            let link = dir.as_ref().and_then(|dir| dir.read_link(format_args!("{tid}/ns/{name}")).ok());
            let theirs = link.as_deref().map(|link| Path::new(OsStr::from_bytes(link)));
            if differ(theirs, own.as_deref()) {
                found.push((tid, format!("a namespace of its own ({name})")));
            }
        }
    }
    found
}

/// Whether `path`, which `/proc/PID/LINK` shows, leads to another directory: something may be mounted
/// over it, or it is in another mount namespace.
pub fn leads_elsewhere(pid: i32, link: &str, path: &[u8]) -> bool {
    let id = |path: &Path| fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let by_path = id(Path::new(OsStr::from_bytes(path)));
    differ(id(Path::new(&format!("/proc/{pid}/{link}"))), by_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_maps() {
        let whole = "         0          0 4294967295\n";
        assert!(maps_to_itself(whole, 0) && maps_to_itself(whole, 1000));
        assert!(maps_to_itself("1000 1000 1\n", 1000));
        assert!(!maps_to_itself("1000 1000 1\n", 1001));
        assert!(!maps_to_itself("0 1000 1\n", 1000));
        assert!(!maps_to_itself("", 0));
    }

    #[test]
    fn offsets_of_clocks() {
        let text = "monotonic           2         5\nboottime      -100 900000000\n";
        assert_eq!(offsets(text), Some([2_000_000_005, -99_100_000_000]));
        assert_eq!(offsets("monotonic 1 1\n"), None);
    }

    #[test]
    fn directories_are_compared() {
        let pid = std::process::id() as i32;
        let cwd = std::env::current_dir().unwrap();
        assert!(!leads_elsewhere(pid, "cwd", cwd.as_os_str().as_bytes()));
        assert!(leads_elsewhere(pid, "cwd", b"/proc"));
    }

    #[test]
    fn ordinary_threads_share_everything() {
        let pid = std::process::id() as i32;
        let tids: Vec<i32> = fs::read_dir("/proc/self/task")
            .unwrap()
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse().ok())
            .collect();
        assert_eq!(apart(pid, &tids), []);
    }
}
