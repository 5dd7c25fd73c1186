//! `--time-namespace`: CLOCK_MONOTONIC and CLOCK_BOOTTIME of the program go on from where they were at the
//! dump, on another boot or machine too (time_namespaces(7), Linux 5.6).

use crate::ctx::Ctx;
use crate::report::{Error, Result, note};
use crate::sys::{CPath, Decimal, Errno, fd, process};
use linux_raw_sys::general::{CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLONE_NEWTIME, O_RDONLY};

const OFFSETS: &[u8] = b"/proc/self/timens_offsets";
const SECOND: i64 = 1_000_000_000;

/// What a time namespace adds to the machine's CLOCK_MONOTONIC and CLOCK_BOOTTIME, in ns.
#[derive(Clone, Copy, Default)]
pub struct Offsets {
    monotonic: i64,
    boottime: i64,
}

/// Those of the caller's namespace.
pub fn here() -> Result<Offsets> {
    let failed = |e| {
        let error = Error::os("--time-namespace: cannot read")(e).path(OFFSETS);
        match e {
            Errno::ENOENT => error.remedy("mount /proc; the kernel needs CONFIG_TIME_NS"),
            _ => error,
        }
    };
    let mut text = [0u8; 128];
    let file = fd::open(OFFSETS, O_RDONLY, 0).map_err(failed)?;
    let len = fd::read(file, &mut text).map_err(failed);
    fd::close(file);
    // "monotonic  SECONDS  NANOSECONDS", and a line for boottime.
    let text = core::str::from_utf8(&text[..len?]).unwrap_or("");
    let of = |clock| {
        let mut words = text.lines().find(|l| l.starts_with(clock))?.split_ascii_whitespace().skip(1);
        let mut number = || words.next()?.parse::<i64>().ok();
        Some(number()? * SECOND + number()?)
    };
    let known = of("monotonic").zip(of("boottime"));
    let (monotonic, boottime) = known.ok_or(Error::new("--time-namespace: not understood:").path(OFFSETS))?;
    Ok(Offsets { monotonic, boottime })
}

/// Gives children of the caller that are made from now on a time namespace in which the clocks go on, if
/// that was asked for.
pub fn for_children(ctx: &Ctx) -> Result<()> {
    if !ctx.options.time_namespace {
        return Ok(());
    }
    process::unshare(CLONE_NEWTIME).map_err(|e| {
        let error = Error::os("--time-namespace: cannot make one")(e);
        match e {
            Errno::EPERM => {
                error.remedy("run the image as root, or use --pid ns, where user namespaces are allowed")
            }
            Errno::EINVAL => error.remedy("the kernel needs CONFIG_TIME_NS"),
            Errno::ENOSPC => error.remedy("raise user.max_time_namespaces (sysctl)"),
            _ => error,
        }
    })?;
    set(ctx)
}

/// Before any process enters the namespace; CLONE_NEWTIME has been done.
pub fn set(ctx: &Ctx) -> Result<()> {
    let (header, here) = (ctx.image.header, ctx.clocks);
    // The caller's own clocks are still as they were: only its children are in the new namespace.
    let to = |here, saved: u64, clock| here + (saved as i64) - (process::clock_ns(clock) as i64);
    let offsets = [
        (&b"monotonic "[..], to(here.monotonic, header.time_monotonic, CLOCK_MONOTONIC)),
        (&b"boottime "[..], to(here.boottime, header.time_boottime, CLOCK_BOOTTIME)),
    ];
    for (name, offset) in offsets {
        let (seconds, ns) = (offset.div_euclid(SECOND), offset.rem_euclid(SECOND));
        let digits = Decimal::new(seconds.unsigned_abs());
        let sign: &[u8] = if seconds < 0 { b"-" } else { b"" };
        let line = CPath::concat(&[name, sign, digits.as_bytes(), b" ", Decimal::new(ns as u64).as_bytes()]);
        line.and_then(|line| fd::write_file(OFFSETS, line.as_bytes())).map_err(|e| {
            let error = Error::os("--time-namespace: cannot set the clocks in")(e).path(OFFSETS);
            match e {
                Errno::EPERM | Errno::EACCES => error.remedy("it needs CAP_SYS_TIME"),
                _ => error.remedy("mount /proc where the image runs"),
            }
        })?;
    }
    note(format_args!("CLOCK_MONOTONIC and CLOCK_BOOTTIME go on from the dump, in a time namespace"));
    Ok(())
}

/// The calling process itself enters one. It is alone in its address space.
pub fn enter(ctx: &Ctx) -> Result<()> {
    if !ctx.options.time_namespace {
        return Ok(());
    }
    for_children(ctx)?;
    let failed = Error::os("--time-namespace: cannot enter it");
    let namespace = fd::open(b"/proc/self/ns/time_for_children", O_RDONLY, 0).map_err(&failed)?;
    let entered = process::setns(namespace, CLONE_NEWTIME);
    fd::close(namespace);
    entered.map_err(failed)
}
