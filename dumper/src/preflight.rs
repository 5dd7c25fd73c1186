//! Whether a process can be dumped at all, before it is touched.

use crate::collect::proc;
use crate::error::{Failure, Obstacle};
use crate::freezer;
use anyhow::{Result, anyhow};
use std::io;

/// PF_KTHREAD of `/proc/PID/stat`, field flags (include/linux/sched.h).
const PF_KTHREAD: u64 = 0x0020_0000;

/// PF_EXITING of the same.
const PF_EXITING: u64 = 4;

/// Refuses what is not a process that can be dumped; returns its name. `thaws`: a frozen cgroup will be thawed.
///
/// # Errors
/// [`Failure::NoProcess`] or [`Failure::WrongKind`].
pub fn check(pid: i32, thaws: bool) -> Result<String> {
    let stat = proc::stat_of(&format!("/proc/{pid}")).ok_or(Failure::NoProcess(pid))?;
    let status = proc::read(&format!("/proc/{pid}/status")).map_err(|_| Failure::NoProcess(pid))?;
    let name = stat.comm.clone();
    let wrong = |why: String| anyhow!(Failure::WrongKind { pid, name: name.clone(), why });

    if pid == std::process::id() as i32 {
        return Err(wrong("it is ckpt-dump itself".into()));
    }
    let number = |key| proc::field(&status, key).and_then(|v| v.parse::<i32>().ok());
    if let Some(tgid) = number("Tgid").filter(|tgid| *tgid != pid) {
        return Err(wrong(format!("it is a thread of PID {tgid}; dump that instead")));
    }
    if stat.flags & PF_KTHREAD != 0 {
        return Err(wrong("it is a kernel thread, which has no program to save".into()));
    }
    if ended(&stat) {
        let ppid = stat.ppid;
        return Err(wrong(format!("it is a zombie: it has ended, and only its parent {ppid} can remove it")));
    }
    if let Some(tracer) = number("TracerPid").filter(|t| *t != 0) {
        let by = proc::name(tracer);
        return Err(wrong(format!(
            "it is already traced by PID {tracer} ({by}); end that (a debugger: `detach`) and try again"
        )));
    }
    if !thaws && let Some((dir, remedy)) = freezer::frozen_by(pid) {
        return Err(wrong(format!("it is frozen by its cgroup {}; {remedy}", dir.display())));
    }
    Ok(name)
}

/// Bytes of memory that the process has now and no file does; 0 where that is not told.
#[must_use]
pub fn own_memory(pid: i32) -> u64 {
    let status = proc::read(&format!("/proc/{pid}/status")).unwrap_or_default();
    let size = |key| proc::size(&status, key).unwrap_or(0);
    size("RssAnon") + size("RssShmem")
}

/// Zombie or dead; a leader that has exited before its other threads is shown as a zombie, too.
fn ended(stat: &proc::Stat) -> bool {
    matches!(stat.state, b'Z' | b'X' | b'x') && stat.num_threads <= 1
}

/// Whether a process has ended (a zombie has), or is about to: killed, its memory perhaps gone already.
#[must_use]
pub fn is_gone(pid: i32) -> bool {
    let stat = proc::stat_of(&format!("/proc/{pid}"));
    let status = proc::read(&format!("/proc/{pid}/status")).unwrap_or_default();
    let killed = |key| proc::hex_field(&status, key).is_some_and(|set| set & 1 << (libc::SIGKILL - 1) != 0);
    stat.is_none_or(|stat| ended(&stat) || (stat.flags & PF_EXITING != 0 && stat.num_threads <= 1))
        || killed("SigPnd")
        || killed("ShdPnd")
}

/// Whether a process seems to have children: only its main thread is asked.
#[must_use]
pub fn has_children(pid: i32) -> bool {
    !proc::children(pid, &[pid]).is_empty()
}

/// Every process that is being traced, and the thread that traces it.
#[must_use]
pub fn traced() -> Vec<(i32, i32)> {
    let tracer_of = |pid: i32| {
        let status = proc::read(&format!("/proc/{pid}/status")).unwrap_or_default();
        let tracer = proc::field(&status, "TracerPid")?.parse().ok()?;
        (tracer != 0).then_some((pid, tracer))
    };
    proc::processes().filter_map(tracer_of).collect()
}

/// A debugger's hold on others is not part of any image: those of `traced` that the process `pid` with
/// these threads traces.
#[must_use]
pub fn tracees(pid: i32, tids: &[i32], traced: &[(i32, i32)]) -> Vec<Obstacle> {
    let its = traced.iter().filter(|(_, tracer)| tids.contains(tracer));
    its.map(|(other, _)| Obstacle {
        pid,
        what: format!("ptrace: it traces PID {other} ({})", proc::name(*other)),
        remedy: "let it detach first".into(),
        ..Obstacle::default()
    })
    .collect()
}

/// Explains why PTRACE_SEIZE failed.
#[must_use]
pub fn seize_failed(pid: i32, tid: i32, error: &io::Error) -> anyhow::Error {
    if error.raw_os_error() != Some(libc::EPERM) {
        return anyhow!("tracing thread {tid} of PID {pid}: {error}");
    }
    // A tracer may have come between the check and now.
    if let Err(error) = check(pid, true) {
        return error;
    }
    let status = proc::read(&format!("/proc/{pid}/status")).unwrap_or_default();
    let uid = |status: &str| {
        proc::field(status, "Uid").and_then(|v| v.split_whitespace().next().map(str::to_owned))
    };
    let ours = proc::read("/proc/self/status").unwrap_or_default();
    let (their_uid, our_uid) = (uid(&status), uid(&ours));
    let yama = proc::read("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let remedy =
        if their_uid != our_uid && our_uid.as_deref() != Some("0") {
            format!(
                "it belongs to user {}, you are user {}: run ckpt-dump as that user or as root",
                their_uid.unwrap_or_default(),
                our_uid.unwrap_or_default()
            )
        } else {
            match yama.trim() {
            "1" => "Yama lets only a parent trace its children (kernel.yama.ptrace_scope = 1): run ckpt-dump \
                    as root, `sysctl kernel.yama.ptrace_scope=0`, or let the program call \
                    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY)"
                .into(),
            "2" => "Yama lets only root trace (kernel.yama.ptrace_scope = 2): run ckpt-dump as root".into(),
            "3" => "Yama forbids all tracing until the next boot (kernel.yama.ptrace_scope = 3)".into(),
            _ => "it is protected (not dumpable, because it changed its user or its file is not readable; in \
                  another user namespace; or by a security policy): run ckpt-dump as root, with \
                  CAP_SYS_PTRACE"
                .to_owned(),
        }
        };
    anyhow!(Failure::NotPermitted { pid, name: proc::name(pid), remedy })
}
