//! Terminals: the caller's takes the place of the one at the dump.

use super::Planner;
use crate::collect::fd::Description;
use crate::collect::fd::tty::TtyFacts;
use ckpt_format::fd::tty::Tty;
use ckpt_format::{NONE, Object, ObjectKind};

/// Virtual consoles are 4:0 to 4:63 (Documentation/admin-guide/devices.txt).
const TTY_MAJOR: u32 = 4;
const FIRST_SERIAL: u32 = 64;

pub fn terminal(p: &mut Planner<'_>, index: usize, d: &Description, facts: &TtyFacts) -> Option<Object> {
    let mut termios = [0; 48];
    termios[..44].copy_from_slice(&facts.termios.unwrap_or([0; 44]));
    let path = p.b.blob(&d.link);
    // `tty_nr` of /proc/PID/stat is the old 16-bit-compatible encoding (new_encode_dev).
    let (major, minor) = (libc::major(d.stat.rdev), libc::minor(d.stat.rdev));
    let encoded = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    let controlling = u32::from(p.tasks.iter().any(|t| t.process.tty_nr == encoded));
    let payload = p.b.payload(&Tty {
        path,
        termios,
        winsize: facts.winsize,
        rdev: d.stat.rdev,
        controlling,
        ..Tty::default()
    });
    let terminal = Object {
        kind: ObjectKind::Tty as u32,
        payload,
        inner: NONE,
        open_flags: d.info.flags,
        ..Object::default()
    };
    let stdio = p.stdio_of(index);
    if stdio.is_empty() {
        if major == TTY_MAJOR && minor < FIRST_SERIAL {
            let what = format!("{}: a virtual console, whose screen and keyboard are not saved", p.name(d));
            p.refuse(d, what, "close it, or run the program in a terminal (tmux, screen) instead");
        }
        return Some(terminal);
    }
    let inner = p.add(terminal);
    Some(p.inherit(&stdio, index, inner))
}
