//! A copy-on-write copy of a process's memory, from which an image can be written while the process runs on.
//!
//! The stopped process makes a helper, which has the same memory and a descriptor table of its own, empty,
//! in a session of its own; the helper forks and ends. So the copy holds nothing open, and is no child of the
//! process, which waits for the helper with __WALL: no SIGCHLD comes of it, as its exit signal is 0. The copy
//! belongs to whoever adopts orphans there, init mostly.
//!
//! Both are traced from birth, and the copy never runs: it stays in its first stop. Should we die, it is killed
//! (PTRACE_O_EXITKILL); in the moment before that option is set its only instruction would be exit_group(2).
//! The process itself comes to its end of the loop in any case.

use super::raw::{self, Resume};
use super::wait::{self, Event, Stop};
use crate::sys::process;
use std::io;
use std::time::{Duration, Instant};

/// Copying the page tables of a large process takes 10 to 20 ms for each GiB.
const PATIENCE: Duration = Duration::from_secs(60);

/// A copy. Dropping it ends it.
#[derive(Debug)]
pub struct MemoryCopy {
    pid: i32,
}

impl MemoryCopy {
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for MemoryCopy {
    fn drop(&mut self) {
        end(self.pid);
    }
}

fn end(pid: i32) {
    process::kill(pid, libc::SIGKILL);
    let deadline = Instant::now() + PATIENCE;
    while !matches!(wait::wait(pid, deadline), Ok(Some(Event::Gone) | None) | Err(_)) {}
}

/// Leads the helper, which has just been born, to its end; returns the copy that it made, if it could.
pub fn of_helper(helper: i32) -> io::Result<Option<MemoryCopy>> {
    let result = lead(helper);
    if result.is_err() {
        end(helper);
    }
    result
}

fn lead(helper: i32) -> io::Result<Option<MemoryCopy>> {
    fail("copy-helper")?;
    let mut copy = None;
    loop {
        match next(helper)? {
            Event::Gone => return Ok(copy),
            Event::Stop(Stop::Other(libc::PTRACE_EVENT_CLONE)) => {
                let born = MemoryCopy { pid: raw::event_message(helper)? };
                fail("copy-born")?;
                if next(born.pid)? != Event::Gone {
                    raw::set_options(born.pid, libc::PTRACE_O_EXITKILL)?;
                    copy = Some(born);
                }
                fail("copy-made")?;
            }
            Event::Stop(_) => {}
        }
        raw::resume(helper, Resume::Cont)?;
    }
}

fn next(tid: i32) -> io::Result<Event> {
    wait::wait(tid, Instant::now() + PATIENCE)?.ok_or_else(|| io::ErrorKind::TimedOut.into())
}

fn fail(point: &str) -> io::Result<()> {
    crate::failpoint::hit(point).map_err(io::Error::other)
}
