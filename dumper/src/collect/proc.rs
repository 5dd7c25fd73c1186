//! Parsers for files below `/proc`. Pure, but for the first few.

use anyhow::{Context, Result};
use std::io::Read as _;
use std::ops::Range;

/// A file as text; names of programs need not be UTF-8.
///
/// # Errors
/// Naming the file.
pub fn read(path: &str) -> Result<String> {
    let bytes = bytes(path).with_context(|| format!("reading {path}"))?;
    Ok(text(bytes))
}

/// A file that is made while it is read: most come with one call, while std::fs::read(), for which they are
/// empty, begins with very little.
///
/// # Errors
/// As open(2) and read(2).
pub fn bytes(path: &str) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(8192);
    std::fs::File::open(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is made as a whole when it is first read (single_open() in the kernel): a read that leaves room is the
/// last.
///
/// # Errors
/// As read(2).
pub fn once(mut file: std::fs::File) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    let len = file.read(&mut bytes)?;
    let more = len == bytes.len();
    bytes.truncate(len);
    if more {
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// As text; names of programs need not be UTF-8.
#[must_use]
pub fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// State and ids of a thread or process; `None` when it is gone.
#[must_use]
pub fn stat_of(path: &str) -> Option<Stat> {
    bytes(&format!("{path}/stat")).ok().and_then(|s| stat(&s))
}

/// Name of a process, for messages.
#[must_use]
pub fn name(pid: i32) -> String {
    read(&format!("/proc/{pid}/comm")).map_or_else(|_| "?".into(), |s| s.trim_end().to_owned())
}

/// Ids of all processes.
pub fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

/// Children of these threads of a process, zombies included: all that wait(2) could return.
#[must_use]
pub fn children(pid: i32, tids: &[i32]) -> Vec<i32> {
    let lists = tids.iter().map(|tid| read(&format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default());
    lists.flat_map(|l| l.split_whitespace().filter_map(|c| c.parse().ok()).collect::<Vec<_>>()).collect()
}

/// `comm` of a thread from its status file, where that shows it unchanged: line ends and backslashes are
/// escaped there.
#[must_use]
pub fn plain_name(status: &str) -> Option<&str> {
    let name = status.strip_prefix("Name:\t")?.split('\n').next()?;
    (!name.contains(['\\', char::REPLACEMENT_CHARACTER])).then_some(name)
}

/// Value of a `Key:\tvalue` line of `/proc/PID/status`.
#[must_use]
pub fn field<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

/// Bytes of a `Key:   17 kB` line.
#[must_use]
pub fn size(text: &str, key: &str) -> Option<u64> {
    field(text, key)?.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// As [`field`], a hexadecimal mask.
#[must_use]
pub fn hex_field(status: &str, key: &str) -> Option<u64> {
    u64::from_str_radix(field(status, key)?, 16).ok()
}

/// As [`field`], numbers separated by white space.
#[must_use]
pub fn numbers(status: &str, key: &str) -> Vec<u32> {
    field(status, key).unwrap_or_default().split_whitespace().filter_map(|n| n.parse().ok()).collect()
}

/// Last number of `NSpid`, `NSpgid` or `NSsid`: an id as the process itself sees it.
#[must_use]
pub fn own_id(status: &str, key: &str) -> Option<i32> {
    field(status, key)?.split_whitespace().next_back()?.parse().ok()
}

/// `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    pub comm: String,
    pub state: u8,
    pub ppid: i32,
    pub pgrp: i32,
    pub session: i32,
    pub tty_nr: u32,
    pub tpgid: i32,
    pub flags: u64,
    pub num_threads: i64,
    pub start_code: u64,
    pub end_code: u64,
    pub start_stack: u64,
    pub exit_signal: i32,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
}

/// Parses `/proc/PID/stat`; the name may hold spaces, parentheses and anything else.
#[must_use]
pub fn stat(bytes: &[u8]) -> Option<Stat> {
    let open = bytes.iter().position(|b| *b == b'(')?;
    let close = bytes.iter().rposition(|b| *b == b')')?;
    let comm = String::from_utf8_lossy(bytes.get(open + 1..close)?).into_owned();
    let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    // Numbered as in the manual: the state is field 3.
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let text = |number: usize| fields.get(number - 3).copied();
    let signed = |number| text(number).and_then(|v| v.parse::<i64>().ok());
    let address = |number| text(number).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
    Some(Stat {
        comm,
        state: *text(3)?.as_bytes().first()?,
        ppid: signed(4)? as i32,
        pgrp: signed(5)? as i32,
        session: signed(6)? as i32,
        tty_nr: signed(7)? as u32,
        tpgid: signed(8)? as i32,
        flags: address(9),
        num_threads: signed(20)?,
        start_code: address(26),
        end_code: address(27),
        start_stack: address(28),
        exit_signal: signed(38).unwrap_or(0) as i32,
        start_data: address(45),
        end_data: address(46),
        start_brk: address(47),
        arg_start: address(48),
        arg_end: address(49),
        env_start: address(50),
        env_end: address(51),
    })
}

/// When a process began, in ticks since the boot: with its id, that is one process.
#[must_use]
pub fn began(pid: i32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let close = stat.iter().rposition(|b| *b == b')')?;
    std::str::from_utf8(stat.get(close + 1..)?).ok()?.split_whitespace().nth(22 - 3)?.parse().ok()
}

/// The address range of a line of `/proc/PID/maps`.
fn range(line: &str) -> Option<Range<u64>> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}

/// The mapping with this name (`[vdso]`) in `/proc/PID/maps`.
#[must_use]
pub fn mapping(maps: &str, name: &str) -> Option<Range<u64>> {
    maps.lines().find(|line| line.ends_with(name)).and_then(range)
}

/// Mappings that the program may execute, without those of the kernel.
pub fn executable_mappings(maps: &str) -> impl Iterator<Item = Range<u64>> {
    maps.lines()
        .filter(|line| line.split_whitespace().nth(1).is_some_and(|p| p.contains('x')))
        .filter(|line| !line.ends_with("[vsyscall]"))
        .filter_map(range)
}

/// `/proc/PID/limits`: `(soft, hard)` by RLIMIT_* number. prlimit(2) would need CAP_SYS_RESOURCE for
/// processes of other users.
#[must_use]
pub fn limits(text: &str) -> [[u64; 2]; 16] {
    // In the order of the RLIMIT_* numbers of x86-64 (fs/proc/base.c, lnames).
    const NAMES: [&str; 16] = [
        "Max cpu time",
        "Max file size",
        "Max data size",
        "Max stack size",
        "Max core file size",
        "Max resident set",
        "Max processes",
        "Max open files",
        "Max locked memory",
        "Max address space",
        "Max file locks",
        "Max pending signals",
        "Max msgqueue size",
        "Max nice priority",
        "Max realtime priority",
        "Max realtime timeout",
    ];
    let value = |v: Option<&str>| match v {
        Some("unlimited") | None => u64::MAX,
        Some(n) => n.parse().unwrap_or(u64::MAX),
    };
    NAMES.map(|name| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("");
        let mut values = line.split_whitespace();
        [value(values.next()), value(values.next())]
    })
}

/// One timer of `/proc/PID/timers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    pub id: i32,
    pub signo: i32,
    pub value: u64,
    /// SIGEV_*, with SIGEV_THREAD_ID.
    pub notify: i32,
    /// Thread (SIGEV_THREAD_ID) or process it signals.
    pub target: i32,
    pub clock: i32,
}

/// Parses `/proc/PID/timers` (proc_pid_timers(5)).
#[must_use]
pub fn timers(text: &str) -> Vec<Timer> {
    let mut all: Vec<Timer> = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if key == "ID" {
            all.push(Timer { id: value.parse().unwrap_or(-1), ..Timer::default() });
            continue;
        }
        let Some(timer) = all.last_mut() else { continue };
        match key {
            "signal" => {
                let (signo, sigval) = value.split_once('/').unwrap_or((value, "0"));
                timer.signo = signo.parse().unwrap_or(0);
                timer.value = u64::from_str_radix(sigval.trim_start_matches("0x"), 16).unwrap_or(0);
            }
            "notify" => {
                // "signal/tid.123", "none/pid.123", "thread/pid.123"
                let (how, whom) = value.split_once('/').unwrap_or((value, ""));
                let (kind, id) = whom.split_once('.').unwrap_or(("", "0"));
                timer.notify = match how {
                    "none" => libc::SIGEV_NONE,
                    "thread" => libc::SIGEV_THREAD,
                    _ => libc::SIGEV_SIGNAL,
                };
                timer.target = id.parse().unwrap_or(0);
                if kind == "tid" {
                    timer.notify |= libc::SIGEV_THREAD_ID;
                }
            }
            "ClockID" => timer.clock = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    all
}

/// Device and root of what is mounted at `/`, from `/proc/PID/mountinfo`.
#[must_use]
pub fn root_mount(mountinfo: &str) -> Option<&str> {
    // "21 1 254:0 / / rw,relatime - ext4 /dev/vda rw"; the last mount covers the others.
    let line = mountinfo.lines().rfind(|l| l.split(' ').nth(4) == Some("/"))?;
    let from = line.match_indices(' ').nth(1)?.0 + 1;
    let to = line.match_indices(' ').nth(3)?.0;
    line.get(from..to)
}

/// A Linux CPU list (`0-3,8`), for comparing with an affinity mask.
#[must_use]
pub fn cpu_list(text: &str) -> Vec<usize> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cpus.extend(first..=last.min(first + 65_536));
        }
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_strange_names() {
        let text =
            b"4242 (a) b (\xff x) S 1 2 3 34816 5 4194304 0 0 0 0 0 0 0 0 20 0 7 0 99 1 2 3 100 200 300 \
            0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 10 20 30 40 50 60 70 0\n";
        let stat = stat(text).unwrap();
        assert_eq!(stat.comm, "a) b (\u{fffd} x");
        assert_eq!((stat.state, stat.ppid, stat.pgrp, stat.session, stat.tpgid), (b'S', 1, 2, 3, 5));
        assert_eq!((stat.tty_nr, stat.flags, stat.num_threads), (34816, 4_194_304, 7));
        assert_eq!((stat.start_code, stat.end_code, stat.start_stack), (100, 200, 300));
        assert_eq!((stat.exit_signal, stat.start_data, stat.env_end), (17, 10, 70));
        assert!(super::stat(b"4242 (cut").is_none());
        assert!(super::stat(b"").is_none());
    }

    #[test]
    fn status_fields() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nSigCgt:\t0000000180004002\nSigCgtX:\t1\nGroups:\t\n";
        assert_eq!(field(status, "Name"), Some("x"));
        assert_eq!(numbers(status, "Uid"), [1, 2, 3, 4]);
        assert!(numbers(status, "Groups").is_empty());
        assert_eq!(hex_field(status, "SigCgt"), Some(0x1_8000_4002));
        assert_eq!(field(status, "Sig"), None);
    }

    #[test]
    fn limits_by_number() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max cpu time              unlimited            unlimited            seconds   \n\
            Max stack size            8388608              unlimited            bytes     \n\
            Max open files            1024                 524288               files     \n\
            Max nice priority         0                    0                    \n";
        let limits = limits(text);
        assert_eq!(limits[libc::RLIMIT_CPU as usize], [u64::MAX, u64::MAX]);
        assert_eq!(limits[libc::RLIMIT_STACK as usize], [8_388_608, u64::MAX]);
        assert_eq!(limits[libc::RLIMIT_NOFILE as usize], [1024, 524_288]);
        assert_eq!(limits[libc::RLIMIT_NICE as usize], [0, 0]);
    }

    #[test]
    fn timers_of_all_kinds() {
        let text = "ID: 1\nsignal: 60/00007fff86e452a8\nnotify: signal/tid.2634\nClockID: 0\n\
            ID: 0\nsignal: 10/0000000000000007\nnotify: none/pid.2634\nClockID: -6\n";
        let all = timers(text);
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].id, all[0].signo, all[0].value), (1, 60, 0x7fff_86e4_52a8));
        assert_eq!((all[0].notify, all[0].target), (libc::SIGEV_SIGNAL | libc::SIGEV_THREAD_ID, 2634));
        assert_eq!((all[1].id, all[1].notify, all[1].clock), (0, libc::SIGEV_NONE, -6));
    }

    #[test]
    fn maps_and_lists() {
        let maps = "1000-2000 r--p 0 00:00 0 /a\n2000-3000 r-xp 0 00:00 0 /a\n7000-9000 r-xp 0 00:00 0   [vdso]\n\
            f000-ff00 --xp 0 00:00 0 [vsyscall]\n";
        assert_eq!(mapping(maps, "[vdso]"), Some(0x7000..0x9000));
        assert_eq!(executable_mappings(maps).collect::<Vec<_>>(), [0x2000..0x3000, 0x7000..0x9000]);
        assert_eq!(cpu_list("0-2,5\n"), [0, 1, 2, 5]);
        let mounts = "21 1 254:0 /a / rw shared:1 - ext4 /dev/vda rw\n22 21 0:5 / /proc rw - proc proc rw\n";
        assert_eq!(root_mount(mounts), Some("254:0 /a"));
        assert_eq!(root_mount(""), None);
    }
}
