//! Semaphore adjustments at exit (SEM_UNDO), which the kernel shows nowhere.
//!
//! They are found by operations that cannot succeed. The kernel performs the operations of one semop(2) in
//! order and takes all back when one cannot be done (ipc/sem.c, `perform_atomic_semop_slow`). An adjustment
//! that would leave -32768 to 32767 gives ERANGE; the last operation, which can never be done, EAGAIN. So
//! raising a semaphore by k with SEM_UNDO and lowering it by k without tells whether the adjustment can be
//! lowered by k. Nothing is left of a failed call but the kernel's (empty) list of adjustments.

use super::{Asker, SemFacts, SysvFacts};
use crate::error::Obstacle;
use crate::ptrace::{Call, Frozen};
use crate::sys::ipc::{Kind, Question, at};
use crate::sys::process::{Shared, share};
use anyhow::{Result, anyhow};
use ckpt_format::SemUndo;

/// Largest value of a semaphore (SEMVMX).
const MOST: i32 = 32767;

/// Operations for one semaphore: at most 1 to empty it, and 2 for each 32767 of an adjustment.
const OPS_EACH: usize = 5;
const OPS_SEARCH: usize = 8;

/// Builds a `struct sembuf` array.
#[derive(Default)]
struct Ops(Vec<u8>);

impl Ops {
    fn add(&mut self, number: usize, change: i32, flags: i32) {
        // No change means "wait for zero".
        if change != 0 {
            let flags = flags as i16;
            for part in [(number as u16).to_le_bytes(), (change as i16).to_le_bytes(), flags.to_le_bytes()] {
                self.0.extend_from_slice(&part);
            }
        }
    }

    /// Would change the adjustment of a semaphore by `by`; leaves its value at 0.
    fn adjust(&mut self, number: usize, value: u16, by: i32) {
        self.add(number, -i32::from(value), 0);
        let mut rest = by;
        while rest != 0 {
            let step = rest.clamp(-MOST, MOST);
            if step < 0 {
                self.add(number, -step, libc::SEM_UNDO);
                self.add(number, step, 0);
            } else {
                self.add(number, step, 0);
                self.add(number, -step, libc::SEM_UNDO);
            }
            rest -= step;
        }
    }

    fn len(&self) -> usize {
        self.0.len() / 6
    }
}

/// What a failed call said.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    InRange,
    OutOfRange,
    /// The process may not operate on the set; what it once did is out of its reach, too.
    Forbidden,
}

fn say(target: &mut Frozen, tid: i32, id: i32, mut ops: Ops) -> Result<Said> {
    ops.add(0, -MOST - 1, libc::IPC_NOWAIT);
    let scratch = target.scratch()?;
    target.write(scratch.addr, &ops.0)?;
    let call = Call::new(libc::SYS_semop, &[id as u64, scratch.addr.0, ops.len() as u64]);
    match i32::try_from(-target.batch_in(tid, &[call])?[0]) {
        Ok(libc::EAGAIN) => Ok(Said::InRange),
        Ok(libc::ERANGE) => Ok(Said::OutOfRange),
        Ok(libc::EACCES) => Ok(Said::Forbidden),
        Ok(errno) => Err(anyhow!(std::io::Error::from_raw_os_error(errno))
            .context(format!("asking for adjustments of the semaphores with id {id}"))),
        Err(_) => Err(anyhow!("the semaphores with id {id} did what is impossible")),
    }
}

/// Finds the adjustments of all tasks to all sets.
pub fn collect(asker: &mut Asker<'_>, facts: &mut SysvFacts) -> Result<()> {
    if facts.sems.is_empty() {
        return Ok(());
    }
    let most = asker.ask(Question::Info(Kind::Sem))?.small(at::SEM_MOST_OPS) as usize;
    if most < OPS_SEARCH {
        facts.obstacles.push(Obstacle {
            pid: asker.tasks.first().map_or(0, |t| t.pid),
            what: format!("System V semaphores: kernel.sem allows {most} operations in a call only"),
            remedy: "raise its third number to 8 or more".into(),
            ..Obstacle::default()
        });
        return Ok(());
    }
    let chunk = ((most - 1) / OPS_EACH).clamp(1, 64);
    // Those that have adjustments: ids as we see them.
    let mut having: Vec<i32> = Vec::new();
    for target in asker.targets.iter_mut() {
        let leader = target.pid();
        let own = asker.tasks.iter().find(|t| t.pid == leader);
        let pid = own.map_or(leader, |t| t.process.own_pid);
        let found = of_thread(target, leader, &facts.sems, chunk)?;
        for tid in target.tids() {
            // Where the leader has a list; Linux without kcmp(2) does not tell.
            let apart = tid != leader && !share(leader, tid, Shared::SemaphoreUndo).unwrap_or(true);
            if apart && !of_thread(target, tid, &facts.sems, chunk)?.is_empty() {
                facts.obstacles.push(Obstacle {
                    pid: leader,
                    what: format!("thread {tid}: semaphore adjustments of its own (unshare(CLONE_SYSVSEM))"),
                    remedy: "end that thread before the dump".into(),
                    ..Obstacle::default()
                });
            }
        }
        if found.is_empty() {
            continue;
        }
        let with = having.iter().find(|h| share(**h, leader, Shared::SemaphoreUndo).unwrap_or(false));
        if let Some(with) = with {
            facts.obstacles.push(Obstacle {
                pid: leader,
                what: format!("semaphore adjustments shared with PID {with} (CLONE_SYSVSEM)"),
                remedy: "end one of them before the dump".into(),
                ..Obstacle::default()
            });
        }
        having.push(leader);
        facts.undos.extend(found.into_iter().map(|undo| SemUndo { pid, ..undo }));
    }
    Ok(())
}

/// The adjustments that a thread has (usually with all others of its process).
fn of_thread(target: &mut Frozen, tid: i32, sets: &[SemFacts], chunk: usize) -> Result<Vec<SemUndo>> {
    let mut found = Vec::new();
    for (index, set) in sets.iter().enumerate() {
        let numbers: Vec<usize> = (0..set.values.len()).collect();
        for some in numbers.chunks(chunk) {
            match any(target, tid, set.perm.id, &set.values, some)? {
                Said::InRange => continue,
                Said::Forbidden => break,
                Said::OutOfRange => {}
            }
            for &number in some {
                let adjustment = find(target, tid, set.perm.id, number, set.values[number])?;
                if adjustment != 0 {
                    let (set, number) = (index as u32, number as u32);
                    found.push(SemUndo { pid: 0, set, number, adjustment });
                }
            }
        }
    }
    Ok(found)
}

/// In range: none of these has an adjustment.
fn any(target: &mut Frozen, tid: i32, id: i32, values: &[u16], numbers: &[usize]) -> Result<Said> {
    for by in [-MOST - 1, MOST] {
        let mut ops = Ops::default();
        for &number in numbers {
            ops.adjust(number, values[number], by);
        }
        let said = say(target, tid, id, ops)?;
        if said != Said::InRange {
            return Ok(said);
        }
    }
    Ok(Said::InRange)
}

/// By how much it can be lowered tells what it is.
fn find(target: &mut Frozen, tid: i32, id: i32, number: usize, value: u16) -> Result<i32> {
    let (mut low, mut high) = (0, 2 * MOST + 1);
    while low < high {
        let middle = (low + high + 1) / 2;
        let mut ops = Ops::default();
        ops.adjust(number, value, -middle);
        if say(target, tid, id, ops)? == Said::InRange {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low - MOST - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_out_even() {
        for by in [-32768, -5, 1, 32767, -65535] {
            let mut ops = Ops::default();
            ops.adjust(3, 9, by);
            let parts = ops.0.chunks_exact(6).map(|op| {
                let word = |at: usize| i32::from(i16::from_le_bytes([op[at], op[at + 1]]));
                assert_eq!(word(0), 3);
                (word(2), word(4))
            });
            let (mut value, mut adjustment) = (9, 0);
            for (change, flags) in parts {
                value += change;
                adjustment -= if flags == libc::SEM_UNDO { change } else { 0 };
                assert!((0..=MOST).contains(&value));
            }
            assert_eq!((value, adjustment), (0, by));
            assert!(ops.len() < OPS_SEARCH);
        }
    }
}
