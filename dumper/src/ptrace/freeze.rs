//! Stopping every thread of a process.

use super::tracee::{Outcome, Running, Stopped, Tracee};
use crate::error::{Failure, Obstacle};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a thread may take to stop. Those in uninterruptible sleep (disk, NFS, vfork) take as
/// long as they sleep.
const PATIENCE: Duration = Duration::from_secs(5);

/// Threads that were stopped, by id; and what stands in the way of more.
pub struct Threads {
    pub stopped: Vec<Tracee<Stopped>>,
    pub obstacles: Vec<Obstacle>,
}

/// Stops all threads: seize those that exist, stop them, look for new ones, until there are none.
/// This ends, because only threads that are not stopped yet can start others.
///
/// # Errors
/// [`Failure`] for what has an exit status of its own. Threads stopped so far run on.
pub fn freeze(pid: i32) -> Result<Threads> {
    let mut stopped: BTreeMap<i32, Tracee<Stopped>> = BTreeMap::new();
    let mut busy: Vec<Tracee<Running>> = Vec::new();
    let mut zombie_leader = false;
    loop {
        let tids = list(pid)?;
        stopped.retain(|tid, _| tids.contains(tid));
        let mut fresh = Vec::new();
        for tid in tids {
            let known = stopped.contains_key(&tid) || busy.iter().any(|t| t.tid() == tid);
            if known || (tid == pid && zombie_leader) {
                continue;
            }
            match Tracee::seize(pid, tid) {
                Ok(tracee) => fresh.push(tracee),
                Err(error) if is_dead(pid, tid) => {
                    zombie_leader |= tid == pid;
                    log_gone(tid, &error);
                }
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => log_gone(tid, &error),
                Err(error) => return Err(crate::preflight::seize_failed(pid, tid, &error)),
            }
        }
        if fresh.is_empty() {
            break;
        }
        crate::failpoint::hit("after-seize")?;
        fresh.iter().for_each(Tracee::interrupt);
        let deadline = Instant::now() + PATIENCE;
        for tracee in fresh {
            let tid = tracee.tid();
            match tracee.stopped(deadline)? {
                Outcome::Stopped(tracee) => drop(stopped.insert(tid, tracee)),
                Outcome::Gone => {}
                Outcome::Busy(tracee) => busy.push(tracee),
            }
        }
    }
    if stopped.is_empty() && busy.is_empty() {
        bail!(Failure::Vanished(pid));
    }
    Ok(Threads { obstacles: obstacles(pid, &busy, zombie_leader), stopped: leader_first(pid, stopped) })
}

fn leader_first(pid: i32, mut stopped: BTreeMap<i32, Tracee<Stopped>>) -> Vec<Tracee<Stopped>> {
    let leader = stopped.remove(&pid);
    leader.into_iter().chain(stopped.into_values()).collect()
}

fn obstacles(pid: i32, busy: &[Tracee<Running>], zombie_leader: bool) -> Vec<Obstacle> {
    let mut obstacles: Vec<_> = busy
        .iter()
        .map(|t| Obstacle {
            pid,
            what: format!("thread {}: in uninterruptible sleep for {} s", t.tid(), PATIENCE.as_secs()),
            remedy: format!(
                "wait until its operation (see /proc/{pid}/task/{}/stack) has ended: \
                 a vfork() child must call exec, a device or network file system must answer",
                t.tid()
            ),
        })
        .collect();
    if zombie_leader {
        obstacles.push(Obstacle {
            pid,
            what: "main thread: has exited while other threads run on".into(),
            remedy: "a process without its main thread cannot be saved yet".into(),
        });
    }
    obstacles
}

fn list(pid: i32) -> Result<Vec<i32>> {
    let path = format!("/proc/{pid}/task");
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => bail!(Failure::Vanished(pid)),
        Err(e) => return Err(e).with_context(|| format!("listing {path}")),
    };
    Ok(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
}

/// Zombie or dead: PTRACE_SEIZE gives EPERM for these.
fn is_dead(pid: i32, tid: i32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/task/{tid}/stat"));
    let stat = stat.ok().and_then(|s| crate::collect::proc::stat(&s));
    stat.is_none_or(|s| matches!(s.state, b'Z' | b'X' | b'x'))
}

fn log_gone(tid: i32, error: &std::io::Error) {
    crate::report::debug(|| format!("thread {tid} ended while it was being stopped ({error})"));
}
