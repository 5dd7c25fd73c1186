//! For `--log` and `-vvv`: everything that was observed, a line for each thing.

use crate::collect::fd::{Description, Detail, FdTableFacts};
use crate::collect::memory::VmaFacts;
use crate::collect::{Facts, TaskFacts, ThreadFacts};
use crate::report;

/// Tells all facts, if anybody listens.
pub fn narrate(facts: &Facts) {
    report::trace(|| {
        let mut lines = Vec::new();
        for task in &facts.tasks {
            self::task(&mut lines, facts, task);
        }
        for z in &facts.zombies {
            lines.push(format!("zombie {} ({}): parent {}, status {:#x}", z.pid, z.name, z.ppid, z.status));
        }
        lines.extend(facts.fds.descriptions.iter().enumerate().map(|(index, d)| description(index, d)));
        let s = &facts.sysv;
        lines.push(format!(
            "System V: {} segments, {} semaphore sets, {} queues",
            s.shms.len(),
            s.sems.len(),
            s.msgs.len()
        ));
        lines
    });
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

fn task(lines: &mut Vec<String>, facts: &Facts, task: &TaskFacts) {
    let (pid, p) = (task.pid, &task.process);
    lines.push(format!(
        "PID {pid} ({}): parent {}, process group {}, session {}, own id {}, umask {:03o}, cwd {}, root {}",
        p.name,
        p.ppid,
        p.seen_pgid,
        p.seen_sid,
        p.own_pid,
        p.umask,
        text(&p.cwd),
        text(&p.root)
    ));
    lines.extend(task.threads.iter().map(|t| format!("PID {pid} {}", thread(t))));
    for (index, action) in task.signals.actions.iter().enumerate().filter(|(_, a)| a.handler != 0) {
        let (signal, handler) = (index + 1, action.handler);
        let does = if handler == 1 { "ignored".into() } else { format!("handler {handler:#x}") };
        lines.push(format!("PID {pid} signal {signal}: {does}, flags {:#x}", action.flags));
    }
    if !task.signals.pending.is_empty() {
        lines.push(format!("PID {pid} {} signals pending", task.signals.pending.len()));
    }
    for (which, t) in ["real", "virtual", "profiling"].iter().zip(&task.timers.itimers) {
        if t.value_us != 0 {
            lines.push(format!(
                "PID {pid} {which} timer: in {} us, then every {} us",
                t.value_us, t.interval_us
            ));
        }
    }
    for t in &task.timers.posix {
        let (id, clock, left, interval) = (t.id, t.clock, t.remaining_ns, t.interval_ns);
        lines.push(format!(
            "PID {pid} POSIX timer {id}: clock {clock}, in {left} ns, then every {interval} ns"
        ));
    }
    if task.mm.vmas.is_empty() && !facts.partial {
        let first = facts.tasks.get(task.shares.mm).map_or(0, |t| t.pid);
        lines.push(format!("PID {pid} memory: that of PID {first}"));
    }
    lines.extend(task.mm.vmas.iter().map(|vma| format!("PID {pid} {}", memory(vma))));
    if let Some(table) = facts.fds.tables.get(task.fds) {
        lines.push(format!("PID {pid} descriptors: {}", descriptors(table)));
    }
}

fn thread(t: &ThreadFacts) -> String {
    let r = &t.regs;
    let doing = match r.orig_rax as i64 {
        ..0 => "in user mode".to_owned(),
        call => format!("in system call {call} (result {})", r.rax as i64),
    };
    format!(
        "thread {} ({}): {doing}, rip {:#x}, rsp {:#x}, fs {:#x}, blocked signals {:#x}, {} pending, uid {}, seccomp {}",
        t.tid,
        text(&t.name),
        r.rip,
        r.rsp,
        r.fs_base,
        t.sigmask,
        t.pending.len(),
        t.creds.uid[1],
        t.seccomp_mode
    )
}

fn memory(vma: &VmaFacts) -> String {
    let e = &vma.shown;
    let bit = |mask: u32, letter| if e.prot & mask != 0 { letter } else { '-' };
    let sum = |runs: &[std::ops::Range<u64>]| runs.iter().map(|r| r.end - r.start).sum::<u64>();
    let flags: Vec<_> = e.flags.iter().map(|f| text(f)).collect();
    format!(
        "memory {:x}-{:x} {}{}{}{} offset {:#x} {} own {} KiB in {} runs, guards {} KiB [{}]",
        e.start,
        e.end,
        bit(1, 'r'),
        bit(2, 'w'),
        bit(4, 'x'),
        if e.shared { 's' } else { 'p' },
        e.offset,
        if e.path.is_empty() { "anonymous".into() } else { text(&e.path) },
        sum(&vma.pages.own) >> 10,
        vma.pages.own.len(),
        sum(&vma.pages.guards) >> 10,
        flags.join(" ")
    )
}

fn descriptors(table: &FdTableFacts) -> String {
    let one = |f: &crate::collect::fd::FdEntryFacts| {
        format!("{}{} = #{}", f.fd, if f.cloexec { " (close-on-exec)" } else { "" }, f.description)
    };
    table.fds.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn description(index: usize, d: &Description) -> String {
    let more = match &d.detail {
        Detail::Unknown(what) | Detail::Failed(what) => format!(" ({what})"),
        // All the rest is in the image, for ckpt-info.
        _ => String::new(),
    };
    format!(
        "#{index} {}{more}: {} (fd {} of PID {}), position {}, flags {:#o}, {} locks",
        d.detail.kind(),
        d.link_text(),
        d.fd,
        d.pid,
        d.info.pos,
        d.info.flags,
        d.info.locks.len()
    )
}
