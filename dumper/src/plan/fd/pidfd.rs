//! pidfds.

use super::Planner;
use crate::collect::fd::Description;
use crate::collect::fd::pidfd::PidfdFacts;
use ckpt_format::fd::pidfd::{Pidfd, pidfd_flags};
use ckpt_format::{NONE, Object, ObjectKind};

pub fn pidfd(p: &mut Planner<'_>, d: &Description, facts: &PidfdFacts) -> Option<Object> {
    let flags = if facts.thread { pidfd_flags::THREAD } else { 0 };
    let tid = match facts.tid {
        -1 => 0,
        seen => match p.own_id(seen) {
            Some(own) => own,
            None => {
                let whose = match seen {
                    0 => "a process in another pid namespace".to_owned(),
                    _ => format!("process {seen} ({})", facts.name),
                };
                let text = format!(
                    "{}: a pidfd of {whose}, outside the image; without it, it is one of a process that has ended",
                    p.name(d)
                );
                p.loss("pidfd-outside", d, text);
                0
            }
        },
    };
    if tid != 0 && d.on_the_way_to.is_some() {
        let what = format!("{}: a pidfd of process {tid}", p.name(d));
        p.refuse(d, what, "let the program receive it before the dump");
        return None;
    }
    let payload = p.b.payload(&Pidfd { tid, flags, status: facts.status.unwrap_or(0), reserved: 0 });
    Some(Object { kind: ObjectKind::Pidfd as u32, payload, inner: NONE, ..Object::default() })
}
