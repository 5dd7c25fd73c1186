//! From the records of an image to what is told of it.

use crate::model::*;
use crate::{names, objects};
use ckpt_format::fd::lock_kind;
use ckpt_format::header::header_flags;
use ckpt_format::task::task_flags;
use ckpt_format::thread::thread_flags;
use ckpt_format::*;
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, FormatError>;

/// All of it.
///
/// # Errors
/// When a record refers to what is not there.
pub fn report(image: &Image) -> Result<Report> {
    Ok(Report {
        schema: SCHEMA,
        image: header(image),
        tasks: image.tasks.iter().map(|t| task(image, t)).collect::<Result<_>>()?,
        objects: (0..).zip(image.objects).map(|(i, o)| object(image, i, o)).collect(),
        locks: image.locks.iter().map(lock).collect(),
        ipc: objects::ipc(image),
        losses: image
            .losses
            .iter()
            .map(|l| LossInfo {
                pid: l.pid,
                kind: image.text(l.kind).into(),
                text: image.text(l.text).into(),
            })
            .collect(),
    })
}

fn hex(value: u64) -> String {
    format!("{value:#x}")
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').into()
}

fn header(image: &Image) -> ImageInfo {
    let h = image.header;
    let features = cpu::FEATURES.iter().filter(|(word, bit, _)| h.cpu.words[*word as usize] >> bit & 1 == 1);
    ImageInfo {
        uuid: digits(&h.uuid),
        format: h.version,
        bytes: h.image_size,
        stored_bytes: h.stored_bytes,
        program: image.text(h.program).into(),
        command: image.text(h.command).into(),
        dumped: words::Utc(h.time_realtime / 1_000_000_000).to_string(),
        time_realtime_ns: h.time_realtime,
        time_monotonic_ns: h.time_monotonic,
        time_boottime_ns: h.time_boottime,
        dumper: image.text(h.dumper).into(),
        host: image.text(h.host).into(),
        kernel: image.text(h.kernel).into(),
        boot_id: digits(&h.boot_id),
        cpu_vendor: name(&h.cpu.vendor),
        cpu_features: features.map(|(_, _, name)| (*name).to_owned()).collect(),
        compressed: image.compression.first().map(|c| (c.block_bytes, c.stored_bytes)),
        restorer: h.flags & header_flags::NO_STUB == 0,
        embedded: h.flags & header_flags::EMBEDDED != 0,
        own_ipc_namespace: h.flags & header_flags::OWN_IPC_NAMESPACE != 0,
        stub_start: hex(h.hole_addr),
        stub_end: hex(h.hole_addr.wrapping_add(h.hole_len)),
    }
}

fn task(image: &Image, t: &Task) -> Result<TaskInfo> {
    let threads = Image::slice(image.threads, t.threads, "threads")?;
    let fs = Image::get(image.fs_infos, t.fs, "fs").ok();
    let creator = Image::get(image.tasks, t.creator, "creator").ok().filter(|c| c.pid != t.ppid);
    // Of those that share an address space, the first has it.
    let first = image.tasks.iter().find(|other| other.mm == t.mm && t.mm != NONE);
    let shared = first.filter(|other| other.pid != t.pid).map(|other| other.pid);
    let is_zombie = t.flags & task_flags::ZOMBIE != 0;
    Ok(TaskInfo {
        pid: t.pid,
        ppid: t.ppid,
        pgid: t.pgid,
        sid: t.sid,
        made_by: creator.map(|c| c.pid),
        name: threads.first().map(|th| name(&th.name)).unwrap_or_default(),
        state: names::task(t.flags),
        wait_status: is_zombie.then_some(t.status),
        threads: threads.iter().map(|th| thread(image, th)).collect::<Result<_>>()?,
        memory_shared_with: shared,
        memory: if t.mm == NONE || shared.is_some() { None } else { Some(memory(image, t)?) },
        cwd: fs.map(|fs| image.text(fs.cwd).into()).unwrap_or_default(),
        root: fs.map(|fs| image.text(fs.root).into()).unwrap_or_default(),
        umask: fs.map_or(0, |fs| fs.umask),
        fds: fds(image, t)?,
        handlers: handlers(image, t)?,
        pending: pending(image, t.pending)?,
        timers: timers(image, t)?,
        limits: limits(t),
    })
}

fn fds(image: &Image, t: &Task) -> Result<Vec<FdInfo>> {
    let Ok(table) = Image::get(image.fd_tables, t.fd_table, "descriptors") else { return Ok(Vec::new()) };
    let fds = Image::slice(image.fds, table.fds, "descriptors")?;
    Ok(fds.iter().map(|f| FdInfo { fd: f.fd, object: f.object, cloexec: f.cloexec != 0 }).collect())
}

fn handlers(image: &Image, t: &Task) -> Result<BTreeMap<String, String>> {
    let Ok(hand) = Image::get(image.sighands, t.sighand, "handlers") else { return Ok(BTreeMap::new()) };
    let actions = Image::slice(image.sig_actions, hand.actions, "handlers")?;
    let own = (1..).zip(actions).filter(|(_, a)| a.handler != 0);
    let what = |a: &SigAction| if a.handler == 1 { "ignored".into() } else { hex(a.handler) };
    Ok(own.map(|(n, a)| (names::signal(n), what(a))).collect())
}

fn pending(image: &Image, range: Range) -> Result<Vec<String>> {
    let queued = Image::slice(image.pending, range, "pending signals")?;
    let number = |p: &PendingSignal| p.siginfo.first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
    Ok(queued.iter().map(|p| names::signal(number(p))).collect())
}

fn timers(image: &Image, t: &Task) -> Result<Vec<TimerInfo>> {
    let armed = [("ITIMER_REAL", "SIGALRM"), ("ITIMER_VIRTUAL", "SIGVTALRM"), ("ITIMER_PROF", "SIGPROF")];
    let itimers = armed.into_iter().zip(t.itimers).filter(|(_, i)| i.value_us != 0);
    let mut all: Vec<_> = itimers
        .map(|((name, signal), i)| TimerInfo {
            timer: name.into(),
            remaining_ns: i.value_us.saturating_mul(1000),
            interval_ns: i.interval_us.saturating_mul(1000),
            notifies: signal.into(),
        })
        .collect();
    let posix = Image::slice(image.posix_timers, t.posix_timers, "timers")?;
    all.extend(posix.iter().map(|p| TimerInfo {
        timer: format!("timer {} of clock {}", p.id, p.clock),
        remaining_ns: p.remaining_ns,
        interval_ns: p.interval_ns,
        notifies: match p.notify & 3 {
            1 => "nothing".into(),
            _ if p.tid != 0 => format!("{} to thread {}", names::signal(p.signo.cast_unsigned()), p.tid),
            _ => names::signal(p.signo.cast_unsigned()),
        },
    }));
    Ok(all)
}

fn limits(t: &Task) -> BTreeMap<String, (u64, u64)> {
    let limited = names::LIMITS.iter().zip(t.rlimits).filter(|(_, l)| *l != [u64::MAX; 2]);
    if t.threads.count == 0 {
        return BTreeMap::new();
    }
    limited.map(|(name, [soft, hard])| ((*name).to_owned(), (soft, hard))).collect()
}

fn thread(image: &Image, t: &Thread) -> Result<ThreadInfo> {
    let creds = Image::get(image.creds, t.creds, "credentials")?;
    let waits = t.flags & thread_flags::IN_SYSCALL != 0;
    Ok(ThreadInfo {
        tid: t.tid,
        name: name(&t.name),
        system_call: waits.then(|| names::system_call(t.regs.orig_rax)),
        registers: registers(&t.regs),
        xstate_bytes: t.xstate.len,
        blocked: names::signals(t.sigmask),
        pending: pending(image, t.pending)?,
        policy: t.sched_policy,
        nice: t.sched_nice,
        priority: t.sched_priority,
        seccomp: t.seccomp_mode,
        uid: creds.uid,
        gid: creds.gid,
        capabilities_effective: hex(creds.cap_effective),
    })
}

fn registers(r: &Regs) -> BTreeMap<String, String> {
    let all = [
        ("rax", r.rax),
        ("rbx", r.rbx),
        ("rcx", r.rcx),
        ("rdx", r.rdx),
        ("rsi", r.rsi),
        ("rdi", r.rdi),
        ("rbp", r.rbp),
        ("rsp", r.rsp),
        ("r8", r.r8),
        ("r9", r.r9),
        ("r10", r.r10),
        ("r11", r.r11),
        ("r12", r.r12),
        ("r13", r.r13),
        ("r14", r.r14),
        ("r15", r.r15),
        ("rip", r.rip),
        ("eflags", r.eflags),
        ("orig_rax", r.orig_rax),
        ("cs", r.cs),
        ("ss", r.ss),
        ("ds", r.ds),
        ("es", r.es),
        ("fs", r.fs),
        ("gs", r.gs),
        ("fs_base", r.fs_base),
        ("gs_base", r.gs_base),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), hex(value))).collect()
}

fn memory(image: &Image, t: &Task) -> Result<MemoryInfo> {
    let mm = Image::get(image.mms, t.mm, "address space")?;
    let vmas = Image::slice(image.vmas, mm.vmas, "VMAs")?;
    let vmas: Vec<_> = vmas.iter().map(|v| vma(image, v)).collect::<Result<_>>()?;
    let exe = Image::get(image.files, mm.exe, "executable").map_or("", |f| image.text(f.path));
    let mapped = Image::slice(image.vmas, mm.vmas, "VMAs")?;
    Ok(MemoryInfo {
        executable: exe.into(),
        mapped_bytes: mapped.iter().map(|v| v.end.saturating_sub(v.start)).sum(),
        stored_bytes: vmas.iter().map(|v| v.stored_bytes).sum(),
        embedded_bytes: vmas.iter().map(|v| v.embedded_bytes).sum(),
        brk_start: hex(mm.start_brk),
        brk: hex(mm.brk),
        vmas,
    })
}

fn vma(image: &Image, v: &Vma) -> Result<VmaInfo> {
    let stored = |range: Range| -> Result<u64> {
        Ok(Image::slice(image.extents, range, "extents")?.iter().map(|e| e.len).sum())
    };
    let file = Image::get(image.files, v.file, "file").ok();
    let path = file.map_or("", |f| image.text(f.path));
    Ok(VmaInfo {
        start: hex(v.start),
        end: hex(v.end),
        protection: protection(v),
        kind: VmaKind::from_u32(v.kind).map_or_else(|| format!("kind {}", v.kind), |k| format!("{k:?}")),
        flags: names::vma(v.flags),
        offset: v.file_offset,
        name: if path.is_empty() { image.text(v.name).into() } else { path.into() },
        stored_bytes: stored(v.dirty)?,
        embedded_bytes: stored(v.embedded)?,
    })
}

fn protection(v: &Vma) -> String {
    use VmaKind::{AioRing, FileShared, SharedObject};
    let shared = matches!(VmaKind::from_u32(v.kind), Some(FileShared | SharedObject | AioRing));
    let bit = |bit: u32, c: char| if v.prot & bit != 0 { c } else { '-' };
    [bit(1, 'r'), bit(2, 'w'), bit(4, 'x'), if shared { 's' } else { 'p' }].iter().collect()
}

fn object(image: &Image, index: u32, o: &Object) -> ObjectInfo {
    let (kind, detail) = objects::describe(image, o);
    ObjectInfo { index, kind, detail, open_flags: o.open_flags, offset: o.offset, queue_bytes: o.queue.len }
}

fn lock(l: &Lock) -> LockInfo {
    let kind = match l.kind {
        lock_kind::FLOCK => "flock".into(),
        lock_kind::POSIX => "POSIX".into(),
        lock_kind::OFD => "OFD".into(),
        lock_kind::LEASE => "lease".into(),
        other => format!("kind {other}"),
    };
    const F_WRLCK: u32 = 1;
    LockInfo { kind, exclusive: l.mode == F_WRLCK, start: l.start, len: l.len, object: l.object, pid: l.pid }
}
