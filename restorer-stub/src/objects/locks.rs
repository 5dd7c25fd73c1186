//! flock(2), POSIX and OFD locks and leases, taken when no descriptor of the files will be closed any more.

use super::place::Placer;
use crate::report::{Error, Result};
use crate::sys::{Errno, object as sys};
use ckpt_format::fd::lock_kind;
use linux_raw_sys::general::F_WRLCK;

/// Takes the locks of a process: its own POSIX locks, and those of descriptions that it is the first
/// to have.
pub fn take(o: &Placer) -> Result<()> {
    for lock in o.ctx.image.locks.iter().filter(|l| l.pid == o.task.pid) {
        if o.given(lock.object).is_some() {
            continue;
        }
        let fd =
            o.placed(lock.object).ok_or(Error::new("the image is damaged: a lock without descriptor"))?;
        let write = lock.mode == F_WRLCK;
        let taken = match lock.kind {
            lock_kind::FLOCK => sys::flock(fd, write),
            lock_kind::LEASE => sys::set_lease(fd, write),
            kind => sys::lock_range(fd, kind == lock_kind::OFD, write, lock.start, lock.len),
        };
        taken.map_err(|e| {
            let remedy = match e {
                Errno::EACCES if lock.kind == lock_kind::LEASE => {
                    "a lease needs a file of one's own, or CAP_LEASE: run the image as the file's owner or as root"
                }
                Errno::EAGAIN if lock.kind == lock_kind::LEASE => {
                    "another process has the file open: end that one first"
                }
                Errno::EAGAIN | Errno::EACCES => {
                    "another process holds it (see /proc/locks; perhaps the one that was dumped): end that one first"
                }
                _ => "",
            };
            Error::os("cannot take the file lock of")(e).on(o.on(fd.0)).remedy(remedy)
        })?;
    }
    Ok(())
}
