//! fanotify groups.

use super::{Planner, inotify, pid_of, regular};
use crate::collect::fd::Description;
use crate::collect::fd::fanotify::{FanotifyFacts, Mark, On};
use crate::collect::fd::find_inode::Place;
use crate::collect::fd::find_inode::user_device;
use ckpt_format::fd::fanotify::{Fanotify, FanotifyMark, fanotify_flags};
use ckpt_format::{NONE, Object, ObjectKind};
use zerocopy::IntoBytes;

const CAP_SYS_ADMIN: u64 = 1 << 21;
const FAN_CLASS_BITS: u32 = libc::FAN_CLASS_CONTENT | libc::FAN_CLASS_PRE_CONTENT;
/// What fanotify_init(2) takes up to Linux 6.14, but for the classes.
const KNOWN: u32 = 0x7ff3;
/// FAN_REPORT_FID, FAN_REPORT_DIR_FID, FAN_REPORT_NAME, FAN_REPORT_TARGET_FID.
const REPORT_FID: u32 = 0x1e00;
/// Flags for which CAP_SYS_ADMIN is needed (FANOTIFY_ADMIN_INIT_FLAGS): FAN_UNLIMITED_QUEUE,
/// FAN_UNLIMITED_MARKS, FAN_ENABLE_AUDIT, FAN_REPORT_PIDFD, FAN_REPORT_TID, FAN_REPORT_FD_ERROR.
const PRIVILEGED: u32 = 0x10 | 0x20 | 0x40 | 0x80 | 0x100 | 0x2000;
/// FAN_MARK_IGNORED_SURV_MODIFY, FAN_MARK_EVICTABLE, FAN_MARK_IGNORE.
const KNOWN_MARK: u32 = SURVIVES | 0x200 | 0x400;
const SURVIVES: u32 = 0x40;

const END: &str = "stop what watches file systems, and start it again afterwards";
const REMEDY: &str = "let the program end the mark, or tell where it is with `--search DIR` (all below that directory \
                      is looked through)";

pub fn fanotify(p: &mut Planner<'_>, d: &Description, facts: &FanotifyFacts) -> Option<Object> {
    let mut problems: Vec<(String, &str)> = Vec::new();
    if facts.flags & FAN_CLASS_BITS != 0 {
        let text = "a fanotify group that permits what others do: they would wait for its answers while it is not \
                    there, and so would the restore itself";
        problems.push((text.into(), END));
    } else if facts.flags & !KNOWN != 0 {
        problems.push((format!("a fanotify group with unknown flags {:#x}", facts.flags), END));
    }
    if let Some(line) = &facts.unknown {
        problems.push((format!("a fanotify group with something unknown (`{line}`)"), END));
    }
    if facts.waiting > 0 {
        let text = "events wait to be read, which the kernel lets nobody put back";
        problems.push((text.into(), "dump again when the program has read them"));
    }
    let mut marks: Vec<FanotifyMark> = Vec::with_capacity(facts.marks.len());
    for m in facts.marks.iter().filter(|m| m.mask != 0 || m.ignored != 0) {
        match mark(p, m) {
            Ok(mark) => marks.push(mark),
            Err(why) => problems.push((format!("a mark on {} {why}", name(m)), REMEDY)),
        }
    }
    if !problems.is_empty() {
        for (text, remedy) in problems {
            let text = format!("{}: {text}", p.name(d));
            p.refuse(d, text, remedy);
        }
        return None;
    }
    let state = if is_unprivileged(p, d, facts) { fanotify_flags::UNPRIVILEGED } else { 0 };
    let count = marks.len() as u32;
    let head = Fanotify { flags: facts.flags, event_flags: facts.event_flags, count, state };
    let mut bytes = head.as_bytes().to_vec();
    bytes.extend_from_slice(marks.as_bytes());
    let payload = p.b.blob(&bytes);
    Some(Object { kind: ObjectKind::Fanotify as u32, payload, inner: NONE, ..Object::default() })
}

fn mark(p: &mut Planner<'_>, m: &Mark) -> Result<FanotifyMark, &'static str> {
    if m.flags & !KNOWN_MARK != 0 {
        return Err("has unknown flags");
    }
    if m.ignored == 0 && m.flags & !0x200 != 0 {
        return Err("has an ignore mask that is empty by now");
    }
    if m.ignored != 0 && m.flags & SURVIVES == 0 && is_written(p, m) {
        // fs/notify/fanotify/fanotify_user.c, fanotify_add_inode_mark().
        return Err(
            "ignores events until the file is modified, which cannot be asked for while it is open for \
                    writing",
        );
    }
    let file = match &m.place {
        Place::Path(stat, path) => regular::named(p, stat, path),
        Place::Open(index) => inotify::nameless(p, *index).ok_or("is on what no path leads to")?,
        Place::Unknown => return Err("is on what was not found"),
    };
    let on = match m.on {
        On::Inode(_) => 0,
        On::Mount(_) => libc::FAN_MARK_MOUNT,
        On::FileSystem(_) => libc::FAN_MARK_FILESYSTEM,
    };
    Ok(FanotifyMark { mask: m.mask, ignored: m.ignored, on, flags: m.flags, file, reserved: 0 })
}

fn name(m: &Mark) -> String {
    let device = |d: u64| format!("{}:{}", d >> 20, d & 0xf_ffff);
    match &m.on {
        On::Inode(w) => format!("inode {} of device {}", w.ino, device(w.device)),
        On::Mount(id) => format!("mount {id}"),
        On::FileSystem(d) => format!("the file system of device {}", device(*d)),
    }
}

/// Whether a descriptor of the tree is open for writing on what is marked.
fn is_written(p: &Planner<'_>, m: &Mark) -> bool {
    let On::Inode(w) = &m.on else { return false };
    let here = (user_device(w.device), w.ino);
    p.fds.descriptions.iter().any(|d| (d.stat.dev, d.stat.ino) == here && d.access_mode() != libc::O_RDONLY)
}

/// Nothing tells it. A process without CAP_SYS_ADMIN has one only of the kind that an ordinary user can make,
/// unless it shows more than that.
fn is_unprivileged(p: &Planner<'_>, d: &Description, facts: &FanotifyFacts) -> bool {
    let possible = facts.flags & REPORT_FID != 0
        && facts.flags & PRIVILEGED == 0
        && facts.marks.iter().all(|m| matches!(m.on, On::Inode(_)));
    let task = p.tasks.iter().find(|t| t.pid == pid_of(d));
    let leader = task.and_then(|t| t.threads.first());
    possible && leader.is_some_and(|t| t.creds.cap_effective & CAP_SYS_ADMIN == 0)
}
