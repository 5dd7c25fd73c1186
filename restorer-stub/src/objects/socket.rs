//! What all sockets have: options.

use super::make::Maker;
use crate::ctx::Ctx;
use crate::report::{Error, On, Result, say};
use crate::sys::{Errno, Fd, socket as sys};
use ckpt_format::Span;
use ckpt_format::fd::options::{SO_ATTACH_FILTER, SO_RCVBUF, SO_SNDBUF, SOL_SOCKET, text};
use ckpt_format::fd::socket::SockOpt;
use zerocopy::FromBytes;

/// Sets the options that differed from a new socket's.
pub fn set_options(o: &Maker, fd: Fd, on: On, options: Span) -> Result<()> {
    for_each(o.ctx, options, |option, value| set(fd, on, option, value))
}

/// As [`set_options`], of one [`ckpt_format::fd::socket::option_stage`].
pub fn set_stage(o: &Maker, fd: Fd, on: On, options: Span, stage: u32) -> Result<()> {
    for_each(o.ctx, options, |option, value| match option.stage == stage {
        true => set(fd, on, option, value),
        false => Ok(()),
    })
}

/// As [`set_options`], of one level.
pub fn set_level(o: &Maker, fd: Fd, on: On, options: Span, level: u32) -> Result<()> {
    for_each(o.ctx, options, |option, value| match option.level == level {
        true => set(fd, on, option, value),
        false => Ok(()),
    })
}

/// The filter that was saved, or none, whatever there is now.
pub fn settle_filter(ctx: &Ctx, fd: Fd, on: On, options: Span) -> Result<()> {
    let mut filtered = false;
    for_each(ctx, options, |option, value| {
        if (option.level, option.name) != (SOL_SOCKET, SO_ATTACH_FILTER) {
            return Ok(());
        }
        filtered = true;
        set(fd, on, option, value)
    })?;
    if !filtered {
        // ENOENT: there was none.
        let _ = sys::set_option_int(fd, SOL_SOCKET, sys::SO_DETACH_FILTER, 0);
    }
    Ok(())
}

fn set(fd: Fd, on: On, option: &SockOpt, value: &[u8]) -> Result<()> {
    let result = match (option.level, option.name) {
        (SOL_SOCKET, SO_ATTACH_FILTER) => sys::attach_filter(fd, value),
        (SOL_SOCKET, SO_SNDBUF | SO_RCVBUF) => set_buffer(fd, option.name, value),
        (level, name) => sys::set_option(fd, level, name, value),
    };
    result.map_err(|e| {
        match text(option.level, option.name) {
            Some(name) => say(format_args!("the option is {name}")),
            None => say(format_args!("the option is {} of level {}", option.name, option.level)),
        }
        Error::os("cannot set a socket option")(e).on(on).remedy(match e {
            Errno::EPERM if option.name == SO_SNDBUF => {
                "it needs CAP_NET_ADMIN, or a larger net.core.wmem_max"
            }
            Errno::EPERM if option.name == SO_RCVBUF => {
                "it needs CAP_NET_ADMIN, or a larger net.core.rmem_max"
            }
            Errno::EPERM | Errno::EACCES => "it needs CAP_NET_ADMIN or CAP_NET_RAW: restore as root",
            Errno::ENODEV | Errno::EADDRNOTAVAIL => "it names a network interface that is missing here",
            _ => "",
        })
    })
}

/// The kernel silently takes less than it is asked for, unless it is forced to.
fn set_buffer(fd: Fd, name: u32, value: &[u8]) -> crate::sys::Result<()> {
    const FORCE: u32 = 32 - SO_SNDBUF;
    sys::set_option(fd, SOL_SOCKET, name, value)?;
    let wanted = value.first_chunk().map_or(0, |b| i32::from_le_bytes(*b));
    if sys::option_int(fd, SOL_SOCKET, name)? / 2 >= wanted {
        return Ok(());
    }
    // SO_SNDBUFFORCE 32, SO_RCVBUFFORCE 33.
    sys::set_option(fd, SOL_SOCKET, name + FORCE, value)
}

/// Value of an int option among those saved.
pub fn saved_int(ctx: &Ctx, options: Span, level: u32, name: u32) -> Result<Option<i32>> {
    let mut found = None;
    for_each(ctx, options, |option, value| {
        if (option.level, option.name) == (level, name) {
            found = value.first_chunk().map(|b| i32::from_le_bytes(*b));
        }
        Ok(())
    })?;
    Ok(found)
}

fn for_each(ctx: &Ctx, options: Span, mut f: impl FnMut(&SockOpt, &[u8]) -> Result<()>) -> Result<()> {
    let mut rest = ctx.image.blob(options)?;
    while !rest.is_empty() {
        let bad = Error::new("the image is damaged: bad socket options");
        let (option, after) = SockOpt::ref_from_prefix(rest).map_err(|_| bad)?;
        let len = option.len as usize;
        f(option, after.get(..len).ok_or(bad)?)?;
        rest = after.get(len.next_multiple_of(8)..).unwrap_or(&[]);
    }
    Ok(())
}
