//! Messages on stderr, and in a log.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

static VERBOSITY: AtomicU8 = AtomicU8::new(0);
/// What was done until when.
static LAPS: Mutex<Vec<(&'static str, Instant)>> = Mutex::new(Vec::new());
/// `--log`, and when it began.
static LOG: OnceLock<(Mutex<File>, Instant)> = OnceLock::new();

/// How many `-v` were given.
pub fn set_verbosity(level: u8) {
    VERBOSITY.store(level, Ordering::Relaxed);
}

/// `--log`: everything goes to the end of this file, too.
///
/// # Errors
/// As open(2).
pub fn log_to(path: &Path) -> std::io::Result<()> {
    let file = File::options().append(true).create(true).open(path)?;
    let _ = LOG.set((Mutex::new(file), Instant::now()));
    log("begin", &std::env::args().collect::<Vec<_>>().join(" "));
    Ok(())
}

/// A line of the log: seconds since its begin, level, message.
pub fn log(level: &str, message: &str) {
    log_all(level, &[message]);
}

fn log_all(level: &str, messages: &[impl AsRef<str>]) {
    if let Some((file, since)) = LOG.get()
        && let Ok(mut file) = file.lock()
    {
        // One write(2) for all: several dumps may share a log. That it cannot be written harms nothing else.
        let start = format!("{:10.6} {level:<7} [{}] ", since.elapsed().as_secs_f64(), std::process::id());
        let lines: String = messages.iter().map(|m| format!("{start}{}\n", m.as_ref())).collect();
        let _ = file.write_all(lines.as_bytes());
    }
}

fn wanted(least: u8) -> (bool, bool) {
    (VERBOSITY.load(Ordering::Relaxed) >= least, LOG.get().is_some())
}

fn say(least: u8, level: &str, message: impl FnOnce() -> String) {
    let (shown, logged) = wanted(least);
    if shown || logged {
        let message = message();
        log(level, &message);
        if shown {
            eprintln!("ckpt-dump: {message}");
        }
    }
}

/// An error or warning: always shown.
pub fn error(message: &str) {
    log("error", message);
    eprintln!("ckpt-dump: {message}");
}

/// For `-v`: what is being done.
pub fn info(message: impl FnOnce() -> String) {
    say(1, "info", message);
}

/// For `-vv`: details.
pub fn debug(message: impl FnOnce() -> String) {
    say(2, "debug", message);
}

/// For `-vvv` and the log: all that was seen. Written at once, as it may be much.
pub fn trace(lines: impl FnOnce() -> Vec<String>) {
    let (shown, logged) = wanted(3);
    if shown || logged {
        let lines = lines();
        log_all("trace", &lines);
        if shown {
            eprintln!("{}", lines.iter().map(|l| format!("ckpt-dump: {l}")).collect::<Vec<_>>().join("\n"));
        }
    }
}

/// For `-vv`: that something was done by now. Printed by [`laps`], as writing takes time, too.
pub fn lap(done: &'static str) {
    if wanted(2) != (false, false)
        && let Ok(mut laps) = LAPS.lock()
    {
        laps.push((done, Instant::now()));
    }
}

/// For `-vv`: how long each step took.
pub fn laps() {
    let laps = LAPS.lock().map(|mut laps| std::mem::take(&mut *laps)).unwrap_or_default();
    for pair in laps.windows(2) {
        debug(|| format!("{:>9}  {}", duration(pair[1].1 - pair[0].1), pair[1].0));
    }
}

/// A number of bytes for people: `17.3 MiB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A duration for people: `840 us`, `12.3 ms`, `4.56 s`.
#[must_use]
pub fn duration(d: std::time::Duration) -> String {
    let us = d.as_micros();
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", d.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn for_people() {
        assert_eq!(bytes(12), "12 B");
        assert_eq!(bytes(4096), "4.0 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
        assert_eq!(duration(Duration::from_micros(840)), "840 us");
        assert_eq!(duration(Duration::from_millis(2500)), "2.50 s");
    }
}
