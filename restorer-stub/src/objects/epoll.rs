//! epoll instances.

use super::make::Maker;
use super::place::Placer;
use crate::report::{Error, Result, note};
use crate::sys::{Errno, Fd, fd, object as sys};
use ckpt_format::fd::event::{Epoll, EpollTarget};
use ckpt_format::{Object, ObjectKind, Span};
use linux_raw_sys::general::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD};

/// EPOLLET; with EPOLLONESHOT, EPOLLWAKEUP and EPOLLEXCLUSIVE what is never reported (EP_PRIVATE_BITS).
const EDGE: u32 = 1 << 31;
const ONE_SHOT: u32 = 1 << 30;
const HOW: u32 = EDGE | ONE_SHOT | 1 << 29 | 1 << 28;
/// All that is reported: EPOLLIN, PRI, OUT, ERR, HUP, RDNORM, RDBAND, WRNORM, WRBAND, MSG, RDHUP.
const ANY: u32 = 0x27df;
/// Instances in instances (EP_MAX_NESTS).
const DEPTH: u32 = 5;

pub fn create(o: &Maker, index: u32, _: &'static Object) -> Result<Option<Fd>> {
    let fd =
        sys::epoll_create().map_err(|e| Error::os("cannot make the epoll instance")(e).on(o.on(index)))?;
    o.raise(fd).map(Some)
}

fn targets(o: &Placer, object: &'static Object) -> Result<&'static [EpollTarget]> {
    let head: &Epoll = o.ctx.image.payload(object.payload)?;
    let len = u64::from(head.count) * size_of::<EpollTarget>() as u64;
    let span = Span { offset: object.payload.offset + size_of::<Epoll>() as u64, len };
    Ok(o.ctx.image.records::<EpollTarget>(span)?)
}

/// How many instances are below one another in this one.
fn height(o: &Placer, object: &'static Object, depth: u32) -> u32 {
    let below = targets(o, object).unwrap_or(&[]).iter().filter_map(|t| o.object(t.object).ok());
    let epolls = below.filter(|x| x.kind == ObjectKind::Epoll as u32 && depth > 0);
    epolls.map(|x| 1 + height(o, x, depth - 1)).max().unwrap_or(0)
}

/// Registers what all instances watched, when everything that they watch is as it was. Inner ones come first:
/// what happens in them is no news for the outer ones then.
pub fn fill_all(o: &Placer) -> Result<()> {
    for wanted in 0..=DEPTH {
        for (index, object) in (0..).zip(o.ctx.image.objects) {
            if object.kind == ObjectKind::Epoll as u32
                && o.is_first(index)
                && let Some(epoll) = o.placed(index)
                && height(o, object, DEPTH) == wanted
            {
                fill(o, epoll, object)?;
            }
        }
    }
    Ok(())
}

/// First what must not be reported, one by one, as long as nothing else can be.
fn fill(o: &Placer, epoll: Fd, object: &'static Object) -> Result<()> {
    let targets = targets(o, object)?;
    for target in targets.iter().filter(|t| is_silent(t)) {
        watch(o, epoll, target)?;
    }
    for target in targets.iter().filter(|t| !is_silent(t)) {
        watch(o, epoll, target)?;
    }
    Ok(())
}

fn is_silent(t: &EpollTarget) -> bool {
    has_fired(t) || t.seen != 0
}

/// A one-shot that waits to be armed again.
fn has_fired(t: &EpollTarget) -> bool {
    t.events & ONE_SHOT != 0 && t.events & !HOW == 0
}

fn watch(o: &Placer, epoll: Fd, target: &EpollTarget) -> Result<()> {
    match with_number(o, target, || register(epoll, target))? {
        Ok(()) => Ok(()),
        // What the caller gave instead is always ready, or never: nothing to wait for.
        Err(Errno::EPERM) if inherited(o, target) => {
            note(format_args!(
                "fd {}: the program waits for events (epoll), of which what the caller gave has none",
                target.fd
            ));
            Ok(())
        }
        Err(e) => Err(Error::os("cannot register with the epoll instance")(e).on(o.on(target.fd))),
    }
}

/// EPOLL_CTL_ADD. What is true at that moment would be reported: what the program knows is taken out again.
fn register(epoll: Fd, t: &EpollTarget) -> crate::sys::Result<()> {
    let control = |op, events| sys::epoll_control(epoll, op, t.fd, events, t.data);
    if has_fired(t) {
        // The kernel adds EPOLLERR and EPOLLHUP to what is asked for, except when it has fired.
        control(EPOLL_CTL_ADD, t.events | ANY)?;
        return match sys::epoll_take(epoll)? {
            Some(_) => Ok(()),
            None => control(EPOLL_CTL_MOD, t.events),
        };
    }
    control(EPOLL_CTL_ADD, t.events)?;
    if t.seen == 0 {
        return Ok(());
    }
    match sys::epoll_take(epoll)? {
        // News: a connection that is broken now, for example.
        Some(events) if events & !t.seen != 0 => {
            control(EPOLL_CTL_DEL, 0)?;
            control(EPOLL_CTL_ADD, t.events)
        }
        _ => Ok(()),
    }
}

/// Whether both the watched object and what has its number now come from the caller.
fn inherited(o: &Placer, target: &EpollTarget) -> bool {
    let is = |index: u32| {
        o.given(index).is_some() || o.object(index).is_ok_and(|x| x.kind == ObjectKind::Inherited as u32)
    };
    is(target.object) && o.object_at(target.fd).is_none_or(is)
}

/// Runs `register` while the object has the number it was registered with, which may be another's by now,
/// or nobody's.
fn with_number(
    o: &Placer,
    target: &EpollTarget,
    register: impl Fn() -> crate::sys::Result<()>,
) -> Result<crate::sys::Result<()>> {
    let owner = o.object_at(target.fd);
    if owner == Some(target.object) || (owner.is_some() && inherited(o, target)) {
        return Ok(register());
    }
    let failed = |e| Error::os("cannot use the number that an epoll instance knows")(e).on(o.on(target.fd));
    let watched =
        o.ctx.objects.made(target.object).ok_or(Error::new("the image is damaged: epoll watches nothing"))?;
    let occupant = match owner {
        Some(_) => Some(fd::dup_above(Fd(target.fd), o.ctx.high_fd()).map_err(failed)?),
        None => None,
    };
    fd::dup_to(watched, target.fd, true).map_err(failed)?;
    let result = register();
    match occupant {
        Some(old) => {
            let cloexec = o.fds.iter().any(|e| e.fd == target.fd && e.cloexec != 0);
            fd::dup_to(old, target.fd, cloexec).map_err(failed)?;
            fd::close(old);
        }
        None => fd::close(Fd(target.fd)),
    }
    Ok(result)
}
