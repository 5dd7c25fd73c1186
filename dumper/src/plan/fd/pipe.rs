//! Pipes and FIFOs.

use super::{Planner, Sent, queue, regular};
use crate::collect::fd::outside::in_words;
use crate::collect::fd::pipe::{PipeData, PipeFacts};
use crate::collect::fd::{Description, Detail, FdFacts, path_of};
use ckpt_format::fd::object_flags;
use ckpt_format::fd::pipe::{Pipe, pipe_flags};
use ckpt_format::{NONE, Object, ObjectKind};
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

/// Longest packet (PIPE_BUF).
const PIPE_BUF: usize = 4096;

/// The descriptions that are ends of each pipe.
pub fn by_inode(fds: &FdFacts) -> HashMap<(u64, u64), Vec<usize>> {
    let mut pipes: HashMap<_, Vec<usize>> = HashMap::new();
    for (i, d) in fds.descriptions.iter().enumerate() {
        if matches!(d.detail, Detail::Pipe(_)) {
            pipes.entry((d.stat.dev, d.stat.ino)).or_default().push(i);
        }
    }
    pipes
}

/// Plans one end; the first end of a pipe that is met adds the pipe.
pub fn end(p: &mut Planner<'_>, index: usize, d: &Description) -> Option<Object> {
    let fds = p.fds;
    let of_pipe = p.pipes.get(&(d.stat.dev, d.stat.ino)).into_iter().flatten();
    let ends: Vec<(usize, &Description, &PipeFacts)> = of_pipe
        .map(|i| (*i, &fds.descriptions[*i]))
        .filter_map(|(i, e)| if let Detail::Pipe(facts) = &e.detail { Some((i, e, facts)) } else { None })
        .collect();
    let has = |mode| ends.iter().any(|(_, e, _)| [mode, libc::O_RDWR].contains(&e.access_mode()));
    let complete = has(libc::O_RDONLY) && has(libc::O_WRONLY);
    let ended = |facts: &PipeFacts| facts.other_end_closed || facts.no_writer_yet;
    if !complete && !ends.iter().any(|(_, _, facts)| ended(facts)) {
        let stdio: Vec<i32> = ends.iter().flat_map(|(i, ..)| p.stdio_of(*i)).collect();
        if let Some(lowest) = stdio.iter().min() {
            let own = p.stdio_of(index);
            let numbers = if own.is_empty() { vec![*lowest] } else { own };
            lost_input(p, d, &ends);
            return Some(p.inherit(&numbers, index, NONE));
        }
        let kind = if ends[0].2.named { "FIFO" } else { "pipe" };
        let other = ends.iter().map(|(_, _, facts)| &facts.outside).find(|o| !o.is_empty());
        let other = in_words(other.map_or(&[], Vec::as_slice));
        let text = format!(
            "{}: the other end of this {kind} is outside: {other}; after restore it is closed",
            p.name(d)
        );
        p.loss("pipe-outside", d, text);
    }
    let first = ends[0].0;
    let inner = if first == index {
        add_pipe(p, &ends)
    } else {
        // Planned already: descriptions are taken in order.
        p.b.tables.objects[p.object_of(first) as usize].inner
    };
    let no_writer_yet = matches!(&d.detail, Detail::Pipe(facts) if facts.no_writer_yet);
    let flags = if no_writer_yet { object_flags::NO_WRITER_YET } else { 0 };
    Some(Object { kind: ObjectKind::PipeEnd as u32, flags, inner, ..Object::default() })
}

/// What waits in a pipe whose writer is outside stays outside.
fn lost_input(p: &mut Planner<'_>, d: &Description, ends: &[(usize, &Description, &PipeFacts)]) {
    let data = ends.iter().find_map(|(_, _, facts)| facts.data.as_ref());
    let waiting: usize = data.map_or(0, |data| data.messages.iter().map(Vec::len).sum());
    if waiting > 0 {
        p.note("unread-input", d, &format!("{}: {waiting} bytes from outside that were not read", p.name(d)));
    }
}

fn add_pipe(p: &mut Planner<'_>, ends: &[(usize, &Description, &PipeFacts)]) -> u32 {
    let (_, d, facts) = ends[0];
    let path = path_of(&d.link).as_os_str().as_bytes();
    let file = match facts.named {
        true if path.len() < d.link.len() => regular::without_name(p, &d.stat, path),
        true => regular::named(p, &d.stat, path),
        false => NONE,
    };
    let none = PipeData::default();
    let data = ends.iter().find_map(|(_, _, f)| f.data.as_ref()).unwrap_or(&none);
    // In a byte stream all there is comes as one message.
    let direct = ends.iter().any(|(_, e, _)| e.info.flags as i32 & libc::O_DIRECT != 0);
    let several = data.messages.len() > 1;
    let fit = data.messages.iter().all(|m| m.len() <= PIPE_BUF);
    let packets = (direct || several) && fit;
    let mut writers = ends.iter().filter(|(_, e, _)| e.access_mode() == libc::O_WRONLY);
    if several && (!fit || writers.any(|(_, e, _)| e.info.flags as i32 & libc::O_DIRECT == 0)) {
        let what = format!("{}: packets (O_DIRECT) and bytes of an ordinary stream wait in it", p.name(d));
        p.refuse(d, what, "let the program read them before the dump");
    }
    let flags = if packets { pipe_flags::PACKETS } else { 0 };
    let payload = p.b.payload(&Pipe { capacity: facts.capacity, file, ino: d.stat.ino, flags, reserved: 0 });
    let queue = queue(p.b, data.messages.iter().map(|m| Sent::plain(m)));
    p.add(Object { kind: ObjectKind::Pipe as u32, payload, queue, inner: NONE, ..Object::default() })
}
