//! Address spaces: which VMAs, which bytes of them are stored, and from where.

use super::{Builder, FileKey};
use crate::collect::memory::sharers::key;
use crate::collect::memory::smaps::Entry;
use crate::collect::memory::{MappedFile, MemoryFacts, VmaFacts, pagemap};
use crate::collect::{Facts, TaskFacts, fd::FileStat, sysv::segment};
use crate::contents::MEMORY_FILES;
use ckpt_format::file::file_flags;
use ckpt_format::mm::mm_flags;
use ckpt_format::*;
use elf_writer::{DROP_ZERO, Source, UNCHANGED};
use std::ops::Range as Span64;

/// Adds the address space of the task with this index, and its contents; returns its index in the mm
/// table.
pub fn plan(builder: &mut Builder, all: &Facts, index: usize) -> u32 {
    let task = &all.tasks[index];
    let facts = &task.mm;
    let (first, first_guard) = (builder.tables.vmas.len() as u32, builder.tables.guards.len() as u32);
    let own_mounts = task.process.namespaces.iter().any(|n| n == "mnt");
    for vma in &facts.vmas {
        let lost = segment(&vma.shown).is_some() && super::sysv::file_of(builder, vma).is_none();
        let lost = lost.then_some(("System V shared memory that may not be read", "run ckpt-dump as root"));
        if let Some((what, remedy)) = lost.or_else(|| obstacle(vma, facts, own_mounts)) {
            let shown = &vma.shown;
            let name = String::from_utf8_lossy(&shown.path);
            let name = if name.is_empty() { "anonymous" } else { &name };
            let what = format!("mapping {:#x}-{:#x} ({name}): {what}", shown.start, shown.end);
            builder.refuse(task.pid, what, remedy);
            continue;
        }
        if is_aio(&vma.shown) {
            aio(builder, all, index, &vma.shown);
        }
        let record = vma_record(builder, all, task, vma);
        builder.tables.vmas.push(record);
        let guards = vma.pages.guards.iter();
        builder.tables.guards.extend(guards.map(|g| mm::GuardRange { start: g.start, len: g.end - g.start }));
    }
    for s in &facts.sharers {
        let name = String::from_utf8_lossy(&s.path);
        let range = format!("mapping {:#x}-{:#x} ({name})", s.start, s.end);
        builder.loss(
            "shared-outside",
            task.pid,
            format!("{range}: PID {} ({}) shares this memory", s.pid, s.name),
        );
    }
    if builder.options.embed {
        builder.header.flags |= header::header_flags::EMBEDDED;
    }
    let count = |first: u32, now: usize| Range { first, count: now as u32 - first };
    let m = &task.process.mm;
    let exe = facts.exe.map_or(NONE, |i| named_file(builder, facts, &facts.files[i], 0));
    let record = Mm {
        vmas: count(first, builder.tables.vmas.len()),
        guards: count(first_guard, builder.tables.guards.len()),
        start_code: m.start_code,
        end_code: m.end_code,
        start_data: m.start_data,
        end_data: m.end_data,
        start_brk: m.start_brk,
        brk: m.brk,
        start_stack: m.start_stack,
        arg_start: m.arg_start,
        arg_end: m.arg_end,
        env_start: m.env_start,
        env_end: m.env_end,
        auxv: builder.blob(&facts.auxv),
        exe,
        dumpable: task.process.dumpable,
        flags: mm_flags_of(task),
        coredump_filter: facts.coredump_filter,
        vdso_addr: facts.vdso.addr,
        vdso_len: facts.vdso.len,
        vvar_addr: facts.vdso.vvar_addr,
        vvar_len: facts.vdso.vvar_len,
        vdso_code: builder.blob(&facts.vdso.code),
    };
    builder.tables.mms.push(record);
    let space = builder.tables.mms.len() as u32 - 1;
    builder.spaces.insert(task.pid, space);
    if let Some(earlier) = facts.earlier {
        builder.earlier.insert(space, earlier);
    }
    space
}

fn mm_flags_of(task: &TaskFacts) -> u32 {
    let thp = match task.process.thp_disable {
        0 => 0,
        mode if mode & PR_THP_DISABLE_EXCEPT_ADVISED != 0 => {
            mm_flags::THP_DISABLE | mm_flags::THP_EXCEPT_ADVISED
        }
        _ => mm_flags::THP_DISABLE,
    };
    let lock = match task.mm.lock_future {
        None => 0,
        Some(false) => mm_flags::LOCK_FUTURE,
        Some(true) => mm_flags::LOCK_FUTURE | mm_flags::LOCK_FUTURE_ONFAULT,
    };
    let merge = if task.process.memory_merge { mm_flags::MEMORY_MERGE } else { 0 };
    // Where the kernel does not tell: what programs register, without which membarrier(2) would fail.
    let membarrier = task.process.membarrier.unwrap_or(REGISTER_PRIVATE_EXPEDITED);
    thp | lock | merge | membarrier << mm_flags::MEMBARRIER_SHIFT
}

const PR_THP_DISABLE_EXCEPT_ADVISED: u32 = 2;

/// MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED.
const REGISTER_PRIVATE_EXPEDITED: u32 = 1 << 4;

const RESTART: &str = "dump it before it maps that, or make it unmap it";

/// The ring of an AIO context.
fn is_aio(shown: &Entry) -> bool {
    shown.path.starts_with(b"/[aio]")
}

/// Nothing tells whether requests are in flight.
fn aio(builder: &mut Builder, all: &Facts, index: usize, shown: &Entry) {
    const REMEDY: &str = "dump it when it has destroyed its AIO contexts";
    let pid = all.tasks[index].pid;
    let name = format!("mapping {:#x}-{:#x}: a ring of io_setup(2)", shown.start, shown.end);
    let others = all.tasks[..index].iter().flat_map(|t| &t.mm.vmas);
    if others.map(|v| &v.shown).any(|v| is_aio(v) && v.ino == shown.ino) {
        builder.refuse(pid, format!("{name} that belongs to the process that made this one"), REMEDY);
    } else if shown.offset != 0 {
        builder.refuse(pid, format!("{name}, of which a part is not mapped"), REMEDY);
    } else {
        let text =
            format!("{name} (asynchronous I/O), of which nobody can tell whether requests are in flight");
        builder.loss("aio", pid, text);
    }
}

/// Why a mapping cannot be saved, and what to do about it.
fn obstacle(vma: &VmaFacts, facts: &MemoryFacts, own_mounts: bool) -> Option<(&'static str, &'static str)> {
    let shown = &vma.shown;
    let path = &shown.path[..];
    let starts = |prefix: &str| path.starts_with(prefix.as_bytes());
    let named: &[(&str, &str, &str)] = &[
        (
            "anon_inode:[io_uring]",
            "an io_uring",
            "run the program without io_uring (node and libuv: UV_USE_IO_URING=0)",
        ),
        ("anon_inode:", "memory of a kernel object", RESTART),
        ("/secretmem", "memfd_secret(2) memory, which nobody else can read", RESTART),
        ("socket:", "the ring of a packet socket", RESTART),
        ("/dmabuf:", "a DMA buffer", RESTART),
        ("[uprobes]", "it is being traced with uprobes", "remove the probes (perf, bpftrace, systemtap)"),
    ];
    if let Some((_, what, remedy)) = named.iter().find(|(prefix, ..)| starts(prefix)) {
        return Some((what, remedy));
    }
    if shown.has(b"um") || shown.has(b"uw") || shown.has(b"ui") {
        return Some(("registered with a userfaultfd", "dump it when nothing handles its page faults"));
    }
    if shown.has(b"ss") {
        return Some(("a shadow stack", "start the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off"));
    }
    if shown.has(b"io") || shown.has(b"pf") {
        return Some(("memory of a device", "dump it before it opens the device (run it without GPU, say)"));
    }
    let kind = vma.file.and_then(|i| facts.files[i].stat).map(|s| s.kind());
    let elsewhere = vma.file.is_some_and(|i| facts.files[i].elsewhere);
    if shown.shared && shown.has(b"mw") && elsewhere && !own_mounts {
        return Some(("its path leads elsewhere outside of the program's root", "let it unmap the file"));
    }
    if !is_dev_zero(shown) && matches!(kind, Some(libc::S_IFCHR | libc::S_IFBLK)) {
        return Some(("a device", "dump it before it maps the device"));
    }
    let unnamed = vma.file.is_some_and(|i| !facts.files[i].present);
    let known = starts("/anon_hugepage") || segment(shown).is_some();
    if shown.shared && shown.has(b"ht") && unnamed && !known {
        return Some(("a memfd or deleted file of huge pages", "use anonymous huge pages, or a named file"));
    }
    if !shown.shared && shown.has(b"ht") && !starts("/anon_hugepage") && !path.is_empty() && path[0] == b'/' {
        return Some(("a private mapping of a hugetlbfs file", "map it shared, or use anonymous huge pages"));
    }
    None
}

/// A private mapping of /dev/zero is anonymous memory.
fn is_dev_zero(shown: &Entry) -> bool {
    shown.is("/dev/zero") && !shown.shared
}

fn kind_of(vma: &VmaFacts, facts: &MemoryFacts) -> VmaKind {
    let shown = &vma.shown;
    match vma.file.map(|i| &facts.files[i]) {
        _ if is_aio(shown) => VmaKind::AioRing,
        None => VmaKind::Anonymous,
        Some(_) if !shown.shared && (is_dev_zero(shown) || shown.path.starts_with(b"/anon_hugepage")) => {
            VmaKind::Anonymous
        }
        // Restored with `--memory map`: it stands for anonymous memory.
        Some(file) if !shown.shared && file.is_image => VmaKind::Anonymous,
        Some(_) if !shown.shared => VmaKind::FilePrivate,
        Some(file) if file.present => VmaKind::FileShared,
        Some(_) => VmaKind::SharedObject,
    }
}

fn vma_record(builder: &mut Builder, all: &Facts, task: &TaskFacts, vma: &VmaFacts) -> Vma {
    let (shown, pid, facts) = (&vma.shown, task.pid, &task.mm);
    let kind = kind_of(vma, facts);
    let file = vma.file.map(|i| &facts.files[i]);
    // Known as a whole, it is one object for all who map it or have it open.
    let recreated = file.is_some_and(|f| !f.present && f.data.is_some());
    let index = match (kind, file) {
        (VmaKind::FilePrivate, Some(file)) if recreated => nameless(builder, all, pid, vma, file),
        (VmaKind::FilePrivate, Some(file)) => named_file(builder, facts, file, file_flags::MUST_BE_IDENTICAL),
        (VmaKind::FileShared, Some(file)) => {
            let index = named_file(builder, facts, file, 0);
            posix_shm(builder, index, file);
            index
        }
        (VmaKind::SharedObject, Some(file)) => match super::sysv::file_of(builder, vma) {
            Some(segment) => segment,
            None => nameless(builder, all, pid, vma, file),
        },
        _ => NONE,
    };
    let name = ["[anon:", "[anon_shmem:"].iter().find_map(|p| shown.path.strip_prefix(p.as_bytes()));
    let name = name.and_then(|n| n.strip_suffix(b"]")).unwrap_or_default();
    let (dirty, embedded) = match (kind, file) {
        // MAP_DROPPABLE: state of vDSO random number generators, of which there must not be two. The kernel
        // itself may drop these pages at any time.
        (VmaKind::Anonymous, _) if shown.has(b"dp") => Default::default(),
        (VmaKind::AioRing, _) => {
            let first = builder.extent_mark();
            let source = Source::Memory { pid, addr: shown.start };
            builder.extent(shown.start, shown.end - shown.start, 0, &source);
            (builder.extents_since(first), Range::default())
        }
        (VmaKind::Anonymous, Some(file)) if file.is_image => {
            (all_pages(builder, pid, vma, file), Range::default())
        }
        (VmaKind::Anonymous, _) => (own_pages(builder, pid, vma, DROP_ZERO), Range::default()),
        // A page of zeros must be stored here: it covers the file's.
        (VmaKind::FilePrivate, Some(file)) => {
            let dirty = own_pages(builder, pid, vma, 0);
            (dirty, if recreated { Range::default() } else { embedded(builder, pid, vma, file) })
        }
        // Never writable: a cache or archive that is as much a part of the program as its libraries.
        (VmaKind::FileShared, Some(file)) if !shown.has(b"mw") => {
            (Range::default(), embedded(builder, pid, vma, file))
        }
        _ => Default::default(),
    };
    Vma {
        start: shown.start,
        end: shown.end,
        file_offset: if kind == VmaKind::Anonymous { 0 } else { shown.offset },
        prot: shown.prot,
        kind: kind as u32,
        flags: flags_of(shown),
        file: index,
        hugetlb_shift: if shown.has(b"ht") { shown.page_size.trailing_zeros() } else { 0 },
        name: builder.blob(name),
        dirty,
        embedded,
        pkey: shown.pkey,
        reserved: 0,
    }
}

fn flags_of(shown: &Entry) -> u64 {
    use vma_flags::*;
    let table: &[(&[u8; 2], u64)] = &[
        (b"gd", GROWSDOWN),
        (b"lo", LOCKED),
        (b"lf", LOCK_ONFAULT),
        (b"sr", SEQUENTIAL),
        (b"rr", RANDOM),
        (b"dc", DONTFORK),
        (b"wf", WIPEONFORK),
        (b"dd", DONTDUMP),
        (b"nr", NORESERVE),
        (b"hg", HUGEPAGE),
        (b"nh", NOHUGEPAGE),
        (b"mg", MERGEABLE),
        (b"ht", HUGETLB),
        (b"ac", ACCOUNT),
        (b"mw", MAYWRITE),
        (b"sf", SYNC),
        (b"sl", SEALED),
        (b"dp", DROPPABLE),
    ];
    let mut flags = table.iter().filter(|(letters, _)| shown.has(letters)).fold(0, |all, (_, bit)| all | bit);
    // mlock() populates, so what is locked but not all there was locked on fault; only newer kernels
    // say so.
    if flags & LOCKED != 0 && shown.prot != 0 && shown.rss + shown.swap < shown.end - shown.start {
        flags |= LOCK_ONFAULT;
    }
    flags
}

/// Extents for the pages that the process has to itself.
fn own_pages(builder: &mut Builder, pid: i32, vma: &VmaFacts, flags: u32) -> Range {
    let first = builder.extent_mark();
    let mut add = |run: &Span64<u64>, flags: u32| {
        let source = Source::Memory { pid, addr: run.start };
        builder.extent(run.start, run.end - run.start, flags, &source);
    };
    // Only anonymous memory is tracked, in this image and in the parent.
    let unwritten = if flags & DROP_ZERO != 0 { &vma.pages.unwritten[..] } else { &[] };
    for run in &vma.pages.own {
        let mut at = run.start;
        for same in pagemap::both(std::slice::from_ref(run), unwritten) {
            if same.start > at {
                add(&(at..same.start), flags);
            }
            add(&same, flags | UNCHANGED);
            at = same.end;
        }
        if run.end > at {
            add(&(at..run.end), flags);
        }
    }
    builder.extents_since(first)
}

/// Extents for all that a private mapping of a file shows: pages of the process's own, and the file's.
fn all_pages(builder: &mut Builder, pid: i32, vma: &VmaFacts, file: &MappedFile) -> Range {
    let first = builder.extent_mark();
    let own: Vec<&Span64<u64>> = vma.pages.own.iter().collect();
    let guards: Vec<&Span64<u64>> = vma.pages.guards.iter().collect();
    let mut taken: Vec<&Span64<u64>> = own.iter().chain(&guards).copied().collect();
    taken.sort_unstable_by_key(|r| r.start);
    let shown = &vma.shown;
    // What mremap(2) made longer than the file has nothing to show.
    let inside = file.stat.map_or(u64::MAX, |s| s.size.saturating_sub(shown.offset));
    let end = shown.start + (shown.end - shown.start).min(inside.next_multiple_of(PAGE_SIZE));
    let own = own.into_iter().map(|r| (r.clone(), true));
    let mut runs: Vec<_> =
        gaps(shown.start, end, &taken).into_iter().map(|r| (r, false)).chain(own).collect();
    runs.sort_unstable_by_key(|(r, _)| r.start);
    for (run, is_own) in runs {
        let source = match file.handle.filter(|_| !is_own) {
            Some(key) => {
                Source::File { key: MEMORY_FILES + key, offset: shown.offset + (run.start - shown.start) }
            }
            None => Source::Memory { pid, addr: run.start },
        };
        builder.extent(run.start, run.end - run.start, DROP_ZERO, &source);
    }
    builder.extents_since(first)
}

/// Extents for the file's own bytes, as far as the mapping shows them. A file that no path leads to
/// any more is always embedded.
fn embedded(builder: &mut Builder, pid: i32, vma: &VmaFacts, file: &MappedFile) -> Range {
    if !builder.options.embed && file.present {
        return Range::default();
    }
    let shown = &vma.shown;
    let whole = shown.end - shown.start;
    let inside = file.stat.map_or(whole, |s| s.size.saturating_sub(shown.offset));
    let end = shown.start + whole.min(inside.next_multiple_of(PAGE_SIZE));
    let first = builder.extent_mark();
    let flags = extent_flags::EMBEDDED_FILE | DROP_ZERO;
    let mut taken: Vec<&Span64<u64>> = vma.pages.own.iter().chain(&vma.pages.guards).collect();
    taken.sort_unstable_by_key(|r| r.start);
    for gap in gaps(shown.start, end, &taken) {
        let source = match file.handle {
            Some(key) => {
                Source::File { key: MEMORY_FILES + key, offset: shown.offset + (gap.start - shown.start) }
            }
            None => Source::Memory { pid, addr: gap.start },
        };
        builder.extent(gap.start, gap.end - gap.start, flags, &source);
    }
    builder.extents_since(first)
}

/// What of `[start, end)` is not in `taken` (ascending).
fn gaps(start: u64, end: u64, taken: &[&Span64<u64>]) -> Vec<Span64<u64>> {
    let mut out = Vec::new();
    let mut at = start;
    for t in taken {
        if t.start.min(end) > at {
            out.push(at..t.start.min(end));
        }
        at = at.max(t.end);
    }
    if at < end {
        out.push(at..end);
    }
    out
}

/// The record of a file that is found again by its path. Those that must be identical and those that
/// may have changed meanwhile are different records.
fn named_file(builder: &mut Builder, facts: &MemoryFacts, file: &MappedFile, flags: u32) -> u32 {
    // Of a deleted file that we may not reach, the part that is mapped is all that is known.
    let is_it = |v: &&VmaFacts| v.file.is_some_and(|i| std::ptr::eq(&facts.files[i], file));
    let ends = facts.vmas.iter().filter(is_it).map(|v| v.shown.offset + (v.shown.end - v.shown.start));
    let size = file.stat.map_or_else(|| ends.max().unwrap_or(0), |s| s.size);
    let key = FileKey { flags, ..FileKey::named(file.dev, file.ino, &file.path) };
    builder.file(key, |b| {
        let deleted = if file.present { 0 } else { file_flags::DELETED };
        FileIdent {
            path: b.blob(&file.path),
            build_id: b.blob(&file.build_id),
            flags: flags | deleted,
            size,
            ..ident(file)
        }
    })
}

/// POSIX shared memory (shm_open(3), sem_open(3)) does not outlive the machine's next boot: its contents
/// are stored, for the case that the name is gone at restore.
fn posix_shm(builder: &mut Builder, index: u32, file: &MappedFile) {
    let known = builder.tables.files[index as usize];
    let (Some(key), Some(stat)) = (file.handle, file.stat) else { return };
    if !file.path.starts_with(b"/dev/shm/") || known.flags & file_flags::CONTENTS != 0 {
        return;
    }
    let first = builder.extent_mark();
    builder.extent(0, stat.size, DROP_ZERO, &Source::File { key: MEMORY_FILES + key, offset: 0 });
    let contents = builder.extents_since(first);
    let record = &mut builder.tables.files[index as usize];
    record.flags |= file_flags::CONTENTS;
    record.contents = contents;
}

fn ident(file: &MappedFile) -> FileIdent {
    let stat: FileStat = file.stat.unwrap_or_default();
    FileIdent {
        dev: file.dev,
        ino: file.ino,
        size: stat.size,
        mtime_ns: stat.mtime_ns,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        rdev: stat.rdev,
        nlink: stat.nlink as u32,
        ..FileIdent::default()
    }
}

/// The record of a file or of shared memory that has no name, with its contents.
fn nameless(builder: &mut Builder, all: &Facts, pid: i32, vma: &VmaFacts, file: &MappedFile) -> u32 {
    builder.file(FileKey::unnamed(file.dev, file.ino), |b| {
        let (path, mut flags) = match &file.path[..] {
            p if p.starts_with(b"/memfd:") => (&p[7..], file_flags::MEMFD | file_flags::DELETED),
            b"/dev/zero" => (&b""[..], file_flags::ANON_SHARED),
            b"/anon_hugepage" => (&b""[..], file_flags::ANON_SHARED | file_flags::HUGETLB),
            p if p.starts_with(b"[anon_shmem:") => (&b""[..], file_flags::ANON_SHARED),
            p => (p, file_flags::DELETED),
        };
        let mapped = mappings_of(all, vma);
        let several = mapped.iter().any(|m| m.0 != mapped[0].0);
        if several && flags & file_flags::ANON_SHARED != 0 {
            flags |= file_flags::SEVERAL_MMS;
            if shown_page(vma) > stub::SHARED_ALIGN {
                let what =
                    format!("mapping {:#x}: huge pages of this size that processes share", vma.shown.start);
                b.refuse(pid, what, "use huge pages of 2 MiB");
            }
        }
        let end = |(_, v): &(i32, &VmaFacts)| v.shown.offset + (v.shown.end - v.shown.start);
        let mapped_end = mapped.iter().map(end).max().unwrap_or(0);
        let size = file.stat.map_or(mapped_end, |s| s.size);
        let first = b.extent_mark();
        match (file.handle, &file.data) {
            (Some(key), Some(data)) => {
                for &(offset, len) in data {
                    let source = Source::File { key: MEMORY_FILES + key, offset };
                    b.extent(offset, len, DROP_ZERO, &source);
                }
            }
            _ => contents_through_mappings(b, &mapped, size),
        }
        FileIdent {
            path: b.blob(path),
            size,
            flags: flags | file_flags::CONTENTS,
            contents: b.extents_since(first),
            ..ident(file)
        }
    })
}

/// Size of the pages of a mapping.
fn shown_page(vma: &VmaFacts) -> u64 {
    if vma.shown.has(b"ht") { vma.shown.page_size } else { PAGE_SIZE }
}

/// All mappings of the same object, whoever has them, by offset; each with the process.
fn mappings_of<'a>(all: &'a Facts, vma: &VmaFacts) -> Vec<(i32, &'a VmaFacts)> {
    let same = |other: &VmaFacts| other.shown.shared && key(&other.shown) == key(&vma.shown);
    let of_task = |t: &'a TaskFacts| t.mm.vmas.iter().map(|v| (t.pid, v));
    let mut found: Vec<_> = all.tasks.iter().flat_map(of_task).filter(|(_, v)| same(v)).collect();
    found.sort_by_key(|(_, v)| v.shown.offset);
    found
}

/// Without a handle an object is read where it is mapped. What is mapped nowhere, nobody can reach.
fn contents_through_mappings(builder: &mut Builder, mapped: &[(i32, &VmaFacts)], size: u64) {
    let mut at = 0;
    for &(pid, vma) in mapped {
        let m = &vma.shown;
        let start = at.max(m.offset);
        let end = (m.offset + (m.end - m.start)).min(size.next_multiple_of(PAGE_SIZE));
        if start >= end {
            continue;
        }
        at = end;
        let whole = m.start + (start - m.offset)..m.start + (end - m.offset);
        let runs = vma.resident.as_deref().unwrap_or(std::slice::from_ref(&whole));
        for run in runs {
            let (from, to) = (run.start.max(whole.start), run.end.min(whole.end));
            if from < to {
                let source = Source::Memory { pid, addr: from };
                builder.extent(m.offset + (from - m.start), to - from, DROP_ZERO, &source);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
#[path = "memory_tests.rs"]
mod tests;
