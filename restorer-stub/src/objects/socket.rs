//! What all sockets have: options.

use super::make::Maker;
use crate::report::{Error, On, Result};
use crate::sys::{Fd, socket as sys};
use ckpt_format::Span;
use ckpt_format::fd::socket::SockOpt;
use zerocopy::FromBytes;

/// Sets the options that differed from a new socket's.
pub fn set_options(o: &Maker, fd: Fd, on: On, options: Span) -> Result<()> {
    for_each(o, options, |option, value| {
        sys::set_option(fd, option.level, option.name, value).map_err(|e| {
            crate::report::note(format_args!("socket option {} of level {}", option.name, option.level));
            Error::os("cannot set a socket option")(e)
                .on(on)
                .remedy("--verbose names it; some need CAP_NET_ADMIN")
        })
    })
}

/// Value of an int option among those saved.
pub fn saved_int(o: &Maker, options: Span, level: u32, name: u32) -> Result<Option<i32>> {
    let mut found = None;
    for_each(o, options, |option, value| {
        if (option.level, option.name) == (level, name) {
            found = value.first_chunk().map(|b| i32::from_le_bytes(*b));
        }
        Ok(())
    })?;
    Ok(found)
}

fn for_each(o: &Maker, options: Span, mut f: impl FnMut(&SockOpt, &[u8]) -> Result<()>) -> Result<()> {
    let mut rest = o.ctx.image.blob(options)?;
    while !rest.is_empty() {
        let bad = Error::new("the image is damaged: bad socket options");
        let (option, after) = SockOpt::ref_from_prefix(rest).map_err(|_| bad)?;
        let len = option.len as usize;
        f(option, after.get(..len).ok_or(bad)?)?;
        rest = after.get(len.next_multiple_of(8)..).unwrap_or(&[]);
    }
    Ok(())
}
