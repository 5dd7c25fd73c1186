//! eventfd, timerfd, signalfd, epoll.

use super::Planner;
use crate::collect::fd::Description;
use crate::collect::fd::event::{EpollTarget, EventFdFacts, TimerFdFacts};
use ckpt_format::fd::event::{self, Epoll, EventFd, SignalFd, TimerFd};
use ckpt_format::{NONE, Object, ObjectKind};
use zerocopy::IntoBytes;

pub fn eventfd(p: &mut Planner<'_>, d: &Description, facts: &EventFdFacts) -> Object {
    if facts.semaphore.is_none() {
        let text = format!("fd {} (eventfd): whether it is a semaphore, which could not be told", d.fd);
        p.note("eventfd-semaphore", d, &text);
    }
    let semaphore = u32::from(facts.semaphore.unwrap_or(false));
    let payload = p.b.payload(&EventFd { count: facts.count, semaphore, reserved: 0 });
    Object { kind: ObjectKind::EventFd as u32, payload, inner: NONE, ..Object::default() }
}

pub fn timerfd(p: &mut Planner<'_>, facts: &TimerFdFacts) -> Object {
    let absolute = facts.settime_flags & libc::TFD_TIMER_ABSTIME as u32 != 0;
    let wall = [libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_ALARM].contains(&facts.clock);
    // Of a time of day: as from the time that the header says.
    let later = match facts.remaining_ns {
        0 => 0,
        _ if absolute && wall => facts.asked_at.saturating_sub(p.b.header.time_realtime),
        _ => 0,
    };
    let payload = p.b.payload(&TimerFd {
        clock: facts.clock,
        settime_flags: facts.settime_flags,
        interval_ns: facts.interval_ns,
        remaining_ns: facts.remaining_ns + later,
        ticks: facts.ticks,
        reserved: 0,
    });
    Object { kind: ObjectKind::TimerFd as u32, payload, inner: NONE, ..Object::default() }
}

pub fn signalfd(p: &mut Planner<'_>, mask: u64) -> Object {
    let payload = p.b.payload(&SignalFd { mask });
    Object { kind: ObjectKind::SignalFd as u32, payload, inner: NONE, ..Object::default() }
}

pub fn epoll(p: &mut Planner<'_>, d: &Description, targets: &[EpollTarget]) -> Object {
    let mut records = Vec::with_capacity(targets.len());
    for t in targets {
        let Some(description) = t.description else {
            let what = format!(
                "fd {} (epoll): it watches an open file (registered as fd {}) that no descriptor refers to any more",
                d.fd, t.fd
            );
            p.refuse(d, what, "remove it from the epoll instance before the dump");
            continue;
        };
        let object = p.object_of(description);
        records.push(event::EpollTarget { fd: t.fd, events: t.events, data: t.data, object, seen: t.seen });
    }
    let mut bytes = Epoll { count: records.len() as u32, reserved: 0 }.as_bytes().to_vec();
    bytes.extend_from_slice(records.as_bytes());
    let payload = p.b.blob(&bytes);
    Object { kind: ObjectKind::Epoll as u32, payload, inner: NONE, ..Object::default() }
}
