//! inotify instances.

use super::{Planner, regular};
use crate::collect::fd::find_inode::Place;
use crate::collect::fd::inotify::InotifyFacts;
use crate::collect::fd::{Description, Detail};
use ckpt_format::fd::inotify::{Inotify, InotifyWatch, inotify_flags};
use ckpt_format::{NONE, Object, ObjectKind};
use zerocopy::IntoBytes;

const REMEDY: &str = "tell where it is with `--search DIR` (all below that directory is looked through), or let the \
                      program end the watch";

pub fn inotify(p: &mut Planner<'_>, d: &Description, facts: &InotifyFacts) -> Object {
    let mut flags = 0;
    if facts.waiting > 0 {
        flags |= inotify_flags::OVERFLOW;
        let text = format!(
            "{}: {} bytes of events wait to be read, which the kernel lets nobody put back; the program is told \
             that events were lost (IN_Q_OVERFLOW)",
            p.name(d),
            facts.waiting
        );
        p.loss("inotify-events", d, text);
    }
    let mut watches: Vec<InotifyWatch> = Vec::with_capacity(facts.watches.len());
    for w in &facts.watches {
        let file = match &w.place {
            Place::Path(stat, path) => regular::named(p, stat, path),
            Place::Open(index) => {
                let Some(file) = nameless(p, *index) else {
                    let text = format!(
                        "{}: watch {} is on {}, which no path leads to",
                        p.name(d),
                        w.wd,
                        p.fds.descriptions[*index].link_text()
                    );
                    p.refuse(d, text, "let the program end the watch");
                    continue;
                };
                file
            }
            Place::Unknown => {
                let what = format!(
                    "{}: watch {} is on inode {} of device {}:{}, whose path was not found",
                    p.name(d),
                    w.wd,
                    w.on.ino,
                    w.on.device >> 20,
                    w.on.device & 0xf_ffff
                );
                p.refuse(d, what, REMEDY);
                continue;
            }
        };
        watches.push(InotifyWatch { wd: w.wd, mask: w.mask, file, reserved: 0 });
    }
    watches.sort_by_key(|w| w.wd);
    let mut bytes = Inotify { count: watches.len() as u32, flags }.as_bytes().to_vec();
    bytes.extend_from_slice(watches.as_bytes());
    let payload = p.b.blob(&bytes);
    Object { kind: ObjectKind::Inotify as u32, payload, inner: NONE, ..Object::default() }
}

/// The file of a description that has no name and is made anew.
pub(super) fn nameless(p: &mut Planner<'_>, index: usize) -> Option<u32> {
    let d = &p.fds.descriptions[index];
    match &d.detail {
        Detail::File(facts) => regular::deleted_file(p, d, facts),
        Detail::Memfd(facts) => Some(regular::memfd_file(p, d, facts)),
        _ => None,
    }
}
