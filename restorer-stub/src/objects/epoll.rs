//! epoll instances.

use super::make::Maker;
use super::place::Placer;
use crate::report::{Error, Result, note};
use crate::sys::{Errno, Fd, fd, object as sys};
use ckpt_format::fd::event::{Epoll, EpollTarget};
use ckpt_format::{Object, ObjectKind, Span};

pub fn create(o: &Maker, index: u32, _: &'static Object) -> Result<Option<Fd>> {
    let fd =
        sys::epoll_create().map_err(|e| Error::os("cannot make the epoll instance")(e).on(o.on(index)))?;
    o.raise(fd).map(Some)
}

/// Registers what it watched, when all descriptors have their numbers and every object is still there.
pub fn fill(o: &Placer, epoll: Fd, object: &'static Object) -> Result<()> {
    let head: &Epoll = o.ctx.image.payload(object.payload)?;
    let len = u64::from(head.count) * size_of::<EpollTarget>() as u64;
    let span = Span { offset: object.payload.offset + size_of::<Epoll>() as u64, len };
    for target in o.ctx.image.records::<EpollTarget>(span)? {
        match add(o, epoll, target)? {
            Ok(()) => {}
            // What the caller gave instead is always ready, or never: nothing to wait for.
            Err(Errno::EPERM) if inherited(o, target) => note(format_args!(
                "fd {}: the program waits for events (epoll), of which what the caller gave has none",
                target.fd
            )),
            Err(e) => {
                return Err(Error::os("cannot register with the epoll instance")(e).on(o.on(target.fd)));
            }
        }
    }
    Ok(())
}

/// Whether both the watched object and what has its number now come from the caller.
fn inherited(o: &Placer, target: &EpollTarget) -> bool {
    let is = |index: u32| {
        o.given(index).is_some() || o.object(index).is_ok_and(|x| x.kind == ObjectKind::Inherited as u32)
    };
    is(target.object) && o.object_at(target.fd).is_none_or(is)
}

/// EPOLL_CTL_ADD under the number it had, which may be another's by now, or nobody's.
fn add(o: &Placer, epoll: Fd, target: &EpollTarget) -> Result<crate::sys::Result<()>> {
    let owner = o.object_at(target.fd);
    let register = || sys::epoll_add(epoll, target.fd, target.events, target.data);
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
