//! `--snapshot`: the image is written from copy-on-write copies of the processes, which run on meanwhile.
//!
//! What a fork does not copy (shared memory, MADV_DONTFORK, MADV_WIPEONFORK) and files that the processes
//! may write to are read before they run on. Of other files, programs and libraries, it is verified at
//! the end that they have not changed.

use crate::collect::memory::VmaFacts;
use crate::collect::{Facts, TaskFacts, proc, sysv};
use crate::contents::MEMORY_FILES;
use crate::error::Obstacle;
use crate::ptrace::{Call, FrozenTree, MemoryCopy};
use anyhow::{Context, Result, bail};
use ckpt_format::Range;
use ckpt_format::mm::vma_flags;
use elf_writer::{Plan, Source};
use std::collections::{HashMap, HashSet};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

const PR_SET_CHILD_SUBREAPER: u64 = 36;

/// Copies of all processes of a tree. Dropping it ends them.
pub struct Snapshot {
    copies: Vec<MemoryCopy>,
    /// Files that are read while the processes run, as they were before.
    files: Vec<(Arc<File>, Metadata)>,
}

/// What stands in the way of copies.
pub fn obstacles(facts: &Facts) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for task in &facts.tasks {
        let mut add = |what: String| {
            let remedy = "dump without --snapshot";
            found.push(Obstacle::new(task.pid, format!("snapshot: {what}"), remedy));
        };
        let of_manager = |v: &&VmaFacts| [b"um", b"uw", b"ui"].iter().any(|flag| v.shown.has(flag));
        if let Some(vma) = task.mm.vmas.iter().find(of_manager) {
            add(format!("userfaultfd watches its memory at {:#x}, and would see the copy", vma.shown.start));
        }
        if task.threads.iter().any(|t| t.seccomp_mode != 0) {
            add("it has seccomp filters, which its copy would have to obey".into());
        }
        if task.process.own_pid == 1 {
            add("it is the init of its pid namespace, and would see the copies end".into());
        }
        let below =
            |other: &&TaskFacts| other.pid != task.pid && ancestors(facts, other).any(|a| a == task.pid);
        if task.process.child_subreaper && facts.tasks.iter().any(|other| below(&other)) {
            add("it is a child subreaper, and would see the copies of its children end".into());
        }
    }
    found.extend(memory_obstacle(facts));
    found
}

/// Ids of the processes of the tree that a task descends from.
fn ancestors<'a>(facts: &'a Facts, task: &'a TaskFacts) -> impl Iterator<Item = i32> + 'a {
    let parent = |t: &&'a TaskFacts| facts.tasks.iter().find(|p| p.pid == t.process.ppid);
    std::iter::successors(parent(&task), parent).map(|t| t.pid)
}

/// Each page that a process changes while the image is written is copied: at worst all.
fn memory_obstacle(facts: &Facts) -> Option<Obstacle> {
    let private = || facts.tasks.iter().flat_map(|t| &t.mm.vmas).filter(|v| !v.shown.shared);
    let pages = private().flat_map(|v| &v.pages.own).map(|r| r.end - r.start).sum::<u64>();
    let committed =
        private().filter(|v| v.shown.has(b"ac")).map(|v| v.shown.end - v.shown.start).sum::<u64>();
    let pid = facts.tasks.first()?.pid;
    let limits = [
        ("memory is free", pages, free_memory()),
        ("is left of the memory limit of its control group", pages, free_in_cgroup(pid)),
        ("may be committed (vm.overcommit_memory = 2)", committed, free_commit()),
    ];
    let (where_, needed, free) = limits
        .into_iter()
        .find_map(|(what, needed, free)| Some((what, needed, free?)).filter(|f| f.1 > f.2))?;
    let what = format!(
        "snapshot: up to {} would be copied while it runs on, but only {} {where_}",
        crate::report::bytes(needed),
        crate::report::bytes(free)
    );
    Some(Obstacle::new(pid, what, "dump without --snapshot, or make room"))
}

fn free_memory() -> Option<u64> {
    let text = proc::read("/proc/meminfo").ok()?;
    Some(proc::size(&text, "MemAvailable")? + proc::size(&text, "SwapFree").unwrap_or(0))
}

fn free_commit() -> Option<u64> {
    let strict = proc::read("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() == "2");
    let text = proc::read("/proc/meminfo").ok()?;
    let (limit, used) = (proc::size(&text, "CommitLimit")?, proc::size(&text, "Committed_AS")?);
    strict.then(|| limit.saturating_sub(used))
}

/// The least of its groups (version 2), where the page cache counts as free.
fn free_in_cgroup(pid: i32) -> Option<u64> {
    let groups = proc::read(&format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|l| l.strip_prefix("0::"))?;
    let number = |path: String| proc::read(&path).ok()?.trim().parse::<u64>().ok();
    let free = |dir: &std::path::Path| {
        let dir = format!("/sys/fs/cgroup{}", dir.display());
        let (most, used) = (number(format!("{dir}/memory.max"))?, number(format!("{dir}/memory.current"))?);
        let stat = proc::read(&format!("{dir}/memory.stat")).unwrap_or_default();
        let cache = stat.lines().find_map(|l| l.strip_prefix("file ")?.parse::<u64>().ok()).unwrap_or(0);
        Some((most + cache).saturating_sub(used))
    };
    std::path::Path::new(path).ancestors().filter_map(free).min()
}

/// Copies all processes, which are stopped, and changes the plan so that it reads from the copies.
pub fn take(frozen: &mut FrozenTree, facts: &Facts, plan: &mut Plan) -> Result<Snapshot> {
    let mut snapshot = Snapshot { copies: Vec::new(), files: Vec::new() };
    let mut copy_of: HashMap<i32, i32> = HashMap::new();
    for (index, task) in facts.tasks.iter().enumerate().filter(|(index, task)| task.shares.mm == *index) {
        let target = frozen.live.iter_mut().find(|f| f.pid() == task.pid);
        let target = target.with_context(|| format!("PID {} is not stopped", task.pid))?;
        let (before, after) = around(task);
        let copy = target.copy_memory(&before, &after)?;
        let sharers = facts.tasks.iter().filter(|t| t.shares.mm == index);
        copy_of.extend(sharers.map(|t| (t.pid, copy.pid())));
        snapshot.copies.push(copy);
    }
    plan.urgent = urgent(facts, plan);
    let pairs = std::mem::take(&mut plan.ancestors).into_iter();
    plan.ancestors = pairs.filter_map(|(pid, of)| Some((*copy_of.get(&pid)?, *copy_of.get(&of)?))).collect();
    let mut seen = HashSet::new();
    for (source, _) in plan.sources.iter_mut().zip(&plan.urgent).filter(|(_, urgent)| !**urgent) {
        match source {
            Source::Memory { pid, .. } => {
                *pid = *copy_of.get(pid).with_context(|| format!("PID {pid} was not copied"))?;
            }
            Source::File { key, .. } if seen.insert(*key) => {
                let file = mapped(facts, *key).context("a file that is not open")?;
                snapshot.files.push((file.clone(), file.metadata().context("looking at a mapped file")?));
            }
            Source::File { .. } | Source::Bytes(_) => {}
        }
    }
    Ok(snapshot)
}

/// Calls that keep the copy from being noticed: it must neither be adopted by the process itself, nor count
/// among those that have attached a segment.
fn around(task: &TaskFacts) -> (Vec<Call>, Vec<Call>) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    if task.process.child_subreaper {
        before.push(Call::new(libc::SYS_prctl, &[PR_SET_CHILD_SUBREAPER, 0]));
        after.push(Call::new(libc::SYS_prctl, &[PR_SET_CHILD_SUBREAPER, 1]));
    }
    let shown = task.mm.vmas.iter().map(|v| &v.shown);
    for segment in shown.filter(|e| sysv::segment(e).is_some() && !e.has(b"dc")) {
        let advise = |advice: i32| {
            Call::new(libc::SYS_madvise, &[segment.start, segment.end - segment.start, advice as u64])
        };
        before.push(advise(libc::MADV_DONTFORK));
        after.push(advise(libc::MADV_DOFORK));
    }
    (before, after)
}

fn mapped(facts: &Facts, key: u32) -> Option<&Arc<File>> {
    facts.mapped_files.get(key.checked_sub(MEMORY_FILES)? as usize)
}

/// Which extents must be read before the processes run on. Those of a VMA stay together.
fn urgent(facts: &Facts, plan: &Plan) -> Vec<bool> {
    const NOT_COPIED: u64 =
        vma_flags::DONTFORK | vma_flags::WIPEONFORK | vma_flags::DROPPABLE | vma_flags::HUGETLB;
    let writable = writable_files(facts);
    let may_change = |source: &Source| match source {
        Source::Memory { .. } | Source::Bytes(_) => false,
        Source::File { key, .. } => mapped(facts, *key)
            .and_then(|file| file.metadata().ok())
            .is_none_or(|meta| writable.contains(&(meta.dev(), meta.ino()))),
    };
    let mut urgent: Vec<bool> = plan.sources.iter().map(|s| !matches!(s, Source::Bytes(_))).collect();
    for vma in &plan.tables.vmas {
        let extents = |range: Range| plan.sources[range.indices()].iter();
        let first =
            vma.flags & NOT_COPIED != 0 || extents(vma.dirty).chain(extents(vma.embedded)).any(may_change);
        for range in [vma.dirty, vma.embedded] {
            urgent[range.indices()].fill(first);
        }
    }
    urgent
}

/// Device and inode of what the processes may write to.
fn writable_files(facts: &Facts) -> HashSet<(u64, u64)> {
    let open = facts.fds.descriptions.iter().filter(|d| d.access_mode() != libc::O_RDONLY);
    let open = open.map(|d| (d.stat.dev, d.stat.ino));
    let shared = facts.tasks.iter().flat_map(|task| {
        let shared = task.mm.vmas.iter().filter(|v| v.shown.shared && v.shown.has(b"mw"));
        shared.filter_map(|v| task.mm.files.get(v.file?)?.stat.map(|s| (s.dev, s.ino)))
    });
    open.chain(shared).collect()
}

impl Snapshot {
    /// Ends the copies, when all has been read from them.
    ///
    /// # Errors
    /// When a file that was read meanwhile has changed.
    pub fn end(self) -> Result<()> {
        drop(self.copies);
        for (file, before) in &self.files {
            let now = file.metadata().context("looking at a mapped file again")?;
            let version = |m: &Metadata| (m.size(), m.mtime(), m.mtime_nsec());
            if version(&now) != version(before) {
                bail!(
                    "a mapped file (device {}, inode {}) was changed while the image was written from it; \
                     dump again, or without --snapshot",
                    now.dev(),
                    now.ino()
                );
            }
        }
        Ok(())
    }
}
