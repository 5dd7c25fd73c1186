//! A descriptor that the target opens for us.

use super::{Frozen, SLOT_FRAME, SLOT_LEN, SLOTS_AT, data};
use crate::ptrace::parachute;
use crate::ptrace::remote::{Call, Site};
use crate::sys;
use anyhow::{Context, Result, bail};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long the target waits for us to take it; the second time for machines that are very busy.
const WAITS: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(200)];

impl Frozen {
    /// Makes a call that opens a descriptor, and takes that over. The target closes it again even if we are killed
    /// meanwhile: it makes the call, sleeps until we have a duplicate, and closes it, without stopping in between.
    /// (Only where it can make just one call at a time there are some 50 us in which that would fail.)
    ///
    /// # Errors
    /// As the call; when no descriptor is free; when the target died.
    pub fn open_for_us(&mut self, call: Call) -> Result<OwnedFd> {
        let fd = self.free_descriptor()?;
        let close = Call::new(libc::SYS_close, &[fd as u64]);
        let mapped = self.mapped()?;
        let Site::Parachute { code, quiet, .. } = mapped.site else {
            return self.open_in_two(call, close);
        };
        for wait in WAITS {
            let time = data(mapped.base);
            let sleep = [0, u64::from(wait.subsec_nanos())].map(u64::to_le_bytes);
            self.memory.write(time, sleep.as_flattened())?;
            let calls = [call, Call::new(libc::SYS_nanosleep, &[time.0, 0]), close];
            let slot = mapped.base.offset(SLOTS_AT);
            let at = (code, slot.offset(SLOT_FRAME), quiet);
            let thread = self.threads.first_mut().context("no thread is stopped")?;
            if !thread.begin(&self.memory, at, SLOT_LEN - SLOT_FRAME, &calls)? {
                return self.open_in_two(call, close);
            }
            let hit = crate::failpoint::hit("open-begun");
            let begun = Instant::now();
            let taken = loop {
                match sys::fd::pidfd_getfd(self.pidfd.as_fd(), fd) {
                    Ok(taken) => break Some(taken),
                    Err(_) if begun.elapsed() > wait => break None,
                    Err(_) => std::thread::yield_now(),
                }
            };
            thread.end(code, quiet)?;
            hit?;
            let mut bytes = vec![0; SLOT_FRAME as usize];
            self.memory.read(slot, &mut bytes)?;
            let table = bytes.len() - (calls.len() + 1) * parachute::ENTRY;
            let results = parachute::results(&bytes[table..table + calls.len() * parachute::ENTRY]);
            let got = result(results[0])?;
            if got != fd {
                // Not where we thought: nothing was closed.
                self.batch(&[Call::new(libc::SYS_close, &[got as u64])])?;
                bail!("PID {} got descriptor {got} instead of {fd}", self.pid);
            }
            if let Some(taken) = taken {
                return Ok(taken);
            }
        }
        bail!("PID {} could not hand over a descriptor in time", self.pid)
    }

    fn open_in_two(&mut self, call: Call, close: Call) -> Result<OwnedFd> {
        let fd = result(self.batch(&[call])?[0])?;
        let taken = sys::fd::pidfd_getfd(self.pidfd.as_fd(), fd);
        self.batch(&[Call { args: [fd as u64, 0, 0, 0, 0, 0], ..close }])?;
        Ok(taken?)
    }

    /// The number that the next descriptor will have.
    fn free_descriptor(&self) -> Result<i32> {
        let dir = format!("/proc/{}/fd", self.pid);
        let entries = std::fs::read_dir(&dir).with_context(|| format!("reading {dir}"))?;
        let mut used: Vec<i32> =
            entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        used.sort_unstable();
        Ok((0..).zip(&used).find(|(i, fd)| i != *fd).map_or(used.len() as i32, |(i, _)| i))
    }
}

fn result(of: i64) -> Result<i32> {
    if of < 0 {
        return Err(std::io::Error::from_raw_os_error((-of) as i32).into());
    }
    Ok(of as i32)
}
