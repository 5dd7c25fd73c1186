//! System V shared memory, semaphores and message queues that belong to the processes: what they have
//! attached, operated on last, or wait for; all there is in an IPC namespace of their own.
//!
//! In our own IPC namespace we ask ourselves, as far as we may; else the target asks for us.

mod contents;
mod undo;

use super::memory::smaps::Entry;
use super::{HostFacts, TaskFacts, creds, proc};
use crate::error::Obstacle;
use crate::ptrace::{Call, Frozen};
use crate::sys::ipc::{Kind, Question, at};
use anyhow::{Context, Result};
use ckpt_format::{IpcPerm, SemUndo};
use std::collections::BTreeSet;

/// What belongs to the processes.
#[derive(Clone, Debug, Default)]
pub struct SysvFacts {
    /// They are in another IPC namespace than we are.
    pub own_namespace: bool,
    pub shms: Vec<ShmFacts>,
    pub sems: Vec<SemFacts>,
    pub msgs: Vec<MsgFacts>,
    /// `set` is an index in `sems`.
    pub undos: Vec<SemUndo>,
    pub obstacles: Vec<Obstacle>,
}

/// A segment.
#[derive(Clone, Debug, Default)]
pub struct ShmFacts {
    pub perm: IpcPerm,
    pub size: u64,
    /// Its contents by offset, where nobody maps all of it and we have no handle.
    pub contents: Option<Pieces>,
}

/// Bytes with their offsets.
pub type Pieces = Vec<(u64, Vec<u8>)>;

/// A set of semaphores.
#[derive(Clone, Debug, Default)]
pub struct SemFacts {
    pub perm: IpcPerm,
    pub values: Vec<u16>,
    /// As the target sees them.
    pub pids: Vec<i32>,
}

/// A message queue.
#[derive(Clone, Debug, Default)]
pub struct MsgFacts {
    pub perm: IpcPerm,
    pub qbytes: u64,
    /// Type and text, oldest first.
    pub messages: Vec<(i64, Vec<u8>)>,
}

/// The id of the segment that a mapping shows, if it looks like one.
#[must_use]
pub fn segment(entry: &Entry) -> Option<i32> {
    let key = entry.path.strip_prefix(b"/SYSV")?.strip_suffix(b" (deleted)")?;
    let hex = key.len() == 8 && key.iter().all(u8::is_ascii_hexdigit);
    // On a file system of the kernel's own.
    (entry.shared && hex && entry.dev.0 == 0).then_some(entry.ino as i32)
}

/// An answer: the result of the call, the bytes, and whether the target asked, which sees ids of
/// processes in its own way.
struct Answer {
    result: i64,
    bytes: Vec<u8>,
    there: bool,
}

impl Answer {
    fn number(&self, offset: usize) -> u64 {
        self.bytes.get(offset..offset + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or_default()))
    }

    fn small(&self, offset: usize) -> u32 {
        self.number(offset) as u32
    }

    fn perm(&self, id: i32) -> IpcPerm {
        IpcPerm {
            id,
            key: self.small(at::KEY) as i32,
            mode: self.small(at::MODE) & 0o7777,
            uid: self.small(at::UID),
            gid: self.small(at::GID),
            cuid: self.small(at::CUID),
            cgid: self.small(at::CGID),
            reserved: 0,
        }
    }
}

/// Who asks, and whose things are looked for.
struct Asker<'a> {
    targets: &'a mut [Frozen],
    tasks: &'a [TaskFacts],
    own_namespace: bool,
    /// The target may do more than we may: it has other ids, or capabilities.
    more_rights: bool,
    /// When each task began, in seconds since the epoch.
    began: Vec<u64>,
}

impl Asker<'_> {
    fn ask(&mut self, question: Question) -> Result<Answer> {
        if !self.own_namespace {
            let (result, bytes) = question.ask();
            if result != -i64::from(libc::EACCES) || !self.more_rights {
                return Ok(Answer { result, bytes, there: false });
            }
        }
        let target = self.targets.first_mut().context("no process is stopped")?;
        let scratch = target.scratch()?;
        let room = question.room();
        if room as u64 > scratch.len {
            return Ok(Answer { result: -i64::from(libc::E2BIG), bytes: Vec::new(), there: true });
        }
        let (number, args) = question.call(scratch.addr.0);
        let result = target.batch(&[Call::new(number, &args)])?[0];
        let mut bytes = vec![0; room];
        target.read(scratch.addr, &mut bytes)?;
        Ok(Answer { result, bytes, there: true })
    }

    /// The task with an id, if it was there already at the last of these times: ids are used again.
    fn task(&self, pid: i32, there: bool, last: u64) -> Option<&TaskFacts> {
        let id = |task: &TaskFacts| if there { task.process.own_pid } else { task.pid };
        let mut all = self.tasks.iter().zip(&self.began);
        // The clock ticks in hundredths, records count in seconds.
        all.find(|(task, began)| pid != 0 && id(task) == pid && last + 2 >= **began).map(|(task, _)| task)
    }

    /// Whether any of the tasks was there already at that time.
    fn any_was_there(&self, last: u64) -> bool {
        self.began.iter().any(|began| last + 2 >= *began)
    }

    /// Ids of all objects of a kind, with their records.
    fn list(&mut self, kind: Kind) -> Result<Vec<(i32, Answer)>> {
        let highest = self.ask(Question::Info(kind))?.result;
        let mut found = Vec::new();
        for index in 0..=highest {
            let answer = self.ask(Question::Index(kind, index as i32))?;
            if let Ok(id @ 0..) = i32::try_from(answer.result) {
                found.push((id, answer));
            }
        }
        Ok(found)
    }

    /// Ids that a thread waits for in one of these calls.
    fn waited_for(&self, calls: &[i64]) -> BTreeSet<i32> {
        let threads = self.targets.iter().flat_map(|t| t.threads());
        let waiting = threads.filter(|t| calls.contains(&(t.regs().orig_rax as i64)));
        waiting.map(|t| t.regs().rdi as i32).collect()
    }
}

/// Observes what belongs to the stopped processes `targets`, which are the living ones of `tasks`.
///
/// # Errors
/// When a target died.
pub fn collect(targets: &mut [Frozen], tasks: &[TaskFacts], host: &HostFacts) -> Result<SysvFacts> {
    let Some(root) = targets.first().map(Frozen::pid) else { return Ok(SysvFacts::default()) };
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/ipc")).ok();
    let theirs = namespace(&root.to_string());
    // Neither can be read where /proc hides it; then nothing is known to differ.
    let own_namespace = theirs.is_some() && theirs != namespace("self");
    let mut facts = SysvFacts { own_namespace, ..SysvFacts::default() };
    for target in targets.iter().skip(1) {
        if namespace(&target.pid().to_string()) != theirs {
            facts.obstacles.push(Obstacle {
                pid: target.pid(),
                what: "namespaces: it has another IPC namespace than the first process".into(),
                remedy: "dump it on its own".into(),
                ..Obstacle::default()
            });
        }
    }
    let began = tasks.iter().map(|task| began(task.pid, host)).collect();
    let ours = creds::parse(&proc::read("/proc/self/status").unwrap_or_default());
    let theirs = tasks.first().and_then(|t| t.threads.first()).map(|t| &t.creds);
    let more_rights = theirs.is_some_and(|t| {
        (t.uid[1], t.gid[1], &t.groups) != (ours.uid[1], ours.gid[1], &ours.groups) || t.cap_effective != 0
    });
    let mut asker = Asker { targets, tasks, own_namespace: facts.own_namespace, more_rights, began };
    memory(&mut asker, &mut facts)?;
    semaphores(&mut asker, &mut facts)?;
    queues(&mut asker, &mut facts)?;
    undo::collect(&mut asker, &mut facts)?;
    Ok(facts)
}

/// When a process began, in seconds since the epoch.
fn began(pid: i32, host: &HostFacts) -> u64 {
    let stat = proc::read(&format!("/proc/{pid}/stat")).unwrap_or_default();
    // Field 22, in ticks of 10 ms since the boot; the name before may contain anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = fields.split_whitespace().nth(19).and_then(|n| n.parse().ok()).unwrap_or(0);
    (host.time_realtime.saturating_sub(host.time_boottime) + ticks * 10_000_000) / 1_000_000_000
}

fn memory(asker: &mut Asker<'_>, facts: &mut SysvFacts) -> Result<()> {
    let vmas = asker.tasks.iter().flat_map(|t| &t.mm.vmas);
    let attached: BTreeSet<i32> = vmas.filter_map(|v| segment(&v.shown)).collect();
    for (id, answer) in asker.list(Kind::Shm)? {
        let last = at::SHM_TIMES.iter().map(|t| answer.number(*t)).max().unwrap_or(0);
        let mut pids = at::SHM_PIDS.iter().map(|p| answer.small(*p) as i32);
        // What others have attached and we have not is theirs.
        let idle = answer.number(at::SHM_ATTACHED) == 0;
        let ours = idle && pids.any(|pid| asker.task(pid, answer.there, last).is_some());
        if attached.contains(&id) || ours || facts.own_namespace {
            let (perm, size) = (answer.perm(id), answer.number(at::SHM_SIZE));
            let contents = contents::collect(asker, id, size)?;
            facts.shms.push(ShmFacts { perm, size, contents });
        }
    }
    Ok(())
}

fn semaphores(asker: &mut Asker<'_>, facts: &mut SysvFacts) -> Result<()> {
    let waited_for = asker.waited_for(&[libc::SYS_semop, libc::SYS_semtimedop]);
    for (id, answer) in asker.list(Kind::Sem)? {
        let last = at::SEM_TIMES.iter().map(|t| answer.number(*t)).max().unwrap_or(0);
        let count = answer.number(at::SEM_COUNT) as usize;
        let mut pids = Vec::with_capacity(count);
        let mut ours = facts.own_namespace || waited_for.contains(&id);
        // Ids of a time before any of the tasks are somebody else's.
        let numbers = if asker.any_was_there(last) || ours { 0..count as u32 } else { 0..0 };
        for number in numbers {
            let by = asker.ask(Question::Pid(id, number))?;
            let pid = by.result.max(0) as i32;
            let task = asker.task(pid, by.there, last);
            ours |= task.is_some();
            pids.push(task.map_or(pid, |task| task.process.own_pid));
        }
        if !ours {
            continue;
        }
        let values = asker.ask(Question::Values(id, count))?;
        if values.result < 0 {
            let pid = asker.tasks.first().map_or(0, |t| t.pid);
            facts.obstacles.push(unreadable(pid, "semaphores", id, values.result));
            continue;
        }
        let values = values.bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
        facts.sems.push(SemFacts { perm: answer.perm(id), values, pids });
    }
    Ok(())
}

fn queues(asker: &mut Asker<'_>, facts: &mut SysvFacts) -> Result<()> {
    let waited_for = asker.waited_for(&[libc::SYS_msgrcv, libc::SYS_msgsnd]);
    for (id, answer) in asker.list(Kind::Msg)? {
        let last = at::MSG_TIMES.iter().map(|t| answer.number(*t)).max().unwrap_or(0);
        let mut pids = at::MSG_PIDS.iter().map(|p| answer.small(*p) as i32);
        let ours = pids.any(|pid| asker.task(pid, answer.there, last).is_some());
        if !ours && !facts.own_namespace && !waited_for.contains(&id) {
            continue;
        }
        let (count, bytes) = (answer.number(at::MSG_COUNT), answer.number(at::MSG_BYTES));
        let mut messages = Vec::new();
        for index in 0..count {
            // The kernel makes a buffer of that size, whatever the message's.
            let room = (bytes as usize).clamp(1, 1 << 20);
            let mut message = asker.ask(Question::Message(id, index, room))?;
            if message.result == -i64::from(libc::E2BIG) {
                message = asker.ask(Question::Message(id, index, 60 << 10))?;
            }
            if message.result < 0 {
                let pid = asker.tasks.first().map_or(0, |t| t.pid);
                facts.obstacles.push(unreadable(pid, "message queue", id, message.result));
                break;
            }
            let kind = message.number(0) as i64;
            let end = 8 + message.result as usize;
            messages.push((kind, message.bytes.get(8..end).unwrap_or_default().to_vec()));
        }
        let qbytes = answer.number(at::MSG_QBYTES);
        facts.msgs.push(MsgFacts { perm: answer.perm(id), qbytes, messages });
    }
    Ok(())
}

fn unreadable(pid: i32, what: &str, id: i32, result: i64) -> Obstacle {
    let (why, remedy) = match i32::try_from(-result) {
        Ok(libc::EACCES) => ("may not be read".to_owned(), "run ckpt-dump as root"),
        Ok(libc::ENOSYS) => (
            "cannot be read without changing it: this kernel lacks CONFIG_CHECKPOINT_RESTORE".into(),
            "dump it when the queue is empty",
        ),
        Ok(errno) => (std::io::Error::from_raw_os_error(errno).to_string(), "let the program remove it"),
        Err(_) => ("cannot be read".into(), "let the program remove it"),
    };
    Obstacle {
        pid,
        what: format!("System V {what} with id {id}: {why}"),
        remedy: remedy.into(),
        ..Obstacle::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::memory::smaps;

    #[test]
    fn segments_are_told_apart() {
        let text = "\
10000-11000 rw-s 00000000 00:01 7  /SYSV0052e2c1 (deleted)
20000-21000 rw-s 00000000 00:01 7  /dev/zero (deleted)
30000-31000 rw-s 00000000 fe:00 9  /SYSV00000000 (deleted)
40000-41000 rw-p 00000000 00:01 10  /SYSV00000000 (deleted)
50000-51000 rw-s 00000000 00:01 8  /SYSVfile (deleted)
";
        let entries = smaps::parse(text.as_bytes()).unwrap();
        let found: Vec<_> = entries.iter().map(segment).collect();
        assert_eq!(found, [Some(7), None, None, None, None]);
    }
}
