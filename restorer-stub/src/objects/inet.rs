//! TCP and UDP sockets.

use super::make::Maker;
use super::{datagram, ports, repair, socket as options, tcp};
use crate::report::{Error, Result, note, say};
use crate::sys::{Errno, Fd, fd, socket as sys};
use ckpt_format::Object;
use ckpt_format::fd::socket::{InetSocket, socket_state};

const IPPROTO_TCP: u32 = 6;
const IPPROTO_MPTCP: u32 = 262;

/// Connections first; what would be in the way of their addresses comes later ([`later`]).
pub fn socket(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let saved = &saved(o, object)?;
    let stream = saved.kind == sys::SOCK_STREAM;
    if !stream {
        return datagram::create(o, index, saved, object).map(Some);
    }
    match saved.state {
        socket_state::CONNECTED if stream => tcp::connection(o, index, saved).map(Some),
        socket_state::REPAIRED => repair::connection(o, index, saved).map(Some),
        socket_state::WAITING => tcp::waiting(o, index, saved).map(Some),
        socket_state::LISTENING | socket_state::UNCONNECTED if stream => Ok(None),
        _ => make(o, index, saved),
    }
}

/// Listening sockets, and TCP sockets that are nothing yet.
pub fn later(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    make(o, index, &saved(o, object)?)
}

/// A socket as the caller wants it (`--port`, `--tcp`).
pub fn saved(o: &Maker, object: &Object) -> Result<InetSocket> {
    let mut saved: InetSocket = *o.ctx.image.payload(object.payload)?;
    if saved.state == socket_state::REPAIRED && o.ctx.options.reset_tcp {
        saved.state = socket_state::BROKEN;
    }
    ports::remap(o, &mut saved)?;
    Ok(saved)
}

fn make(o: &Maker, index: u32, saved: &InetSocket) -> Result<Option<Fd>> {
    let on = o.on(index);
    let fd = match sys::socket(saved.family, saved.kind, saved.protocol) {
        // A listener that would also speak multipath TCP: the plain one answers the same clients.
        Err(_) if saved.protocol == IPPROTO_MPTCP => sys::socket(saved.family, saved.kind, IPPROTO_TCP),
        r => r,
    };
    let fd = o.raise(fd.map_err(|e| Error::os("cannot make the socket")(e).on(on))?)?;
    let set = options::set_options(o, fd, o.on(index), saved.options);
    match saved.state {
        // Some options can be had by a connection only; this one is over.
        socket_state::BROKEN | socket_state::CLOSED => broken(o, index, fd, saved),
        _ => set.and_then(|()| bind(o, fd, saved).map_err(|e| e.on(on)))?,
    }
    if saved.state == socket_state::LISTENING {
        sys::listen(fd, saved.backlog).map_err(|e| Error::os("cannot listen")(e).on(on))?;
    }
    settle_reuse(o, fd, saved)?;
    Ok(Some(fd))
}

pub fn address(bytes: &[u8; 32], len: u32) -> &[u8] {
    &bytes[..(len as usize).min(bytes.len())]
}

/// For people.
pub fn shown(bytes: &[u8; 32], len: u32) -> Address<'_> {
    Address(address(bytes, len))
}

/// Connections of the original may linger in TIME_WAIT, and others may be there again already, which must
/// not keep a TCP address from being used again ([`settle_reuse`] takes that back).
pub fn bind(o: &Maker, fd: Fd, saved: &InetSocket) -> Result<()> {
    if saved.local_len == 0 {
        return Ok(());
    }
    let stream = saved.kind == sys::SOCK_STREAM;
    if stream {
        let _ = sys::set_option_int(fd, sys::SOL_SOCKET, sys::SO_REUSEADDR, 1);
    }
    let local = address(&saved.local, saved.local_len);
    let result = match sys::bind(fd, local) {
        // The address that connect(2) chose belongs to a network that is not there: any other will do.
        Err(Errno::EADDRNOTAVAIL) if saved.state == socket_state::CONNECTED => {
            let mut any = [0u8; 32];
            any[..4].copy_from_slice(&local[..4]);
            sys::bind(fd, &any[..local.len()])
        }
        r => r,
    };
    result.map_err(|e| {
        let remedy = match e {
            Errno::EADDRINUSE => {
                "end the program that uses it (perhaps the one that was dumped), or choose another port with \
                 --port OLD=NEW, or wait a minute: closed connections may keep the address so long"
            }
            Errno::EADDRNOTAVAIL => "give this machine the address (ip addr add)",
            Errno::EACCES => "ports below 1024 need CAP_NET_BIND_SERVICE",
            _ => "",
        };
        match e {
            Errno::EADDRINUSE => ports::say_who_has(o.ctx, saved),
            _ => say(format_args!("the address of the socket is {}", Address(local))),
        }
        Error::os("cannot bind the socket")(e).remedy(remedy)
    })
}

/// SO_REUSEADDR as saved: listen(2) looks at it once more.
fn settle_reuse(o: &Maker, fd: Fd, saved: &InetSocket) -> Result<()> {
    let own = options::saved_int(o.ctx, saved.options, sys::SOL_SOCKET, sys::SO_REUSEADDR)?.unwrap_or(0);
    if saved.kind == sys::SOCK_STREAM && own == 0 {
        let _ = sys::set_option_int(fd, sys::SOL_SOCKET, sys::SO_REUSEADDR, 0);
    }
    Ok(())
}

/// A connection whose other end is gone: a real one, over the loopback, that is reset.
fn broken(o: &Maker, index: u32, fd: Fd, saved: &InetSocket) {
    match reset(fd, saved.family) {
        Ok(()) if saved.state == socket_state::CLOSED => {
            // Asking takes the error away; what remains is the end of the stream.
            let _ = sys::option_int(fd, sys::SOL_SOCKET, sys::SO_ERROR);
        }
        Ok(()) => {}
        // Reading gives ENOTCONN instead.
        Err(e) => note(format_args!("fd {}: no loopback to break a connection on: {e}", o.number(index))),
    }
}

fn reset(fd: Fd, family: u32) -> crate::sys::Result<()> {
    let (addr, len) = loopback(family);
    let listener = sys::socket(family, sys::SOCK_STREAM, 0)?;
    let result = (|| {
        sys::bind(listener, address(&addr, len))?;
        sys::listen(listener, 1)?;
        let mut bound = [0u8; 32];
        let len = sys::local_name(listener, &mut bound)?;
        sys::connect(fd, &bound[..len])?;
        let peer = sys::accept(listener)?;
        // SO_LINGER on, 0 seconds: close(2) sends RST.
        let linger = [1, 0, 0, 0, 0, 0, 0, 0];
        let lingered = sys::set_option(peer, sys::SOL_SOCKET, sys::SO_LINGER, &linger);
        fd::close(peer);
        lingered
    })();
    fd::close(listener);
    result
}

/// `::1` or `127.0.0.1`, any port: a `struct sockaddr_in6` or `sockaddr_in`, and its length.
pub fn loopback(family: u32) -> ([u8; 32], u32) {
    let mut addr = [0u8; 32];
    addr[0] = family as u8;
    if family == sys::AF_INET6 {
        addr[23] = 1;
        return (addr, 28);
    }
    addr[4..8].copy_from_slice(&[127, 0, 0, 1]);
    (addr, 16)
}

/// A `struct sockaddr_in` or `sockaddr_in6`, for messages.
pub struct Address<'a>(pub &'a [u8]);

impl core::fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let port = self.0.get(2..4).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
        if self.0.len() >= 28
            && let Some(v6) = self.0[8..].first_chunk::<16>()
        {
            return write!(f, "[{}]:{port}", core::net::Ipv6Addr::from(*v6));
        }
        match self.0.get(4..8).and_then(|b| b.first_chunk::<4>()) {
            Some(v4) => write!(f, "{}:{port}", core::net::Ipv4Addr::from(*v4)),
            None => write!(f, "port {port}"),
        }
    }
}
