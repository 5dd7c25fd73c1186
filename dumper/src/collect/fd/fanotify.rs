//! fanotify groups: fdinfo tells what they were made with and their marks, [`super::find_inode`] the paths.

use super::find_inode::{self, Mount, Place, Wanted};
use super::inotify::hex;
use super::{Context, Description, Detail, FdInfo, Probe};
use crate::sys;
use anyhow::{Context as _, Result};
use std::collections::HashMap;
use std::os::fd::AsFd;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FanotifyFacts {
    /// As of fanotify_init(2).
    pub flags: u32,
    pub event_flags: u32,
    pub marks: Vec<Mark>,
    /// A line that nobody here understands.
    pub unknown: Option<String>,
    /// Bytes of events that wait to be read, at least.
    pub waiting: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub on: On,
    /// FAN_MARK_*.
    pub flags: u32,
    pub mask: u64,
    pub ignored: u64,
    pub place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    Inode(Wanted),
    /// By its id in mountinfo.
    Mount(u64),
    /// By its device as the kernel writes it.
    FileSystem(u64),
}

/// Places are found by [`find_inode::resolve`] and [`resolve_mounts`], when all descriptions are known.
pub fn collect(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    let waiting = sys::fd::readable_bytes(cx.duplicate(probe)?.as_fd()).context("FIONREAD")?;
    Ok(Detail::Fanotify(FanotifyFacts { waiting, ..facts(&probe.info) }))
}

fn facts(info: &FdInfo) -> FanotifyFacts {
    let mut facts = FanotifyFacts::default();
    for line in info.lines("fanotify ") {
        let fields = fields(line);
        let number = |key| number(&fields, key);
        match (number("flags"), number("event-flags"), mark(&fields)) {
            (Some(flags), Some(event_flags), None) => {
                facts.flags = flags as u32;
                facts.event_flags = event_flags as u32;
            }
            (None, None, Some(mark)) => facts.marks.push(mark),
            _ => facts.unknown = Some(line.to_owned()),
        }
    }
    facts
}

fn fields(line: &str) -> HashMap<&str, &str> {
    line.split_whitespace().filter_map(|word| word.split_once(':')).collect()
}

/// All are hexadecimal.
fn number(fields: &HashMap<&str, &str>, key: &str) -> Option<u64> {
    u64::from_str_radix(fields.get(key)?, 16).ok()
}

/// `ino:9e7e sdev:800013 mflags:40 mask:3b ignored_mask:1 fhandle-bytes:8 fhandle-type:1 f_handle:7e9e...`,
/// `mnt_id:1e ...` or `sdev:800013 ...` (fs/notify/fdinfo.c).
fn mark(fields: &HashMap<&str, &str>) -> Option<Mark> {
    let number = |key| number(fields, key);
    let on = match (number("ino"), number("mnt_id"), number("sdev")) {
        (Some(ino), None, Some(device)) => {
            let kind = number("fhandle-type").unwrap_or(0) as i32;
            let handle = fields.get("f_handle").and_then(|text| hex(text)).map(|bytes| (kind, bytes));
            On::Inode(Wanted { device, ino, handle })
        }
        (None, Some(id), None) => On::Mount(id),
        (None, None, Some(device)) => On::FileSystem(device),
        _ => return None,
    };
    let (mask, ignored) = (number("mask")?, number("ignored_mask")?);
    Some(Mark { on, flags: number("mflags")? as u32, mask, ignored, place: Place::Unknown })
}

/// Finds the mounts and file systems that are marked.
pub fn resolve_mounts(pids: &[i32], descriptions: &mut [Description]) {
    let is_group = |d: &Description| matches!(d.detail, Detail::Fanotify(_));
    if !descriptions.iter().any(is_group) {
        return;
    }
    let mounts = pids.first().map(|pid| find_inode::mounts(*pid)).unwrap_or_default();
    for d in descriptions {
        let Detail::Fanotify(facts) = &mut d.detail else { continue };
        for m in &mut facts.marks {
            match m.on {
                On::Inode(_) => {}
                On::Mount(id) => m.place = mounted(&mounts, |x| x.id == id),
                On::FileSystem(device) => {
                    m.place = mounted(&mounts, |x| x.device == find_inode::user_device(device));
                }
            }
        }
    }
}

/// A mount point that leads to such a mount, and not to one above it.
fn mounted(mounts: &[Mount], is: impl Fn(&Mount) -> bool) -> Place {
    let found = mounts.iter().filter(|m| is(m)).find_map(|m| Some((m.leads_there()?, m)));
    found.map_or(Place::Unknown, |(stat, m)| Place::Path(stat, m.point_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = "pos:\t0\nflags:\t02\nmnt_id:\t15\nfanotify flags:213 event-flags:8002\n\
            fanotify ino:4f969 sdev:800013 mflags:40 mask:3b ignored_mask:1 fhandle-bytes:2 fhandle-type:1 f_handle:69f9\n\
            fanotify mnt_id:1e mflags:0 mask:1000 ignored_mask:40000000\n\
            fanotify sdev:800013 mflags:400 mask:8000100 ignored_mask:0\n";
        let f = facts(&FdInfo::parse(text).unwrap());
        assert_eq!((f.flags, f.event_flags, f.marks.len(), f.unknown), (0x213, 0x8002, 3, None));
        let inode = Wanted { device: 0x80_0013, ino: 0x4f969, handle: Some((1, vec![0x69, 0xf9])) };
        assert_eq!((&f.marks[0].on, f.marks[0].flags), (&On::Inode(inode), 0x40));
        assert_eq!((f.marks[0].mask, f.marks[0].ignored), (0x3b, 1));
        assert_eq!((&f.marks[1].on, f.marks[1].ignored), (&On::Mount(0x1e), 0x4000_0000));
        assert_eq!((&f.marks[2].on, f.marks[2].flags), (&On::FileSystem(0x80_0013), 0x400));
        let text = "flags:\t02\nfanotify mnt_ns:1 mflags:0 mask:1000000 ignored_mask:0\n";
        assert!(facts(&FdInfo::parse(text).unwrap()).unknown.is_some());
    }
}
