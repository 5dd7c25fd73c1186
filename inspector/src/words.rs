//! A report in words.

use crate::model::*;
use std::io::{Result, Write};

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Detail {
    /// Every VMA.
    pub vmas: bool,
    /// Also registers, handlers, limits.
    pub all: bool,
}

pub fn print(out: &mut impl Write, r: &Report, detail: Detail) -> Result<()> {
    let i = &r.image;
    writeln!(out, "program    {}", i.program)?;
    writeln!(out, "command    {}", i.command)?;
    writeln!(out, "image      {}, format {}, {} bytes", i.uuid, i.format, i.bytes)?;
    if let Some((before, after)) = i.compressed {
        writeln!(out, "compressed {before} bytes to {after} (LZ4)")?;
    }
    writeln!(out, "dumped     {} by ckpt-dump {}", i.dumped, i.dumper)?;
    writeln!(out, "on         {} ({}, {})", i.host, i.kernel, i.cpu_vendor)?;
    writeln!(out, "features   {}", i.cpu_features.join(" "))?;
    let missing = if i.restorer { "" } else { " (not in the image: needs ckpt-restore)" };
    writeln!(out, "stub       {}-{}{missing}", i.stub_start, i.stub_end)?;
    if !i.embedded {
        writeln!(out, "thin       programs and libraries are not in the image")?;
    }
    writeln!(out)?;
    tree(out, r)?;
    for task in &r.tasks {
        print_task(out, r, task, detail)?;
    }
    for lock in &r.locks {
        let mode = if lock.exclusive { "exclusive" } else { "shared" };
        let (start, len) = (lock.start, lock.len);
        writeln!(
            out,
            "lock: {} {mode} on #{} from {start}, {len} bytes, process {}",
            lock.kind, lock.object, lock.pid
        )?;
    }
    r.ipc.iter().try_for_each(|text| writeln!(out, "{text}"))?;
    let lost = |l: &LossInfo| format!("lost: task {}: {} ({})", l.pid, l.text, l.kind);
    r.losses.iter().try_for_each(|l| writeln!(out, "{}", lost(l)))
}

/// The processes, those below others indented.
fn tree(out: &mut impl Write, r: &Report) -> Result<()> {
    for task in &r.tasks {
        let mut depth = 0;
        let mut at = task;
        // Bounded: an image may be damaged in ways that checksums do not show.
        while let Some(parent) = r.tasks.iter().find(|t| t.pid == at.ppid && t.pid != at.pid)
            && depth < 100
        {
            (at, depth) = (parent, depth + 1);
        }
        let indent = "  ".repeat(depth);
        let state = task.state.join(", ");
        let threads = match task.threads.len() {
            0 | 1 => String::new(),
            n => format!(", {n} threads"),
        };
        let stored = task.memory.as_ref().map_or(0, |m| m.stored_bytes);
        let state = if state.is_empty() { state } else { format!(" ({state})") };
        writeln!(out, "{indent}{} {}{threads}, {stored} bytes stored{state}", task.pid, task.name)?;
    }
    Ok(())
}

fn print_task(out: &mut impl Write, r: &Report, t: &TaskInfo, detail: Detail) -> Result<()> {
    let state: String = t.state.iter().map(|s| format!(", {s}")).collect();
    writeln!(out, "\ntask {} (parent {}, group {}, session {}{state})", t.pid, t.ppid, t.pgid, t.sid)?;
    if let Some(pid) = t.made_by {
        writeln!(out, "  made by {pid}")?;
    }
    if let Some(status) = t.wait_status {
        writeln!(out, "  wait status {status:#x}")?;
    }
    for thread in &t.threads {
        print_thread(out, thread, detail)?;
    }
    if let Some(pid) = t.memory_shared_with {
        writeln!(out, "  memory is that of {pid}")?;
    }
    if let Some(memory) = &t.memory {
        print_memory(out, memory, detail)?;
    }
    if !t.cwd.is_empty() {
        writeln!(out, "  cwd {}, root {}, umask {:03o}", t.cwd, t.root, t.umask)?;
    }
    for fd in &t.fds {
        let cloexec = if fd.cloexec { " cloexec" } else { "" };
        let object = r.objects.get(fd.object as usize);
        let (kind, what) = object.map_or(("?", ""), |o| (&o.kind, &o.detail));
        writeln!(out, "  fd {:<4} #{:<4} {kind} {what}{cloexec}", fd.fd, fd.object)?;
    }
    for timer in &t.timers {
        let (left, every) = (timer.remaining_ns, timer.interval_ns);
        writeln!(out, "  {}: in {left} ns, every {every} ns, {}", timer.timer, timer.notifies)?;
    }
    if !t.pending.is_empty() {
        writeln!(out, "  pending {}", t.pending.join(" "))?;
    }
    if detail.all {
        for (signal, handler) in &t.handlers {
            writeln!(out, "  {signal} {handler}")?;
        }
        for (name, (soft, hard)) in &t.limits {
            writeln!(out, "  limit {name} {soft} {hard}")?;
        }
    }
    Ok(())
}

fn print_thread(out: &mut impl Write, t: &ThreadInfo, detail: Detail) -> Result<()> {
    let doing = t.system_call.as_ref().map(|name| format!(", in {name}")).unwrap_or_default();
    let register = |name: &str| t.registers.get(name).map_or("", String::as_str);
    let (rip, rsp) = (register("rip"), register("rsp"));
    writeln!(out, "  thread {:<8} {:<16} rip {rip} rsp {rsp}{doing}", t.tid, t.name)?;
    if !t.pending.is_empty() {
        writeln!(out, "    pending {}", t.pending.join(" "))?;
    }
    if !detail.all {
        return Ok(());
    }
    if !t.blocked.is_empty() {
        writeln!(out, "    blocked {}", t.blocked.join(" "))?;
    }
    let all: Vec<String> = t.registers.iter().map(|(name, value)| format!("{name} {value}")).collect();
    for line in all.chunks(5) {
        writeln!(out, "    {}", line.join("  "))?;
    }
    writeln!(out, "    uid {:?} gid {:?} policy {} nice {}", t.uid, t.gid, t.policy, t.nice)
}

fn print_memory(out: &mut impl Write, m: &MemoryInfo, detail: Detail) -> Result<()> {
    for v in m.vmas.iter().filter(|_| detail.vmas) {
        let flags: String = v.flags.iter().map(|f| format!(" {f}")).collect();
        writeln!(
            out,
            "  {}-{} {} {}{flags} stored {} + {} {}",
            v.start, v.end, v.protection, v.kind, v.stored_bytes, v.embedded_bytes, v.name
        )?;
    }
    writeln!(
        out,
        "  {} VMAs, {} bytes mapped, {} stored, {} embedded from files; executable {}",
        m.vmas.len(),
        m.mapped_bytes,
        m.stored_bytes,
        m.embedded_bytes,
        m.executable
    )
}
