//! Regular files, directories, device nodes; memfds and files without a name.

use super::Planner;
use crate::collect::fd::content::Contents;
use crate::collect::fd::regular::{FileFacts, MemfdFacts, NameState};
use crate::collect::fd::{Description, Detail, FileStat};
use crate::plan::FileKey;
use ckpt_format::fd::regular::{OpenFile, open_file_flags};
use ckpt_format::file::file_flags;
use ckpt_format::{FileIdent, NONE, Object, ObjectKind};
use elf_writer::Source;
use std::collections::BTreeSet;

/// Devices that hold no state for who has them open: null, zero, full, random, urandom, kmsg
/// (Documentation/admin-guide/devices.txt, major 1), and 5:0 `/dev/tty` and 5:2
/// `/dev/ptmx` opened with O_PATH.
const PLAIN_DEVICES: &[(u32, u32)] = &[(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (1, 11), (5, 0), (5, 2)];
const DEV_NULL: (u32, u32) = (1, 3);

/// `f_type` of statfs(2) (include/uapi/linux/magic.h): sizes there say nothing, or there are no
/// ordinary files at all.
const PROC: i64 = 0x9fa0;
const SYSFS: i64 = 0x6265_6572;
const NSFS: i64 = 0x6e73_6673;
const MQUEUE: i64 = 0x1980_0202;

pub fn file(p: &mut Planner<'_>, index: usize, d: &Description, facts: &FileFacts) -> Option<Object> {
    let rdev = (libc::major(d.stat.rdev), libc::minor(d.stat.rdev));
    let kind = d.stat.kind();
    let stdio = p.stdio_of(index);
    if kind == libc::S_IFCHR && rdev == DEV_NULL && p.is_roots_stdio(index) {
        return Some(p.inherit(&stdio, index, NONE));
    }
    if facts.fs_type == MQUEUE {
        let what = format!("{}: a POSIX message queue", p.name(d));
        p.refuse(d, what, "close it before the dump");
        return None;
    }
    let by_path = d.info.flags as i32 & libc::O_PATH != 0;
    if kind == libc::S_IFDIR && d.owner.1 != 0 {
        // Nothing else needs an owner of a directory (fs/notify/dnotify/dnotify.c sets it).
        let what = format!(
            "{}: directory notification (dnotify, fcntl(2) F_NOTIFY), which cannot be asked for",
            p.name(d)
        );
        p.refuse(d, what, "close it before the dump; inotify(7) can be saved");
    }
    if is_pressure(facts) && d.access_mode() != libc::O_RDONLY {
        let what = format!("{}: a pressure stall trigger, which cannot be asked for", p.name(d));
        p.refuse(d, what, "close it before the dump");
    }
    if kind == libc::S_IFCHR && !by_path && !PLAIN_DEVICES.contains(&rdev) {
        p.loss("device", d, format!("{}: the state of this device is not known", p.name(d)));
    }
    let deleted = deleted(p, d, facts)?;
    let of = of_process(p, index, d, facts)?;
    let file = if deleted { recreated(p, d, facts) } else { named(p, &d.stat, &facts.path) };
    let sized = kind == libc::S_IFREG && ![PROC, SYSFS, NSFS].contains(&facts.fs_type);
    let min_size = if sized { d.stat.size } else { 0 };
    let seen = if facts.seen { open_file_flags::SEEN } else { 0 };
    let late = facts.fs_type == PROC && d.info.pos != 0 && !by_path;
    let late = if late { open_file_flags::SEEK_LATE } else { 0 };
    let flags = of.flags | seen | late;
    let payload = p.b.payload(&OpenFile { file, seals: 0, min_size, flags, pid: of.pid });
    Some(Object {
        kind: ObjectKind::File as u32,
        offset: d.info.pos,
        payload,
        inner: NONE,
        ..Object::default()
    })
}

/// Whether the file must be recreated; `None` when it cannot be.
fn deleted(p: &mut Planner<'_>, d: &Description, facts: &FileFacts) -> Option<bool> {
    match facts.name {
        NameState::Present => Some(false),
        NameState::Deleted if facts.contents.is_some() || d.stat.kind() == libc::S_IFDIR => Some(true),
        NameState::Deleted => {
            let leased = d.info.locks.iter().any(|l| l.kind == "LEASE");
            let why = if leased { ", and has a lease" } else { "" };
            let what = format!("{}: it has been deleted{why}", p.name(d));
            p.refuse(d, what, "close it before the dump");
            None
        }
        NameState::NameLost if facts.contents.is_some() => {
            let text = format!(
                "{}: this name has been deleted, another hard link of the file exists elsewhere; \
                 after restore it is a file of its own",
                p.name(d)
            );
            p.loss("hardlink", d, text);
            Some(true)
        }
        NameState::Hidden => {
            let what = format!(
                "{}: a directory above it does not let you look at it (permission denied)",
                p.name(d)
            );
            p.refuse(d, what, "run ckpt-dump as root, or chmod that directory");
            None
        }
        NameState::NameLost | NameState::Replaced => {
            let what = format!("{}: this path leads to another file now", p.name(d));
            p.refuse(d, what, "close it, or undo what was mounted or renamed over it, before the dump");
            None
        }
    }
}

/// PSI files: /proc/pressure/memory, memory.pressure of a cgroup.
fn is_pressure(facts: &FileFacts) -> bool {
    facts.path.starts_with(b"/proc/pressure/") || facts.path.ends_with(b".pressure")
}

/// Whose file it is, if it is one of a process; `None` when that cannot be restored.
#[derive(Default)]
struct OfProcess {
    flags: u32,
    pid: i32,
}

fn of_process(p: &mut Planner<'_>, index: usize, d: &Description, facts: &FileFacts) -> Option<OfProcess> {
    let rest = facts.path.strip_prefix(b"/proc/").filter(|_| [PROC, NSFS].contains(&facts.fs_type));
    let Some((pid, rest)) = rest.and_then(leading_number) else { return Some(OfProcess::default()) };
    // In a pid namespace of its own, /proc shows what the program knows.
    let task = p.tasks.iter().position(|t| t.pid == pid || t.process.own_pid == pid);
    let Some(task) = task else {
        let what = format!("{}: a file of another process", p.name(d));
        p.refuse(d, what, "close it before the dump, or dump a process above both");
        return None;
    };
    let own = p.tasks[task].process.own_pid;
    let thread = rest.strip_prefix(b"/task/").and_then(leading_number);
    let is_early = task == 0 && thread.is_none_or(|(tid, _)| tid == pid);
    if is_early {
        // The root opens it, for whichever of its processes.
        return Some(OfProcess { flags: open_file_flags::OF_PROCESS, pid: own });
    }
    let tables = p.held[index].iter().map(|(table, _)| table).collect::<BTreeSet<_>>().len();
    let watched = p.fds.descriptions.iter().any(|e| {
        matches!(&e.detail, Detail::Epoll(targets) if targets.iter().any(|t| t.description == Some(index)))
    });
    if tables != 1 || watched {
        let why = if watched { "is in an epoll instance" } else { "several processes share" };
        let what = format!("{}: a file of PID {pid}, or of a thread, that {why}", p.name(d));
        p.refuse(d, what, "close it before the dump, or let each process open its own");
        return None;
    }
    Some(OfProcess { flags: open_file_flags::OF_PROCESS | open_file_flags::OPEN_LATE, pid: own })
}

fn leading_number(text: &[u8]) -> Option<(i32, &[u8])> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let (number, rest) = text.split_at(digits);
    Some((std::str::from_utf8(number).ok()?.parse().ok()?, rest))
}

/// Made by O_TMPFILE: the description that did it shows so.
fn tmpfile(p: &mut Planner<'_>, d: &Description, file: u32) {
    const TMPFILE: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;
    if d.info.flags as i32 & TMPFILE != 0 {
        let record = &mut p.b.tables.files[file as usize];
        record.flags |= file_flags::TMPFILE;
        record.open_flags = d.info.flags;
    }
}

/// What has no name any more.
fn recreated(p: &mut Planner<'_>, d: &Description, facts: &FileFacts) -> u32 {
    if d.stat.kind() != libc::S_IFREG {
        return without_name(p, &d.stat, &facts.path);
    }
    let contents = facts.contents.clone().unwrap_or_default();
    let file = nameless(p, &d.stat, &facts.path, file_flags::DELETED, &contents);
    tmpfile(p, d, file);
    file
}

/// The file behind a description that has no name any more; `None` for another one.
pub fn deleted_file(p: &mut Planner<'_>, d: &Description, facts: &FileFacts) -> Option<u32> {
    let gone = matches!(facts.name, NameState::Deleted | NameState::NameLost);
    let known = d.stat.kind() == libc::S_IFDIR || facts.contents.is_some();
    (gone && known).then(|| recreated(p, d, facts))
}

/// The file behind the description of a memfd.
pub fn memfd_file(p: &mut Planner<'_>, d: &Description, facts: &MemfdFacts) -> u32 {
    nameless(p, &d.stat, &facts.name, file_flags::MEMFD, &facts.contents)
}

pub fn memfd(p: &mut Planner<'_>, d: &Description, facts: &MemfdFacts) -> Object {
    if facts.huge_pages {
        let what = format!("{}: a memfd of huge pages", p.name(d));
        p.refuse(d, what, "use anonymous huge pages, or a file on a hugetlbfs");
    }
    let file = memfd_file(p, d, facts);
    let payload =
        p.b.payload(&OpenFile { file, seals: facts.seals, min_size: d.stat.size, ..OpenFile::default() });
    Object { kind: ObjectKind::Memfd as u32, offset: d.info.pos, payload, inner: NONE, ..Object::default() }
}

fn ident(stat: &FileStat, path: ckpt_format::Span) -> FileIdent {
    FileIdent {
        path,
        dev: stat.dev,
        ino: stat.ino,
        size: stat.size,
        mtime_ns: stat.mtime_ns,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        rdev: stat.rdev,
        nlink: u32::try_from(stat.nlink).unwrap_or(u32::MAX),
        ..FileIdent::default()
    }
}

/// A file that is opened by its path.
pub fn named(p: &mut Planner<'_>, stat: &FileStat, path: &[u8]) -> u32 {
    p.b.file(FileKey::named(stat.dev, stat.ino, path), |b| {
        let path = b.blob(path);
        ident(stat, path)
    })
}

/// A directory or FIFO that is recreated.
pub fn without_name(p: &mut Planner<'_>, stat: &FileStat, path: &[u8]) -> u32 {
    p.b.file(FileKey::unnamed(stat.dev, stat.ino), |b| {
        let path = b.blob(path);
        FileIdent { flags: file_flags::DELETED, ..ident(stat, path) }
    })
}

/// A file that is recreated, with its contents: `flags` says how. The whole of it is stored here,
/// whether or not parts of it are mapped too.
fn nameless(p: &mut Planner<'_>, stat: &FileStat, path: &[u8], flags: u32, contents: &Contents) -> u32 {
    let file = p.b.file(FileKey::unnamed(stat.dev, stat.ino), |b| {
        let path = b.blob(path);
        FileIdent { flags, ..ident(stat, path) }
    });
    if p.b.tables.files[file as usize].flags & file_flags::CONTENTS == 0 {
        let first = p.b.extent_mark();
        for (offset, len) in &contents.runs {
            p.b.extent(*offset, *len, 0, &Source::File { key: contents.key, offset: *offset });
        }
        let range = p.b.extents_since(first);
        let record = &mut p.b.tables.files[file as usize];
        record.flags |= flags | file_flags::CONTENTS;
        record.contents = range;
    }
    file
}
