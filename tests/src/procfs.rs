//! What /proc says about a process; every function gives nothing for a process that is gone.

use nix::unistd::Pid;
use std::path::PathBuf;

/// One file of `/proc/PID`.
pub fn read(pid: i32, file: &str) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/{file}")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// State letter (`R`, `S`, `T`, `t`, `Z` ...), or nothing when there is no such process.
pub fn state(pid: i32) -> Option<char> {
    let stat = read(pid, "stat")?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A field of `/proc/PID/status`, e.g. `TracerPid`.
pub fn status(pid: i32, field: &str) -> Option<String> {
    let status = read(pid, "status")?;
    status.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key == field).then(|| value.trim().to_owned())
    })
}

/// A number of `/proc/PID/stat`, counted from 1 as in proc(5) (4 is ppid, 5 pgrp, 6 session).
pub fn stat_field(pid: i32, number: usize) -> Option<i64> {
    let stat = read(pid, "stat")?;
    stat.rsplit_once(") ")?.1.split(' ').nth(number.checked_sub(3)?)?.parse().ok()
}

pub fn comm(pid: i32) -> Option<String> {
    Some(read(pid, "comm")?.trim_end().to_owned())
}

/// All processes, threads not included.
pub fn all() -> Vec<i32> {
    let Ok(dir) = std::fs::read_dir("/proc") else { return Vec::new() };
    dir.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// Children, grandchildren ..., parents first.
pub fn descendants(pid: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> =
        all().into_iter().filter_map(|p| Some((p, stat_field(p, 4)? as i32))).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, pp)| *pp == parent).map(|(p, _)| *p));
        next += 1;
    }
    found.remove(0);
    found
}

/// The restored program: the process itself, or the one below its supervisor.
pub fn program(pid: i32) -> i32 {
    // The supervisor's helpers have its name, or one of these.
    let named = |name: &str| Some(name.to_owned());
    let ours = [comm(pid), named("ckpt-init"), named("ckpt-lazy"), named("ckpt-fill")];
    descendants(pid).into_iter().find(|&p| !ours.contains(&comm(p))).unwrap_or(pid)
}

/// Processes in a process group. Zombies too, but those that only wait for init, or for the suite, which
/// adopts orphans, to reap them.
pub fn group(pgid: i32) -> Vec<i32> {
    let us = Some(std::process::id().into());
    let orphan = |p| state(p) == Some('Z') && [Some(1), us].contains(&stat_field(p, 4));
    all().into_iter().filter(|&p| stat_field(p, 5) == Some(pgid.into()) && !orphan(p)).collect()
}

/// Reaps a zombie that was adopted.
pub fn reap(pid: i32) {
    use nix::sys::wait::{WaitPidFlag, waitpid};
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
}

/// File name of the executable.
pub fn exe_name(pid: i32) -> Option<String> {
    let link = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// Thread ids.
pub fn threads(pid: i32) -> Vec<i32> {
    let Ok(dir) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut tids: Vec<i32> = dir.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    tids.sort_unstable();
    tids
}

/// `(number, link)` of each descriptor, sorted.
pub fn fds(pid: i32) -> Vec<(i32, PathBuf)> {
    let Ok(dir) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let mut fds: Vec<_> = dir
        .flatten()
        .filter_map(|e| {
            Some((e.file_name().to_str()?.parse().ok()?, std::fs::read_link(e.path()).unwrap_or_default()))
        })
        .collect();
    fds.sort();
    fds
}

/// What can be told of a process in a failure report.
pub fn describe(name: &str, pid: i32) -> String {
    let Some(state) = state(pid) else { return format!("{name} (pid {pid}): gone\n") };
    let mut text = format!("{name} (pid {pid}): state {state}");
    for field in ["PPid", "TracerPid", "Threads", "SigPnd", "ShdPnd", "SigBlk"] {
        text += &format!(" {field}={}", status(pid, field).unwrap_or_default());
    }
    text.push('\n');
    for tid in threads(pid).into_iter().take(6) {
        let wchan = read(pid, &format!("task/{tid}/wchan")).unwrap_or_default();
        let syscall = read(pid, &format!("task/{tid}/syscall")).unwrap_or_default();
        text += &format!("  tid {tid}: wchan {wchan} syscall {}\n", syscall.trim_end());
    }
    text
}

/// Sends a signal; whether the process is there or not.
pub fn signal(pid: i32, signal: nix::sys::signal::Signal) {
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), signal);
}
