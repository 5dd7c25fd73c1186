//! Interval timers and POSIX timers: created early, armed at the very end.

use crate::ctx::Ctx;
use crate::report::{Error, On, Result};
use crate::sys::process;
use crate::sys::signal::{self, SigEvent};
use ckpt_format::{Image, PosixTimer, Task};
use linux_raw_sys::prctl::{
    PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_OFF, PR_TIMER_CREATE_RESTORE_IDS_ON,
};

/// SIGEV_THREAD_ID.
const THREAD_ID: i32 = 4;

fn posix<'a>(ctx: &Ctx, task: &Task) -> Result<&'a [PosixTimer]>
where
    'static: 'a,
{
    Ok(Image::slice(ctx.image.posix_timers, task.posix_timers, "timers")?)
}

/// Creates the POSIX timers under their ids. Threads exist.
pub fn create(ctx: &Ctx, task: &Task) -> Result<()> {
    let timers = posix(ctx, task)?;
    if timers.is_empty() {
        return Ok(());
    }
    // Linux 6.16: ids on request.
    let on = u64::from(PR_TIMER_CREATE_RESTORE_IDS_ON);
    let by_request = process::prctl(PR_TIMER_CREATE_RESTORE_IDS, on, 0).is_ok();
    let mut last = -1;
    for t in timers {
        if t.id <= last {
            return Err(Error::new("the image is damaged: timers are not sorted"));
        }
        last = t.id;
        create_one(ctx, t)?;
    }
    if by_request {
        let off = u64::from(PR_TIMER_CREATE_RESTORE_IDS_OFF);
        let _ = process::prctl(PR_TIMER_CREATE_RESTORE_IDS, off, 0);
    }
    Ok(())
}

/// Ids count up for the life of a process: timers are made and deleted until it is reached (about
/// 1 us each), where it cannot be asked for.
fn create_one(ctx: &Ctx, t: &PosixTimer) -> Result<()> {
    let on = On::Number(t.id as u64);
    let tid = if t.notify & THREAD_ID != 0 { ctx.map_id(t.tid) } else { 0 };
    let event = SigEvent { value: t.value, signo: t.signo, notify: t.notify, tid, pad: [0; 11] };
    loop {
        let id = signal::timer_create(t.clock, &event, t.id)
            .map_err(|e| Error::os("cannot create timer")(e).on(on))?;
        if id == t.id {
            return Ok(());
        }
        signal::timer_delete(id);
        if id > t.id {
            return Err(Error::new("the kernel gives no timer the id").on(on));
        }
    }
}

/// Starts all timers with their remaining time.
pub fn arm(ctx: &Ctx, task: &Task) -> Result<()> {
    for t in posix(ctx, task)?.iter().filter(|t| t.remaining_ns != 0) {
        signal::timer_settime(t.id, t.interval_ns, t.remaining_ns)
            .map_err(|e| Error::os("cannot start timer")(e).on(On::Number(t.id as u64)))?;
    }
    for (timer, which) in task.itimers.iter().zip(0..) {
        signal::set_itimer(which, timer).map_err(Error::os("cannot set an interval timer"))?;
    }
    Ok(())
}
