//! Pipes and FIFOs.

use super::{Planner, queue, regular};
use crate::collect::fd::pipe::{PipeData, PipeFacts};
use crate::collect::fd::{Description, Detail, path_of};
use ckpt_format::fd::pipe::{Pipe, pipe_flags};
use ckpt_format::{NONE, Object, ObjectKind};
use std::os::unix::ffi::OsStrExt;

/// Longest packet (PIPE_BUF).
const PIPE_BUF: usize = 4096;

/// Plans one end; the first end of a pipe that is met adds the pipe.
pub fn end(p: &mut Planner<'_>, index: usize, d: &Description) -> Option<Object> {
    let table = p.table;
    let ends: Vec<(usize, &Description, &PipeFacts)> = (table.descriptions.iter().enumerate())
        .filter(|(_, e)| (e.stat.dev, e.stat.ino) == (d.stat.dev, d.stat.ino))
        .filter_map(|(i, e)| if let Detail::Pipe(facts) = &e.detail { Some((i, e, facts)) } else { None })
        .collect();
    let has = |mode| ends.iter().any(|(_, e, _)| [mode, libc::O_RDWR].contains(&e.access_mode()));
    let complete = has(libc::O_RDONLY) && has(libc::O_WRONLY);
    if !complete && !ends.iter().any(|(_, _, facts)| facts.other_end_closed) {
        let stdio: Vec<i32> = ends.iter().flat_map(|(i, ..)| p.stdio_of(*i)).collect();
        if let Some(lowest) = stdio.iter().min() {
            let own = p.stdio_of(index);
            let numbers = if own.is_empty() { vec![*lowest] } else { own };
            return Some(p.inherit(&numbers, d, NONE));
        }
        let text = format!(
            "{}: the other end of this {} is outside; after restore it is closed",
            p.name(d),
            if ends[0].2.named { "FIFO" } else { "pipe" }
        );
        p.loss("pipe-outside", text);
    }
    let (first, first_end, _) = ends[0];
    let inner = if first == index {
        add_pipe(p, &ends)
    } else {
        // Planned already: descriptions are taken in order.
        p.b.tables.objects[p.object_of(first) as usize].inner
    };
    debug_assert_eq!(first_end.stat.ino, d.stat.ino);
    Some(Object { kind: ObjectKind::PipeEnd as u32, inner, ..Object::default() })
}

fn add_pipe(p: &mut Planner<'_>, ends: &[(usize, &Description, &PipeFacts)]) -> u32 {
    let (_, d, facts) = ends[0];
    let file = if facts.named {
        regular::named(p, &d.stat, path_of(&d.link).as_os_str().as_bytes())
    } else {
        NONE
    };
    let none = PipeData::default();
    let data = ends.iter().find_map(|(_, _, f)| f.data.as_ref()).unwrap_or(&none);
    // In a byte stream all there is comes as one message.
    let direct = ends.iter().any(|(_, e, _)| e.info.flags as i32 & libc::O_DIRECT != 0);
    let packets =
        (direct || data.messages.len() > 1) && data.messages.iter().all(|m| m.len() <= PIPE_BUF);
    let flags = if packets { pipe_flags::PACKETS } else { 0 };
    let payload = p.b.payload(&Pipe { capacity: facts.capacity, file, ino: d.stat.ino, flags, reserved: 0 });
    let queue = queue(p.b, &data.messages);
    p.add(Object { kind: ObjectKind::Pipe as u32, payload, queue, inner: NONE, ..Object::default() })
}
