//! `--every` and `--on-signal`: when dumps are made.

use crate::sys::process;
use crate::sys::signals::{self, Woken};
use anyhow::{Context, Result};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Why to dump now, or why never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is time (`--every`).
    Due,
    /// This signal arrived (`--on-signal`).
    Asked(i32),
    /// The process has ended.
    Ended,
    /// This signal asks us to end.
    Stop(i32),
}

/// Of one process.
#[derive(Debug)]
pub struct Schedule {
    process: OwnedFd,
    every: Option<Duration>,
    /// When the next dump is due: with `every`.
    due: Instant,
}

impl Schedule {
    /// With `every`, the first dump is due at once. Signals: see [`signals::dump_on`].
    ///
    /// # Errors
    /// When there is no such process.
    pub fn new(pid: i32, every: Option<Duration>) -> Result<Self> {
        let process = process::pidfd_open(pid).with_context(|| format!("watching PID {pid}"))?;
        Ok(Self { process, every, due: Instant::now() })
    }

    /// Waits for what is next.
    ///
    /// # Errors
    /// As poll(2), signalfd(2).
    pub fn wait(&mut self) -> Result<Next> {
        loop {
            let left = self.every.map(|_| self.due.saturating_duration_since(Instant::now()));
            let woken = signals::sleep(self.process.as_fd(), left).context("waiting for the next dump")?;
            return Ok(match (woken, self.every) {
                (Woken::Ended, _) => Next::Ended,
                (Woken::Asked(signal), _) => Next::Asked(signal),
                (Woken::Stop(signal), _) => Next::Stop(signal),
                (Woken::Due, Some(every)) if Instant::now() >= self.due => {
                    self.due = following(self.due, every, Instant::now());
                    Next::Due
                }
                (Woken::Due, _) => continue,
            });
        }
    }
}

/// The first of the times `due + n * every` that is after `now`: those that were missed are left out.
fn following(due: Instant, every: Duration, now: Instant) -> Instant {
    let missed = now.saturating_duration_since(due).as_nanos() / every.as_nanos().max(1);
    due + every.saturating_mul(u32::try_from(missed + 1).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_times_are_left_out() {
        let (start, s) = (Instant::now(), Duration::from_secs);
        assert_eq!(following(start, s(10), start), start + s(10));
        assert_eq!(following(start, s(10), start + s(9)), start + s(10));
        assert_eq!(following(start, s(10), start + s(10)), start + s(20));
        assert_eq!(following(start, s(10), start + s(35)), start + s(40));
    }
}
