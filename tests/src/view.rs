//! What /proc shows of a process, to compare before and after: whatever differs was lost, also what no
//! victim thought of.

use crate::procfs;
use std::collections::BTreeMap;

/// Fields of `status` that are the process's own. Not here: ids and what is only measured.
const STATUS: &[&str] = &[
    "Name",
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "VmSize",
    "VmLck",
    "VmPin",
    "VmData",
    "VmStk",
    "VmExe",
    "VmLib",
    "HugetlbPages",
    "THP_enabled",
    "untag_mask",
    "Threads",
    "SigPnd",
    "ShdPnd",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Speculation_Store_Bypass",
    "SpeculationIndirectBranch",
    "Cpus_allowed",
    "Mems_allowed",
    "x86_Thread_features",
];

/// Whole files.
const FILES: &[&str] = &[
    "auxv",
    "cmdline",
    "comm",
    "coredump_filter",
    "environ",
    "limits",
    "oom_score_adj",
    "personality",
    "timens_offsets",
    "timerslack_ns",
];

/// Fields of `stat` that are the process's own: nice, start and end addresses, exit signal, real-time
/// priority, policy.
const STAT: &[usize] = &[19, 20, 26, 27, 28, 38, 40, 41, 45, 46, 47, 48, 49, 50, 51];

/// Name of a fact to its value.
pub type View = BTreeMap<String, String>;

/// Everything comparable of one process.
pub fn of(pid: i32) -> View {
    let mut view = View::new();
    for file in FILES {
        view.insert((*file).to_owned(), procfs::read(pid, file).unwrap_or_default());
    }
    for link in ["cwd", "root", "exe"] {
        let target = std::fs::read_link(format!("/proc/{pid}/{link}")).unwrap_or_default();
        view.insert(link.to_owned(), target.display().to_string());
    }
    // Threads by rank: their ids may be others.
    for (rank, tid) in procfs::threads(pid).into_iter().enumerate() {
        for field in STATUS {
            if let Some(value) = task_status(pid, tid, field) {
                view.insert(format!("thread {rank}: {field}"), value);
            }
        }
        for &number in STAT {
            let value = procfs::stat_field(tid, number).map(|v| v.to_string()).unwrap_or_default();
            view.insert(format!("thread {rank}: stat field {number}"), value);
        }
        let comm = procfs::read(pid, &format!("task/{tid}/comm")).unwrap_or_default();
        view.insert(format!("thread {rank}: comm"), comm);
    }
    maps(pid, &mut view);
    descriptors(pid, &mut view);
    view.insert("timers".into(), timers(pid));
    view
}

fn task_status(pid: i32, tid: i32, field: &str) -> Option<String> {
    let status = procfs::read(pid, &format!("task/{tid}/status"))?;
    status.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key == field).then(|| value.trim().to_owned())
    })
}

/// Each VMA with its flags. Objects without a name have another inode afterwards.
fn maps(pid: i32, view: &mut View) {
    let smaps = procfs::read(pid, "smaps").unwrap_or_default();
    let mut name = String::new();
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            // "sd" tells whether it was written lately.
            let flags: Vec<&str> = flags.split_whitespace().filter(|f| *f != "sd").collect();
            view.entry(name.clone()).or_default().push_str(&flags.join(" "));
        } else if line.split_once(' ').is_some_and(|(range, _)| range.contains('-') && !range.ends_with(':'))
        {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let deleted = line.ends_with(" (deleted)");
            let object = if deleted { String::new() } else { fields[3..5].join(" ") };
            name = format!("VMA {}", fields[0]);
            let path = fields.get(5..).unwrap_or(&[]).join(" ");
            view.insert(name.clone(), format!("{} {} {object} {path}: ", fields[1], fields[2]));
        }
    }
}

/// Each descriptor with its fdinfo. Not compared: mounts and inodes of objects that are made anew,
/// times that run.
fn descriptors(pid: i32, view: &mut View) {
    for (fd, link) in procfs::fds(pid) {
        let link = link.display().to_string();
        let link = match link.split_once(":[") {
            Some((kind, _)) => kind.to_owned(),
            None => without_inode(link),
        };
        let info = procfs::read(pid, &format!("fdinfo/{fd}")).unwrap_or_default();
        let own = info.lines().filter(|line| {
            let key = line.split(':').next().unwrap_or_default();
            !["mnt_id", "ino", "ticks", "it_value", "eventfd-id", "scm_fds"].contains(&key)
        });
        let mut own: Vec<String> = own.map(without_ids).collect();
        if link.ends_with("eventpoll]") || link == "anon_inode" {
            // Entries are ordered by the addresses of kernel objects.
            own.sort_unstable();
        }
        view.insert(format!("fd {fd}"), format!("{link} | {}", own.join(" | ")));
    }
}

/// A file of O_TMPFILE is shown with its inode as name.
fn without_inode(link: String) -> String {
    let number = link.rsplit_once("/#").and_then(|(dir, rest)| Some((dir, rest.strip_suffix(" (deleted)")?)));
    match number {
        Some((dir, n)) if n.bytes().all(|b| b.is_ascii_digit()) => format!("{dir}/#N (deleted)"),
        _ => link,
    }
}

/// A line of fdinfo without inode numbers, device numbers and pids (locks, epoll entries).
fn without_ids(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.first() {
        Some(&"lock:") => {
            // "lock: 1: POSIX ADVISORY WRITE 1234 00:1f:5678 10 19"
            let kept = words.iter().enumerate().filter(|(i, _)| !matches!(i, 1 | 5 | 6)).map(|(_, w)| *w);
            kept.collect::<Vec<_>>().join(" ")
        }
        Some(&"tfd:") => {
            let end = words.iter().position(|w| w.starts_with("pos:")).unwrap_or(words.len());
            // A used up one-shot entry has the mask 0, and cannot be made without EPOLLERR | EPOLLHUP.
            words[..end].join(" ").replace("events: 40000018", "events: 40000000")
        }
        // O_TMPFILE (and O_DIRECTORY in it) say how a file without a name was made.
        Some(&"flags:") => {
            let flags = words.get(1).and_then(|w| u32::from_str_radix(w, 8).ok()).unwrap_or(0);
            let how = if flags & 0o20_200_000 == 0o20_200_000 { 0o20_200_000 } else { 0 };
            format!("flags: {:o}", flags & !how)
        }
        _ => line.trim_end().to_owned(),
    }
}

/// `timers`, without the target's pid.
fn timers(pid: i32) -> String {
    let text = procfs::read(pid, "timers").unwrap_or_default();
    let line = |line: &str| match line.strip_prefix("notify: ") {
        Some(how) => format!("notify: {}", how.split(['.', '/']).next().unwrap_or_default()),
        None => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join(" | ")
}

/// One line for each fact that differs; `ignored` names facts (by their beginning) that may.
pub fn differences(before: &View, after: &View, ignored: &[&str]) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let shown =
        |view: &View, name: &String| view.get(name).map_or("nothing".to_owned(), |v| format!("{v:?}"));
    names
        .into_iter()
        .filter(|name| !ignored.iter().any(|i| name.starts_with(i) || name.ends_with(i)))
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| format!("{name}: {} became {}", shown(before, name), shown(after, name)))
        .collect()
}

/// Anonymous memory in RAM, in KiB.
pub fn anonymous_kib(pid: i32) -> u64 {
    procfs::status(pid, "RssAnon").and_then(|v| v.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
