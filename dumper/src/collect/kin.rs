//! What a parent knows, or is still to learn, of its children: asked in the parent itself, by a
//! waitid(2) that takes nothing away.

use super::children::Children;
use super::{TaskFacts, proc};
use crate::ptrace::{Call, Frozen, FrozenTree};
use anyhow::{Context, Result, bail};
use std::collections::HashMap;

/// A process that has ended, for which its parent has not waited yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZombieFacts {
    pub pid: i32,
    /// Ids in its own pid namespace.
    pub own_pid: i32,
    pub pgid: i32,
    pub sid: i32,
    /// Parent, group and session as we see them.
    pub ppid: i32,
    pub seen_pgid: i32,
    pub seen_sid: i32,
    /// Position among the children of its parent.
    pub rank: usize,
    pub name: String,
    pub exit_signal: i32,
    /// As wait(2) returns it.
    pub status: i32,
}

/// Size of a `siginfo_t`; offsets in one of a child.
const SIGINFO: usize = 128;
const SI_CODE: usize = 8;
const SI_PID: usize = 16;
const SI_STATUS: usize = 24;

/// Looks at the zombies of the tree, and at who knows of which stop.
///
/// # Errors
/// When a process died, or what must be known cannot be.
pub fn collect(
    tree: &mut FrozenTree,
    tasks: &mut [TaskFacts],
    children: &mut Children,
) -> Result<Vec<ZombieFacts>> {
    let mut zombies = tree.zombies.iter().map(|z| look_at(z.pid)).collect::<Result<Vec<_>>>()?;
    let tasks_by_pid: HashMap<i32, usize> = tasks.iter().enumerate().map(|(i, t)| (t.pid, i)).collect();
    let zombies_by_pid: HashMap<i32, usize> = zombies.iter().enumerate().map(|(i, z)| (z.pid, i)).collect();
    for parent in &mut tree.live {
        let listed = children.of(parent.pid(), &parent.tids());
        for (rank, pid) in listed.into_iter().enumerate() {
            if let Some(task) = tasks_by_pid.get(&pid) {
                tasks[*task].rank = rank;
            } else if let Some(zombie) = zombies_by_pid.get(&pid) {
                zombies[*zombie].rank = rank;
            }
        }
        let living = (1..tasks.len()).filter(|t| tasks[*t].process.ppid == parent.pid()).collect();
        let ended: Vec<usize> = (0..zombies.len()).filter(|z| zombies[*z].ppid == parent.pid()).collect();
        statuses(parent, &mut zombies, &ended)?;
        stops(parent, tasks, living)?;
    }
    Ok(zombies)
}

/// Wait statuses of those zombies that are the parent's.
fn statuses(parent: &mut Frozen, zombies: &mut [ZombieFacts], own: &[usize]) -> Result<()> {
    let pids: Vec<i32> = own.iter().map(|z| zombies[*z].own_pid).collect();
    for (index, answer) in own.iter().zip(ask(parent, &pids, libc::WEXITED)?) {
        let zombie = &mut zombies[*index];
        let (pid, whose) = (zombie.pid, parent.pid());
        let Some((code, status)) = answer else {
            bail!("the status of the zombie {pid} ({}) cannot be had from its parent {whose}", zombie.name);
        };
        zombie.status = wait_status(code, status);
    }
    Ok(())
}

/// Of which stops and continuations of its living children the parent has not been told.
fn stops(parent: &mut Frozen, tasks: &mut [TaskFacts], own: Vec<usize>) -> Result<()> {
    let (stopped, running): (Vec<usize>, Vec<usize>) =
        own.into_iter().partition(|t| tasks[*t].process.stopped_by.is_some());
    let pids = |of: &[usize]| -> Vec<i32> { of.iter().map(|t| tasks[*t].process.own_pid).collect() };
    let (of_stopped, of_running) = (pids(&stopped), pids(&running));
    for (task, answer) in stopped.into_iter().zip(ask(parent, &of_stopped, libc::WSTOPPED)?) {
        tasks[task].stop_reported = answer.is_none();
    }
    for (task, answer) in running.into_iter().zip(ask(parent, &of_running, libc::WCONTINUED)?) {
        tasks[task].unseen_continue = answer.is_some();
    }
    Ok(())
}

fn look_at(pid: i32) -> Result<ZombieFacts> {
    let raw =
        proc::bytes(&format!("/proc/{pid}/stat")).with_context(|| format!("reading /proc/{pid}/stat"))?;
    let stat = proc::stat(&raw).with_context(|| format!("/proc/{pid}/stat is not understood"))?;
    let status = proc::read(&format!("/proc/{pid}/status"))?;
    let own = |key, seen| proc::own_id(&status, key).unwrap_or(seen);
    Ok(ZombieFacts {
        pid,
        own_pid: own("NSpid", pid),
        pgid: own("NSpgid", stat.pgrp),
        sid: own("NSsid", stat.session),
        ppid: stat.ppid,
        seen_pgid: stat.pgrp,
        seen_sid: stat.session,
        name: stat.comm,
        exit_signal: stat.exit_signal,
        ..ZombieFacts::default()
    })
}

/// For each child what waitid(2) would return: `si_code` and `si_status`; `None` for nothing.
fn ask(parent: &mut Frozen, children: &[i32], what: i32) -> Result<Vec<Option<(i32, i32)>>> {
    let mut answers = Vec::new();
    if children.is_empty() {
        return Ok(answers);
    }
    let scratch = parent.scratch()?;
    let options = (what | libc::WNOHANG | libc::WNOWAIT | libc::__WALL) as u64;
    for children in children.chunks(scratch.len as usize / SIGINFO) {
        let call = |(i, child): (usize, &i32)| {
            let info = scratch.addr.offset((i * SIGINFO) as u64);
            Call::new(libc::SYS_waitid, &[libc::P_PID.into(), *child as u64, info.0, options, 0])
        };
        let calls: Vec<Call> = children.iter().enumerate().map(call).collect();
        let results = parent.batch(&calls)?;
        let mut bytes = vec![0; children.len() * SIGINFO];
        parent.read(scratch.addr, &mut bytes)?;
        for ((result, info), child) in results.into_iter().zip(bytes.chunks_exact(SIGINFO)).zip(children) {
            super::check_call(result, || format!("waitid for {child} in PID {}", parent.pid()))?;
            let word = |at: usize| i32::from_le_bytes(info[at..at + 4].try_into().unwrap_or_default());
            answers.push((word(SI_PID) != 0).then(|| (word(SI_CODE), word(SI_STATUS))));
        }
    }
    Ok(answers)
}

/// The status of wait(2) from what waitid(2) says.
fn wait_status(code: i32, status: i32) -> i32 {
    const CORE_DUMPED: i32 = 0x80;
    match code {
        libc::CLD_KILLED => status,
        libc::CLD_DUMPED => status | CORE_DUMPED,
        _ => (status & 0xff) << 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_wait() {
        assert_eq!(libc::WEXITSTATUS(wait_status(libc::CLD_EXITED, 3)), 3);
        assert!(libc::WIFEXITED(wait_status(libc::CLD_EXITED, 0)));
        assert_eq!(libc::WTERMSIG(wait_status(libc::CLD_KILLED, libc::SIGTERM)), libc::SIGTERM);
        let core = wait_status(libc::CLD_DUMPED, libc::SIGSEGV);
        assert!(libc::WCOREDUMP(core) && libc::WTERMSIG(core) == libc::SIGSEGV);
    }
}
