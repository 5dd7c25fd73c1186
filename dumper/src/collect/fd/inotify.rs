//! inotify instances: fdinfo tells the watched inodes, [`super::find_inode`] their paths.

use super::find_inode::{self, Wanted};
use super::{Context, Description, Detail, FdInfo, FileStat, Probe};
use crate::sys;
use anyhow::{Context as _, Result};
use std::os::fd::AsFd;
use std::path::PathBuf;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InotifyFacts {
    pub watches: Vec<Watch>,
    /// Bytes of events that wait to be read.
    pub waiting: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    pub wd: i32,
    /// Events, IN_EXCL_UNLINK and IN_ONESHOT.
    pub mask: u32,
    pub ino: u64,
    /// As the kernel writes it: major << 20 | minor.
    pub device: u64,
    /// `struct file_handle`: type and bytes.
    pub handle: Option<(i32, Vec<u8>)>,
    pub place: Place,
}

/// Where what is watched can be found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    #[default]
    Unknown,
    Path(FileStat, Vec<u8>),
    /// Only a description (index) leads to it.
    Open(usize),
}

/// What inotify_add_watch(2) takes; older kernels show more.
const USER_MASK: u32 = libc::IN_ALL_EVENTS | libc::IN_EXCL_UNLINK | libc::IN_ONESHOT;

/// Places are found by [`resolve`], when all descriptions are known.
pub fn collect(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    let waiting = sys::fd::readable_bytes(cx.duplicate(probe)?.as_fd()).context("FIONREAD")?;
    Ok(Detail::Inotify(InotifyFacts { watches: watches(&probe.info), waiting }))
}

fn watches(info: &FdInfo) -> Vec<Watch> {
    info.lines("inotify ").filter_map(watch).collect()
}

/// `wd:1 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:7e9e...`
/// (fs/notify/fdinfo.c), all in hexadecimal.
fn watch(line: &str) -> Option<Watch> {
    let mut w = Watch::default();
    let mut handle_type = 0;
    for (key, value) in line.split_whitespace().filter_map(|word| word.split_once(':')) {
        let number = || u64::from_str_radix(value, 16).ok();
        match key {
            "wd" => w.wd = number()? as i32,
            "ino" => w.ino = number()?,
            "sdev" => w.device = number()?,
            "mask" => w.mask = number()? as u32 & USER_MASK,
            "fhandle-type" => handle_type = number()? as i32,
            "f_handle" => w.handle = hex(value).map(|bytes| (handle_type, bytes)),
            _ => {}
        }
    }
    (w.wd != 0).then_some(w)
}

pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|p| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok()).collect()
}

/// Finds what is watched, for all instances at once: `search` are directories that the user named.
pub fn resolve(pids: &[i32], descriptions: &mut [Description], search: &[PathBuf]) {
    // By what is open without a name; then by path.
    let unnamed = find_inode::unnamed(descriptions);
    let mut wanted: Vec<Wanted> = Vec::new();
    for d in descriptions.iter_mut() {
        let Detail::Inotify(facts) = &mut d.detail else { continue };
        for w in &mut facts.watches {
            match unnamed.get(&(find_inode::user_device(w.device), w.ino)) {
                Some(index) => w.place = Place::Open(*index),
                None => wanted.push(Wanted { device: w.device, ino: w.ino, handle: w.handle.clone() }),
            }
        }
    }
    if wanted.is_empty() {
        return;
    }
    let links: Vec<&[u8]> = descriptions.iter().map(|d| d.link.as_slice()).collect();
    let found = find_inode::find(pids, &links, wanted, search);
    for d in descriptions.iter_mut() {
        let Detail::Inotify(facts) = &mut d.detail else { continue };
        for w in facts.watches.iter_mut().filter(|w| w.place == Place::Unknown) {
            if let Some((stat, path)) = found.get(&(w.device, w.ino)) {
                w.place = Place::Path(*stat, path.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watch_lines() {
        let text = "pos:\t0\nflags:\t02000000\n\
            inotify wd:a ino:9e7e sdev:800013 mask:88000fce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:7e9e0000640d1b6d\n\
            inotify wd:1 ino:2 sdev:19 mask:100 ignored_mask:0\n";
        let w = watches(&FdInfo::parse(text).unwrap());
        assert_eq!((w[0].wd, w[0].ino, w[0].device, w[0].mask), (10, 0x9e7e, 0x80_0013, 0x8000_0fce));
        assert_eq!(w[0].handle, Some((1, vec![0x7e, 0x9e, 0, 0, 0x64, 0x0d, 0x1b, 0x6d])));
        assert_eq!((w[1].wd, w[1].mask, w[1].handle.clone()), (1, 0x100, None));
    }
}
