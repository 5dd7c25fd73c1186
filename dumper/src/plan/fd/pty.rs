//! Pseudo-terminals that the program itself provides.

use super::{Planner, Sent, queue};
use crate::collect::fd::pty::MasterFacts;
use crate::collect::fd::tty::TtyFacts;
use crate::collect::fd::{Description, Detail};
use ckpt_format::fd::object_flags;
use ckpt_format::fd::tty::{Pty, pty_flags};
use ckpt_format::{NONE, Object, ObjectKind};

/// `/dev/tty`.
const DEV_TTY: (u32, u32) = (5, 0);

pub fn master(p: &mut Planner<'_>, index: usize, d: &Description, facts: &MasterFacts) -> Object {
    let inner = pair(p, index);
    if facts.discipline != 0 {
        refuse_discipline(p, d);
    }
    if facts.event {
        p.note("pty-event", d, &format!("{}: a change of state that was not read", p.name(d)));
    }
    let output = facts.output.iter().filter(|output| !output.is_empty());
    let queue = queue(p.b, output.map(|output| Sent::plain(output)));
    Object { kind: ObjectKind::PtyMaster as u32, inner, queue, ..Object::default() }
}

/// A slave; `master` is the description of its master.
pub fn slave(p: &mut Planner<'_>, d: &Description, facts: &TtyFacts, master: usize) -> Object {
    let inner = pair(p, master);
    if facts.discipline != 0 {
        refuse_discipline(p, d);
    }
    let through_dev_tty = (libc::major(d.stat.rdev), libc::minor(d.stat.rdev)) == DEV_TTY;
    let flags = if through_dev_tty { object_flags::DEV_TTY } else { 0 };
    Object { kind: ObjectKind::PtySlave as u32, flags, inner, ..Object::default() }
}

fn refuse_discipline(p: &mut Planner<'_>, d: &Description) {
    let what = format!("{}: a terminal with another line discipline than that of terminals", p.name(d));
    p.refuse(d, what, "end what uses it (PPP, SLIP, a serial mouse) before the dump");
}

/// The object of a pair, made by the first of its descriptions that is met.
fn pair(p: &mut Planner<'_>, master: usize) -> u32 {
    if let Some(known) = p.ptys.get(&master) {
        return *known;
    }
    let d = &p.fds.descriptions[master];
    let Detail::PtyMaster(facts) = &d.detail else { return NONE };
    let slaves: Vec<&TtyFacts> = p.fds.descriptions.iter().filter_map(|s| slave_of(s, master)).collect();
    let lost = outside(p, d, facts, &slaves);
    unread(p, d, facts, &slaves);
    let mut termios = [0; 48];
    termios[..44].copy_from_slice(&facts.termios);
    let node = facts.node.as_ref();
    let flags = [
        (facts.packets, pty_flags::PACKETS),
        (facts.locked, pty_flags::LOCKED),
        (facts.exclusive, pty_flags::MASTER_EXCLUSIVE),
        (slaves.iter().any(|s| s.exclusive), pty_flags::SLAVE_EXCLUSIVE),
        (facts.hung_up || lost, pty_flags::SLAVES_CLOSED),
        (node.is_some(), pty_flags::NODE_KNOWN),
    ];
    let path = node.map_or_else(|| format!("/dev/pts/{}", facts.number).into_bytes(), |n| n.path.clone());
    let record = Pty {
        path: p.b.blob(&path),
        ptmx: p.b.blob(&d.link),
        termios,
        winsize: facts.winsize,
        rdev: u64::from(facts.device),
        number: facts.number,
        flags: flags.iter().filter(|(set, _)| *set).fold(0, |all, (_, flag)| all | flag),
        uid: node.map_or(0, |n| n.uid),
        gid: node.map_or(0, |n| n.gid),
        mode: node.map_or(0, |n| n.mode),
        ..Pty::default()
    };
    let payload = p.b.payload(&record);
    let object = p.add(Object { kind: ObjectKind::Pty as u32, payload, inner: NONE, ..Object::default() });
    p.ptys.insert(master, object);
    object
}

fn slave_of(d: &Description, master: usize) -> Option<&TtyFacts> {
    match &d.detail {
        Detail::Tty(facts) if facts.master == Some(master) => Some(facts),
        _ => None,
    }
}

/// Whether those who have the slave open are all outside.
fn outside(p: &mut Planner<'_>, d: &Description, facts: &MasterFacts, slaves: &[&TtyFacts]) -> bool {
    let Some(session) = facts.session else { return false };
    if p.tasks.iter().any(|t| t.process.tty_nr == facts.device) {
        return false;
    }
    let what = format!(
        "{}: its terminal /dev/pts/{} is that of session {session}, outside the image",
        p.name(d),
        facts.number
    );
    p.loss("pty-outside", d, what);
    slaves.is_empty()
}

/// There is no way to look at what waits in a terminal without taking it.
fn unread(p: &mut Planner<'_>, d: &Description, facts: &MasterFacts, slaves: &[&TtyFacts]) {
    let input = slaves.iter().map(|s| s.unread).max().unwrap_or(0);
    let output = if facts.output.is_some() { 0 } else { facts.unread };
    for (bytes, whose) in [(output, "output"), (input, "input")] {
        if bytes > 0 {
            let terminal = format!("{} (/dev/pts/{})", p.name(d), facts.number);
            p.loss("pty-data", d, format!("{terminal}: {bytes} bytes of {whose} that nobody has read"));
        }
    }
}
