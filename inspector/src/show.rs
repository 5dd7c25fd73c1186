//! An image in words.

use crate::sockets;
use anyhow::Result;
use ckpt_format::fd::{fanotify, inotify, mqueue, pidfd, pipe, regular, socket, tty};
use ckpt_format::task::task_flags;
use ckpt_format::*;
use std::io::Write;

/// When, where, what.
pub fn header(out: &mut impl Write, image: &Image) -> Result<()> {
    let h = image.header;
    let uuid: String = h.uuid.iter().map(|b| format!("{b:02x}")).collect();
    writeln!(out, "program    {}", image.text(h.program))?;
    writeln!(out, "command    {}", image.text(h.command))?;
    writeln!(out, "image      {uuid}, format {}, {} bytes", h.version, h.image_size)?;
    for c in image.compression {
        let (before, after) = (c.block_bytes, c.stored_bytes);
        writeln!(out, "compressed {before} bytes to {after} (LZ4, {} blocks)", c.blocks)?;
    }
    writeln!(out, "dumped     {} by {}", utc(h.time_realtime / 1_000_000_000), image.text(h.dumper))?;
    writeln!(out, "on         {} ({})", image.text(h.host), image.text(h.kernel))?;
    writeln!(out, "features   {}", features(&h.cpu))?;
    writeln!(out, "stub       {:#x}-{:#x}", h.hole_addr, h.hole_addr + h.hole_len)?;
    Ok(())
}

/// One process: identity, threads, memory, descriptors.
pub fn task(out: &mut impl Write, image: &Image, t: &Task, all_vmas: bool) -> Result<()> {
    let names = [
        (task_flags::HELPER, "helper"),
        (task_flags::ZOMBIE, "zombie"),
        (task_flags::STOPPED, "stopped"),
        (task_flags::STOP_REPORTED, "its parent knows"),
        (task_flags::CHILD_SUBREAPER, "subreaper"),
        (task_flags::ADOPTS, "adopts"),
        (task_flags::BEFORE_SETSID, "made before setsid"),
        (task_flags::PGRP_OF_CALLER, "group of the caller"),
        (task_flags::SESSION_OF_CALLER, "session of the caller"),
    ];
    let state: String =
        names.iter().filter(|(bit, _)| t.flags & bit != 0).map(|(_, name)| format!(", {name}")).collect();
    writeln!(out, "\ntask {} (parent {}, group {}, session {}{state})", t.pid, t.ppid, t.pgid, t.sid)?;
    if let Ok(creator) = Image::get(image.tasks, t.creator, "creator")
        && creator.pid != t.ppid
    {
        writeln!(out, "  made by {}", creator.pid)?;
    }
    if t.flags & task_flags::ZOMBIE != 0 {
        writeln!(out, "  wait status {:#x}", t.status)?;
    }
    for thread in Image::slice(image.threads, t.threads, "threads")? {
        let name = String::from_utf8_lossy(&thread.name);
        let doing = match i64::from_le_bytes(thread.regs.orig_rax.to_le_bytes()) {
            -1 => String::new(),
            nr => format!(", in system call {nr}"),
        };
        writeln!(
            out,
            "  thread {:<8} {:<16} rip {:#018x} rsp {:#018x}{doing}",
            thread.tid,
            name.trim_end_matches('\0'),
            thread.regs.rip,
            thread.regs.rsp
        )?;
    }
    memory(out, image, t, all_vmas)?;
    if let Ok(fs) = Image::get(image.fs_infos, t.fs, "fs") {
        writeln!(out, "  cwd {}, root {}, umask {:03o}", image.text(fs.cwd), image.text(fs.root), fs.umask)?;
    }
    if let Ok(table) = Image::get(image.fd_tables, t.fd_table, "fds") {
        for fd in Image::slice(image.fds, table.fds, "fds")? {
            let object = Image::get(image.objects, fd.object, "object")?;
            let cloexec = if fd.cloexec != 0 { " cloexec" } else { "" };
            writeln!(out, "  fd {:<4} #{:<4} {}{cloexec}", fd.fd, fd.object, describe(image, object))?;
        }
    }
    let timers = t.posix_timers.count;
    let pending = t.pending.count;
    if timers + pending > 0 {
        writeln!(out, "  {timers} POSIX timers, {pending} signals pending")?;
    }
    Ok(())
}

fn memory(out: &mut impl Write, image: &Image, t: &Task, all: bool) -> Result<()> {
    let Ok(mm) = Image::get(image.mms, t.mm, "mm") else { return Ok(()) };
    let vmas = Image::slice(image.vmas, mm.vmas, "vmas")?;
    let stored = |range: Range| -> Result<u64> {
        Ok(Image::slice(image.extents, range, "extents")?.iter().map(|e| e.len).sum())
    };
    let mut totals = (0, 0, 0);
    for v in vmas {
        let (dirty, embedded) = (stored(v.dirty)?, stored(v.embedded)?);
        totals = (totals.0 + v.end.wrapping_sub(v.start), totals.1 + dirty, totals.2 + embedded);
        if all {
            let file = Image::get(image.files, v.file, "file").map_or("", |f| image.text(f.path));
            writeln!(
                out,
                "  {:012x}-{:012x} {} {:?} flags {:#x} stored {} + {} {file} {}",
                v.start,
                v.end,
                prot(v),
                VmaKind::from_u32(v.kind),
                v.flags,
                dirty,
                embedded,
                image.text(v.name)
            )?;
        }
    }
    writeln!(
        out,
        "  {} VMAs, {} bytes mapped, {} stored, {} embedded from files",
        vmas.len(),
        totals.0,
        totals.1,
        totals.2
    )?;
    Ok(())
}

fn prot(v: &Vma) -> String {
    let shared = matches!(
        VmaKind::from_u32(v.kind),
        Some(VmaKind::FileShared | VmaKind::SharedObject | VmaKind::AioRing)
    );
    let bit = |bit: u32, c: char| if v.prot & bit != 0 { c } else { '-' };
    [bit(1, 'r'), bit(2, 'w'), bit(4, 'x'), if shared { 's' } else { 'p' }].iter().collect()
}

/// An object in words: kind and what tells it apart.
fn describe(image: &Image, object: &Object) -> String {
    let Some(kind) = ObjectKind::from_u32(object.kind) else { return format!("kind {}", object.kind) };
    let detail = match kind {
        ObjectKind::File | ObjectKind::Memfd => image
            .payload::<regular::OpenFile>(object.payload)
            .and_then(|p| Image::get(image.files, p.file, "file"))
            .map(|f| format!("{} at {}", image.text(f.path), object.offset))
            .unwrap_or_default(),
        ObjectKind::OpenQueue => Image::get(image.objects, object.inner, "queue")
            .and_then(|queue| image.payload::<mqueue::MessageQueue>(queue.payload))
            .map(|q| format!("/{}, {} messages", image.text(q.name), q.priorities.len / 4))
            .unwrap_or_default(),
        ObjectKind::Pidfd => image
            .payload::<pidfd::Pidfd>(object.payload)
            .map(|p| if p.tid == 0 { "of a process that is gone".into() } else { format!("of {}", p.tid) })
            .unwrap_or_default(),
        ObjectKind::Inotify => image
            .payload::<inotify::Inotify>(object.payload)
            .map(|i| format!("{} watches", i.count))
            .unwrap_or_default(),
        ObjectKind::Fanotify => image
            .payload::<fanotify::Fanotify>(object.payload)
            .map(|f| format!("{} marks", f.count))
            .unwrap_or_default(),
        ObjectKind::PipeEnd => format!("pipe #{}", object.inner),
        ObjectKind::Pipe => image
            .payload::<pipe::Pipe>(object.payload)
            .map(|p| format!("{} bytes capacity", p.capacity))
            .unwrap_or_default(),
        ObjectKind::InetSocket | ObjectKind::PacketSocket | ObjectKind::NetlinkSocket => image
            .payload::<socket::InetSocket>(object.payload)
            .map(|s| sockets::inet(image, object, s))
            .unwrap_or_default(),
        ObjectKind::UnixSocket => image
            .payload::<socket::UnixSocket>(object.payload)
            .map(|s| format!("{} type {} state {}", image.text(s.name), s.kind, s.state))
            .unwrap_or_default(),
        ObjectKind::Tty => image
            .payload::<tty::Tty>(object.payload)
            .map(|p| format!("{} (the caller's terminal takes its place)", image.text(p.path)))
            .unwrap_or_default(),
        ObjectKind::Pty => image
            .payload::<tty::Pty>(object.payload)
            .map(|p| format!("{}, provided by the program", image.text(p.path)))
            .unwrap_or_default(),
        ObjectKind::PtyMaster | ObjectKind::PtySlave => format!("terminal #{}", object.inner),
        ObjectKind::Inherited => image
            .payload::<regular::Inherited>(object.payload)
            .map(|p| format!("the caller's fd {}; was {}", p.from_fd, image.text(p.was)))
            .unwrap_or_default(),
        _ => String::new(),
    };
    format!("{kind:?} {detail}")
}

/// System V IPC.
pub fn ipc(out: &mut impl Write, image: &Image) -> Result<()> {
    let perm =
        |p: &IpcPerm| format!("id {} key {:#010x} mode {:03o} uid {}", p.id, p.key, p.mode & 0o777, p.uid);
    for s in image.shms {
        writeln!(out, "shared memory {}, {} bytes", perm(&s.perm), s.size)?;
    }
    for (i, s) in image.sems.iter().enumerate() {
        let undos = image.sem_undos.iter().filter(|u| u.set as usize == i).count();
        writeln!(out, "semaphores {}, {} of them, {undos} SEM_UNDO", perm(&s.perm), s.values.len / 2)?;
    }
    for m in image.msgs {
        writeln!(out, "message queue {}, {} bytes with headers", perm(&m.perm), m.messages.len)?;
    }
    Ok(())
}

/// What the user allowed to be left out.
pub fn losses(out: &mut impl Write, image: &Image) -> Result<()> {
    for loss in image.losses {
        writeln!(out, "lost: task {}: {} ({})", loss.pid, image.text(loss.text), image.text(loss.kind))?;
    }
    Ok(())
}

fn features(c: &cpu::CpuFeatures) -> String {
    let names = cpu::FEATURES.iter().filter(|(word, bit, _)| c.words[*word as usize] >> bit & 1 == 1);
    names.map(|(_, _, name)| *name).collect::<Vec<_>>().join(" ")
}

/// Seconds since the epoch as `YYYY-MM-DD hh:mm:ss UTC` (days to civil date, proleptic Gregorian).
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates() {
        assert_eq!(super::utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(super::utc(951_827_696), "2000-02-29 12:34:56 UTC");
        assert_eq!(super::utc(1_795_217_945), "2026-11-20 23:39:05 UTC");
    }
}
