//! Netlink and packet sockets: nothing comes in before they have their groups, or their interface.

use super::make::Maker;
use super::{inet::address, socket as options};
use crate::report::{Error, Result};
use crate::sys::{Errno, Fd, socket as sys};
use ckpt_format::Object;
use ckpt_format::fd::socket::{InetSocket, option_stage};

pub fn socket(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let saved: &InetSocket = o.ctx.image.payload(object.payload)?;
    let on = o.on(index);
    let fd = sys::socket(saved.family, saved.kind, saved.protocol).map_err(|e| {
        Error::os("cannot make the socket")(e).on(on).remedy(match e {
            Errno::EPERM => "it needs CAP_NET_RAW: restore as root",
            _ => "",
        })
    })?;
    let fd = o.raise(fd)?;
    options::set_stage(o, fd, on, saved.options, option_stage::FIRST)?;
    if saved.local_len != 0 {
        sys::bind(fd, address(&saved.local, saved.local_len)).map_err(|e| {
            Error::os("cannot bind the socket")(e).on(on).remedy(match e {
                Errno::EADDRINUSE => "another netlink socket has its address (that of the dumped program?)",
                Errno::ENODEV => "the network interface is missing here",
                _ => "",
            })
        })?;
    }
    if saved.remote_len != 0 {
        let remote = address(&saved.remote, saved.remote_len);
        sys::connect(fd, remote).map_err(|e| Error::os("cannot connect the socket")(e).on(on))?;
    }
    options::set_stage(o, fd, on, saved.options, option_stage::LAST)?;
    Ok(Some(fd))
}
