//! inotify instances: fdinfo tells the watched inodes, [`super::find_inode`] their paths.

use super::find_inode::{Place, Wanted};
use super::{Context, Detail, FdInfo, Probe};
use crate::sys;
use anyhow::{Context as _, Result};
use std::os::fd::AsFd;

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
    pub on: Wanted,
    /// Found by [`super::find_inode::resolve`], when all descriptions are known.
    pub place: Place,
}

/// What inotify_add_watch(2) takes; older kernels show more.
const USER_MASK: u32 = libc::IN_ALL_EVENTS | libc::IN_EXCL_UNLINK | libc::IN_ONESHOT;

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
            "ino" => w.on.ino = number()?,
            "sdev" => w.on.device = number()?,
            "mask" => w.mask = number()? as u32 & USER_MASK,
            "fhandle-type" => handle_type = number()? as i32,
            "f_handle" => w.on.handle = hex(value).map(|bytes| (handle_type, bytes)),
            _ => {}
        }
    }
    (w.wd != 0).then_some(w)
}

pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|p| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok()).collect()
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
        assert_eq!((w[0].wd, w[0].on.ino, w[0].on.device, w[0].mask), (10, 0x9e7e, 0x80_0013, 0x8000_0fce));
        assert_eq!(w[0].on.handle, Some((1, vec![0x7e, 0x9e, 0, 0, 0x64, 0x0d, 0x1b, 0x6d])));
        assert_eq!((w[1].wd, w[1].mask, w[1].on.handle.clone()), (1, 0x100, None));
    }
}
