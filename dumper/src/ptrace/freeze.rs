//! Stopping every thread of a process.

use super::frozen;
use super::restart;
use super::tracee::{Outcome, Running, Stopped, Tracee};
use super::wait;
use crate::collect::proc;
use crate::error::{Failure, Obstacle};
use crate::sys::dir::Dir;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

/// How long a thread may take to stop. Those in uninterruptible sleep (disk, NFS, vfork) take as
/// long as they sleep.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often, in all, threads may be let out of the vDSO: some 20 us each.
const NUDGES: u32 = 500;

/// How many threads are asked to stop at the same time: while one does, another can be dealt with.
const AT_A_TIME: usize = 4;

/// Threads that were stopped, by id; and what stands in the way of more.
pub struct Threads {
    pub stopped: Vec<Tracee<Stopped>>,
    pub obstacles: Vec<Obstacle>,
}

/// Threads that we trace, and that run on until their turn comes.
#[derive(Debug)]
pub struct Seized {
    /// By id.
    threads: HashMap<i32, Tracee<Running>>,
    /// What they start is traced from its birth on.
    follow: bool,
}

impl Seized {
    /// None yet. With `follow`, what they start will be traced from its birth on.
    pub fn new(follow: bool) -> Self {
        Self { threads: HashMap::new(), follow }
    }

    /// Traces all threads of a process that are not traced yet, without stopping any. Returns the
    /// threads, and whether there were any new ones; `None` for a process that cannot be traced: [`freeze`]
    /// will tell why.
    pub fn seize(&mut self, pid: i32) -> Option<(Vec<i32>, bool)> {
        let before = self.threads.len();
        // At once: it may not live long enough to be looked at.
        if !self.threads.contains_key(&pid) && !self.seize_thread(pid, pid) && !is_ours(pid, pid) {
            return None;
        }
        let tids = list(pid).unwrap_or_default();
        let dir = Dir::open(&format!("/proc/{pid}/task")).ok();
        for &tid in tids.iter().filter(|tid| **tid != pid) {
            if !self.threads.contains_key(&tid) && kernel_worker(dir.as_ref(), pid, tid).is_none() {
                self.seize_thread(pid, tid);
            }
        }
        Some((tids, self.threads.len() > before))
    }

    fn seize_thread(&mut self, pid: i32, tid: i32) -> bool {
        let seized = Tracee::seize(pid, tid, self.follow);
        seized.map(|tracee| self.threads.insert(tid, tracee)).is_ok()
    }

    fn take(&mut self, pid: i32, tid: i32) -> io::Result<Tracee<Running>> {
        if let Some(tracee) = self.threads.remove(&tid) {
            return Ok(tracee);
        }
        match Tracee::seize(pid, tid, self.follow) {
            Err(_) if self.follow && is_ours(pid, tid) => Ok(Tracee::adopt(pid, tid)),
            result => result,
        }
    }
}

/// We trace it already.
fn is_ours(pid: i32, tid: i32) -> bool {
    let status = proc::read(&format!("/proc/{pid}/task/{tid}/status")).unwrap_or_default();
    let us = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    let us = us.file_name().and_then(|n| n.to_str()).unwrap_or("?");
    proc::field(&status, "TracerPid") == Some(us)
}

/// Stops all threads: seize those that exist, stop them, look for new ones, until there are none.
/// This ends, because only threads that are not stopped yet can start others.
///
/// # Errors
/// [`Failure`] for what has an exit status of its own. Threads stopped so far run on.
pub fn freeze(pid: i32, seized: &mut Seized) -> Result<Threads> {
    let mut stopped: BTreeMap<i32, Tracee<Stopped>> = BTreeMap::new();
    let mut busy: Vec<Tracee<Running>> = Vec::new();
    let mut workers: BTreeMap<i32, String> = BTreeMap::new();
    let mut zombie_leader = false;
    let mut nudges = NUDGES;
    loop {
        let tids = list(pid)?;
        let there: HashSet<i32> = tids.iter().copied().collect();
        stopped.retain(|tid, _| there.contains(tid));
        // Gone if the process is.
        let dir = Dir::open(&format!("/proc/{pid}/task")).ok();
        let mut fresh = Vec::new();
        for tid in tids {
            let known = stopped.contains_key(&tid)
                || workers.contains_key(&tid)
                || busy.iter().any(|t| t.tid() == tid);
            if known || (tid == pid && zombie_leader) {
                continue;
            }
            if let Some(name) = kernel_worker(dir.as_ref(), pid, tid) {
                workers.insert(tid, name);
                continue;
            }
            match seized.take(pid, tid) {
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
            if nudge_out(pid, &mut stopped, &mut busy, &mut nudges)? {
                continue;
            }
            break;
        }
        crate::failpoint::hit("after-seize")?;
        let mut fresh = fresh.into_iter();
        loop {
            // A few at a time: `stopped` at once repairs what the stop did to the thread's system call,
            // which nobody would should we be killed before.
            let some: Vec<Tracee<Running>> = fresh.by_ref().take(AT_A_TIME).collect();
            if some.is_empty() {
                break;
            }
            some.iter().for_each(Tracee::interrupt);
            for tracee in some {
                let tid = tracee.tid();
                match stop(tracee)? {
                    Outcome::Stopped(tracee) => drop(stopped.insert(tid, tracee)),
                    Outcome::Gone => {}
                    Outcome::Busy(tracee) => busy.push(tracee),
                }
            }
        }
    }
    if stopped.is_empty() && busy.is_empty() {
        bail!(Failure::Vanished(pid));
    }
    let mut obstacles = obstacles(pid, &busy, zombie_leader);
    obstacles.extend(workers.into_iter().map(|(tid, name)| Obstacle {
        pid,
        what: format!("thread {tid} ({name}): works in the kernel for io_uring or vhost"),
        remedy: "run the program without io_uring (node and libuv: UV_USE_IO_URING=0)".into(),
        ..Obstacle::default()
    }));
    Ok(Threads { obstacles, stopped: leader_first(pid, stopped) })
}

/// Waits for the stop of a thread. Meanwhile it notes which others end: a thread that calls execve first
/// kills all others, also those that it has only just made and that we trace from birth, and waits until
/// their tracer knows (`de_thread` in fs/exec.c). And it asks again: of a thread in execve the first
/// request can get lost (seen on 6.18).
fn stop(mut tracee: Tracee<Running>) -> Result<Outcome> {
    const SLICE: Duration = Duration::from_millis(5);
    const SLICES_PER_REQUEST: u32 = 20;
    let deadline = Instant::now() + PATIENCE;
    let tid = tracee.tid();
    for slice in 1.. {
        match tracee.stopped(deadline.min(Instant::now() + SLICE))? {
            Outcome::Busy(busy) if Instant::now() < deadline => {
                reap_others(busy.pid(), tid);
                // One that has just stopped must not find another request when it goes on.
                if slice % SLICES_PER_REQUEST == 0 && state(tid).is_some_and(|s| s != b't') {
                    busy.interrupt();
                }
                tracee = busy;
            }
            outcome => return Ok(outcome),
        }
    }
    Ok(Outcome::Busy(tracee))
}

/// Takes note of the end of any thread of ours in that process but `tid`.
pub fn reap_others(pid: i32, tid: i32) {
    let others = list(pid).unwrap_or_default();
    others.into_iter().filter(|other| *other != tid).for_each(wait::reap);
}

/// State letter of a thread.
fn state(tid: i32) -> Option<u8> {
    proc::stat_of(&format!("/proc/{tid}")).map(|s| s.state)
}

/// Lets threads run for a moment that were stopped where they should not be: inside the vDSO, so that
/// the image does not depend on its code; or on their way back from a call for a ckpt-dump that was
/// killed just before, in memory that we shall use again. They are not stepped: a thread whose tracer
/// dies between two steps is killed by SIGTRAP. One that never leaves the vDSO stays there; the stub
/// then keeps the old code for it. Tells whether any ran, and may thus have started others.
fn nudge_out(
    pid: i32,
    stopped: &mut BTreeMap<i32, Tracee<Stopped>>,
    busy: &mut Vec<Tracee<Running>>,
    nudges: &mut u32,
) -> Result<bool> {
    let in_user_mode = |t: &Tracee<Stopped>| {
        !t.is_compat() && !restart::is_restarting(t.regs()) && t.held_signal().is_none()
    };
    if *nudges == 0 || !stopped.values().any(in_user_mode) {
        return Ok(false);
    }
    let maps = proc::read(&format!("/proc/{pid}/maps"))?;
    let vdso = proc::mapping(&maps, "[vdso]");
    let places: Vec<_> = vdso.into_iter().chain(frozen::left_behind(pid, &maps)).collect();
    let inside = |t: &Tracee<Stopped>| in_user_mode(t) && places.iter().any(|p| p.contains(&t.regs().rip));
    let tids: Vec<i32> = stopped.values().filter(|t| inside(t)).map(Tracee::tid).collect();
    for tid in &tids {
        while *nudges > 0
            && let Some(tracee) = stopped.remove(tid)
        {
            if !inside(&tracee) {
                stopped.insert(*tid, tracee);
                break;
            }
            let running = tracee.run_on()?;
            // Different each time, lest we meet a loop at the same place again and again.
            let wait = Duration::from_micros(5 + u64::from(*nudges % 13) * 3);
            let start = Instant::now();
            while start.elapsed() < wait {
                std::hint::spin_loop();
            }
            *nudges -= 1;
            running.interrupt();
            match stop(running)? {
                Outcome::Stopped(tracee) => drop(stopped.insert(*tid, tracee)),
                Outcome::Gone => {}
                Outcome::Busy(tracee) => busy.push(tracee),
            }
        }
    }
    Ok(!tids.is_empty())
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
            ..Obstacle::default()
        })
        .collect();
    if zombie_leader {
        obstacles.push(Obstacle {
            pid,
            what: "main thread: has exited while other threads run on".into(),
            remedy: "a process without its main thread cannot be saved yet".into(),
            ..Obstacle::default()
        });
    }
    obstacles
}

pub fn list(pid: i32) -> Result<Vec<i32>> {
    let path = format!("/proc/{pid}/task");
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => bail!(Failure::Vanished(pid)),
        Err(e) => return Err(e).with_context(|| format!("listing {path}")),
    };
    Ok(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
}

/// The name of a thread that never returns to user mode, and thus does nothing for us.
fn kernel_worker(tasks: Option<&Dir>, pid: i32, tid: i32) -> Option<String> {
    // include/linux/sched.h. The latter meant something else before Linux 6.4.
    const PF_IO_WORKER: u64 = 0x10;
    const PF_USER_WORKER: u64 = 0x4000;
    if tid == pid {
        return None;
    }
    let stat = proc::stat(&proc::once(tasks?.file(format_args!("{tid}/stat")).ok()?).ok()?)?;
    let named = stat.comm.starts_with("vhost-") || stat.comm.starts_with("iou-");
    let is_worker = stat.flags & PF_IO_WORKER != 0 || (stat.flags & PF_USER_WORKER != 0 && named);
    is_worker.then_some(stat.comm)
}

/// Zombie or dead: PTRACE_SEIZE gives EPERM for these.
fn is_dead(pid: i32, tid: i32) -> bool {
    let stat = proc::stat_of(&format!("/proc/{pid}/task/{tid}"));
    stat.is_none_or(|s| matches!(s.state, b'Z' | b'X' | b'x'))
}

fn log_gone(tid: i32, error: &std::io::Error) {
    crate::report::debug(|| format!("thread {tid} ended while it was being stopped ({error})"));
}
