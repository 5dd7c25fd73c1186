//! eventfd, timerfd, signalfd.

use super::make::Maker;
use super::place::Placer;
use crate::report::{Error, Result};
use crate::sys::{Errno, Fd, fd, object as sys};
use ckpt_format::Object;
use ckpt_format::fd::event::{EventFd, SignalFd, TimerFd};

const EFD_SEMAPHORE: u32 = 1;
const TFD_TIMER_ABSTIME: u32 = 1;
const CLOCK_REALTIME: i32 = 0;
const CLOCK_REALTIME_ALARM: i32 = 8;

pub fn eventfd(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let saved: &EventFd = o.ctx.image.payload(object.payload)?;
    let failed = |e| Error::os("cannot make the eventfd")(e).on(o.on(index));
    let flags = if saved.semaphore != 0 { EFD_SEMAPHORE } else { 0 };
    let now = u32::try_from(saved.count).unwrap_or(u32::MAX);
    let fd = o.raise(sys::eventfd(now, flags).map_err(failed)?)?;
    let rest = saved.count - u64::from(now);
    if rest != 0 {
        fd::write_all(fd, &rest.to_le_bytes()).map_err(failed)?;
    }
    Ok(Some(fd))
}

/// It is set going by [`arm`].
pub fn timerfd(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let saved: &TimerFd = o.ctx.image.payload(object.payload)?;
    let fd = sys::timerfd_create(saved.clock).map_err(|e| {
        let error = Error::os("cannot make the timerfd")(e).on(o.on(index));
        match e {
            Errno::EPERM => error.remedy("its clock wakes the machine up, which needs CAP_WAKE_ALARM"),
            _ => error,
        }
    })?;
    o.raise(fd).map(Some)
}

/// Remaining time, or for an absolute time of the wall clock that same time.
pub fn arm(o: &Placer, fd: Fd, object: &'static Object) -> Result<()> {
    let saved: &TimerFd = o.ctx.image.payload(object.payload)?;
    let failed = |what| move |e| Error::os(what)(e).on(o.on(fd.0));
    let wall = [CLOCK_REALTIME, CLOCK_REALTIME_ALARM].contains(&saved.clock);
    let absolute = wall && saved.settime_flags & TFD_TIMER_ABSTIME != 0;
    // A periodic timer that was looked at while it expired; one that never did is disarmed.
    let expired = saved.remaining_ns == 0 && saved.ticks != 0;
    let remaining = if expired { saved.interval_ns } else { saved.remaining_ns };
    if remaining == 0 && saved.interval_ns != 0 {
        sys::timerfd_settime(fd, 0, saved.interval_ns, 0).map_err(failed("cannot set the timerfd"))?;
    }
    if remaining != 0 {
        let (flags, value) = if absolute {
            (saved.settime_flags, o.ctx.image.header.time_realtime.saturating_add(remaining))
        } else {
            (0, remaining)
        };
        sys::timerfd_settime(fd, flags, saved.interval_ns, value)
            .map_err(failed("cannot set the timerfd"))?;
    }
    if saved.ticks != 0 {
        sys::timerfd_set_ticks(fd, saved.ticks)
            .map_err(failed("cannot set the expirations of the timerfd"))?;
    }
    Ok(())
}

pub fn signalfd(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let saved: &SignalFd = o.ctx.image.payload(object.payload)?;
    let fd =
        sys::signalfd(saved.mask).map_err(|e| Error::os("cannot make the signalfd")(e).on(o.on(index)))?;
    o.raise(fd).map(Some)
}
