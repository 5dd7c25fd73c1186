//! Regular files, directories, device nodes; memfds and files without a name.

use super::Planner;
use crate::collect::fd::content::Contents;
use crate::collect::fd::regular::{FileFacts, MemfdFacts, NameState};
use crate::collect::fd::{Description, FileStat};
use crate::plan::FileKey;
use ckpt_format::fd::regular::OpenFile;
use ckpt_format::file::file_flags;
use ckpt_format::{FileIdent, NONE, Object, ObjectKind};
use elf_writer::Source;
use std::borrow::Cow;

/// Devices that hold no state for who has them open: null, zero, full, random, urandom, kmsg
/// (Documentation/admin-guide/devices.txt, major 1), and 5:0 `/dev/tty` and 5:2
/// `/dev/ptmx` opened with O_PATH.
const PLAIN_DEVICES: &[(u32, u32)] = &[(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (1, 11), (5, 0), (5, 2)];
const DEV_NULL: (u32, u32) = (1, 3);

/// `f_type` of statfs(2) (include/uapi/linux/magic.h): sizes there say nothing, or there are no
/// ordinary files at all.
const PROC: i64 = 0x9fa0;
const SYSFS: i64 = 0x6265_6572;
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
    if kind == libc::S_IFCHR && !PLAIN_DEVICES.contains(&rdev) {
        p.loss("device", d, format!("{}: the state of this device is not known", p.name(d)));
    }
    let deleted = deleted(p, d, facts)?;
    let path = path(p, d, facts)?;
    let file = if deleted {
        let contents = facts.contents.clone().unwrap_or_default();
        nameless(p, &d.stat, &path, file_flags::DELETED, &contents)
    } else {
        named(p, &d.stat, &path)
    };
    let sized = kind == libc::S_IFREG && ![PROC, SYSFS].contains(&facts.fs_type);
    let min_size = if sized { d.stat.size } else { 0 };
    let payload = p.b.payload(&OpenFile { file, seals: 0, min_size, reserved: 0 });
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
        NameState::Deleted if facts.contents.is_some() => Some(true),
        NameState::Deleted => {
            let what = format!("{}: it has been deleted", p.name(d));
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
        NameState::NameLost | NameState::Replaced => {
            let what = format!("{}: this path leads to another file now", p.name(d));
            p.refuse(d, what, "close it, or undo what was mounted or renamed over it, before the dump");
            None
        }
    }
}

/// The path at restore: files of the process itself below /proc are at another place then.
fn path<'f>(p: &mut Planner<'_>, d: &Description, facts: &'f FileFacts) -> Option<Cow<'f, [u8]>> {
    let plain = Some(Cow::Borrowed(facts.path.as_slice()));
    if facts.fs_type != PROC {
        return plain;
    }
    let Some(rest) = facts.path.strip_prefix(b"/proc/") else { return plain };
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return plain;
    }
    // The root opens it, for whichever of its processes.
    let root = p.tasks.first().map_or(0, |t| t.pid);
    if rest[..digits] == *root.to_string().as_bytes() {
        return Some(Cow::Owned([b"/proc/self", &rest[digits..]].concat()));
    }
    let what = format!("{}: a file of another process", p.name(d));
    p.refuse(d, what, "close it before the dump");
    None
}

pub fn memfd(p: &mut Planner<'_>, d: &Description, facts: &MemfdFacts) -> Object {
    if facts.huge_pages {
        let what = format!("{}: a memfd of huge pages", p.name(d));
        p.refuse(d, what, "use anonymous huge pages, or a file on a hugetlbfs");
    }
    let file = nameless(p, &d.stat, &facts.name, file_flags::MEMFD, &facts.contents);
    let payload = p.b.payload(&OpenFile { file, seals: facts.seals, min_size: d.stat.size, reserved: 0 });
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
