//! TCP connections of which both ends are in the image (or the other one has been closed): made again over
//! a listening socket that lives no longer than that. Before the program's own listening sockets, so that
//! nobody else connects to them meanwhile.

use super::make::Maker;
use super::{inet, messages, ports, socket as options};
use crate::report::{Error, Result, say};
use crate::sys::{Errno, Fd, fd, object as os, socket as sys};
use ckpt_format::fd::socket::{InetSocket, socket_state};
use ckpt_format::{NONE, Object, ObjectKind};
use linux_raw_sys::general::O_RDONLY;

/// Slots of spare descriptors: the socket itself, made before its turn, and the other end of a
/// connection, where that is nobody's.
const SELF: usize = 0;
const OTHER: usize = 1;

fn record(o: &Maker, index: u32) -> Result<InetSocket> {
    inet::saved(o, o.object(index)?)
}

/// One end. The first one that is met makes both; the other's turn comes later.
pub fn connection(o: &Maker, index: u32, saved: &InetSocket) -> Result<Fd> {
    if let Some(fd) = o.kept(index, SELF) {
        o.keep(index, SELF, None);
        return Ok(fd);
    }
    if saved.peer == NONE {
        // Who was the client has a port that other connections may share, which listening does not.
        let (fd, other) = if has_listener(o, saved)? {
            let (other, fd) = make(o, index, &closed_end(saved), saved)?;
            (fd, other)
        } else {
            make(o, index, saved, &closed_end(saved))?
        };
        o.keep(index, OTHER, Some(other));
        return Ok(fd);
    }
    let peer = &record(o, saved.peer)?;
    // Who accepts gets its address by way of the listening socket, as those that share a port must.
    let serves = has_listener(o, saved)? && !has_listener(o, peer)?;
    let (fd, other) = if serves {
        let (other, fd) = make(o, saved.peer, peer, saved)?;
        (fd, other)
    } else {
        make(o, index, saved, peer)?
    };
    let is_theirs = o.is_wanted(saved.peer) && o.given(saved.peer).is_none();
    let (object, slot) = if is_theirs { (saved.peer, SELF) } else { (index, OTHER) };
    o.keep(object, slot, Some(other));
    Ok(fd)
}

/// What the closed other end of a connection was: at the address that this end knows.
fn closed_end(saved: &InetSocket) -> InetSocket {
    let mut end = InetSocket {
        family: saved.family,
        kind: saved.kind,
        local: saved.remote,
        local_len: saved.remote_len,
        ..InetSocket::default()
    };
    if end.local_len == 0 {
        // Forgotten by now; it was reachable from here.
        (end.local, end.local_len) = match saved.local_len {
            0 => inet::loopback(saved.family),
            len => (saved.local, len),
        };
        end.local[2..4].fill(0);
    }
    end
}

/// Whether a listening socket of the image has the port of this one.
fn has_listener(o: &Maker, saved: &InetSocket) -> Result<bool> {
    for (i, object) in o.ctx.image.objects.iter().enumerate() {
        if object.kind == ObjectKind::InetSocket as u32 && o.is_wanted(i as u32) {
            let other = record(o, i as u32)?;
            if other.state == socket_state::LISTENING && other.local[2..4] == saved.local[2..4] {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A connection: its client and its server.
fn make(o: &Maker, index: u32, client: &InetSocket, server: &InetSocket) -> Result<(Fd, Fd)> {
    let on = o.on(index);
    let failed = |what| move |e| Error::os(what)(e).on(on);
    let door = sys::socket(server.family, server.kind, 0).map_err(failed("cannot make the socket"))?;
    let door = o.raise(door)?;
    let result = (|| {
        options::set_options(o, door, on, server.options)?;
        bind_patiently(door, server).map_err(|e| {
            ports::say_who_has(o.ctx, server);
            failed("cannot bind the socket of a TCP connection")(e).remedy(
                "end the program that uses the address (perhaps the one that was dumped), or choose another \
                 port with --port OLD=NEW",
            )
        })?;
        sys::listen(door, 8).map_err(failed("cannot listen for the TCP connection"))?;
        let mut at = [0u8; 32];
        let len = sys::local_name(door, &mut at).map_err(failed("cannot listen for the TCP connection"))?;
        let to = if client.remote_len == 0 {
            &at[..len]
        } else {
            inet::address(&client.remote, client.remote_len)
        };
        let fd = sys::socket(client.family, client.kind, 0).map_err(failed("cannot make the socket"))?;
        let fd = o.raise(fd)?;
        options::set_options(o, fd, on, client.options)?;
        bind_and_connect(fd, client, to).map_err(|e| e.on(on))?;
        Ok((fd, o.raise(accept(door, fd).map_err(failed("cannot accept the TCP connection"))?)?))
    })();
    fd::close(door);
    result
}

/// Connects from the saved address. A connection that was dumped and killed a moment ago may linger there
/// (TIME_WAIT), which bind(2) does not share, while connect(2) does after a second, if it may choose among
/// this one port only (Linux 6.3).
fn bind_and_connect(fd: Fd, saved: &InetSocket, to: &[u8]) -> Result<()> {
    const TRIES: u32 = 60;
    let port = u16::from_be_bytes([saved.local[2], saved.local[3]]);
    let choosable = port != 0 && is_choosable(port);
    let _ = sys::set_option_int(fd, sys::SOL_SOCKET, sys::SO_REUSEADDR, 1);
    let failed = |e| {
        say(format_args!("the address of the connection is {}", address_of(saved)));
        Error::os("cannot make the TCP connection again")(e).remedy(
            "end the program that uses the address (perhaps the one that was dumped), or wait a minute",
        )
    };
    let mut result = Err(Errno::EADDRNOTAVAIL);
    let mut bound = false;
    for _ in 0..TRIES {
        if choosable && !bound && port_range(fd, port, port).is_ok() {
            result = sys::connect(fd, to);
            let _ = port_range(fd, 0, 0);
        }
        if result == Err(Errno::EADDRNOTAVAIL) {
            bound = bound || bind(fd, saved).is_ok();
            result = if bound { sys::connect(fd, to) } else { result };
        }
        if result != Err(Errno::EADDRNOTAVAIL) {
            break;
        }
        os::pause_ms(50);
    }
    result.map_err(failed)
}

/// From which connect(2) chooses the local port; 0 and 0 for the system's own range.
fn port_range(fd: Fd, first: u16, last: u16) -> crate::sys::Result<()> {
    const SOL_IP: u32 = 0;
    const IP_LOCAL_PORT_RANGE: u32 = 51;
    let value = u32::from(last) << 16 | u32::from(first);
    sys::set_option(fd, SOL_IP, IP_LOCAL_PORT_RANGE, &value.to_le_bytes())
}

/// Whether connect(2) may choose a port at all: a range outside of the system's own is ignored.
fn is_choosable(port: u16) -> bool {
    let mut text = [0u8; 32];
    let mut read = || {
        let file = fd::open(b"/proc/sys/net/ipv4/ip_local_port_range", O_RDONLY, 0)?;
        let n = fd::read(file, &mut text);
        fd::close(file);
        n
    };
    let Ok(len) = read() else { return false };
    let text = core::str::from_utf8(&text[..len]).unwrap_or("");
    let mut bounds = text.split_whitespace().filter_map(|w| w.parse::<u16>().ok());
    matches!((bounds.next(), bounds.next()), (Some(low), Some(high)) if (low..=high).contains(&port))
}

/// Binds, although other connections have the port.
fn bind(fd: Fd, saved: &InetSocket) -> crate::sys::Result<()> {
    let _ = sys::set_option_int(fd, sys::SOL_SOCKET, sys::SO_REUSEADDR, 1);
    match saved.local_len {
        0 => Ok(()),
        len => sys::bind(fd, inet::address(&saved.local, len)),
    }
}

/// A socket of the dumped program, or one that somebody has for a moment, may still be in the way.
fn bind_patiently(fd: Fd, saved: &InetSocket) -> crate::sys::Result<()> {
    const TRIES: u32 = 40;
    for _ in 0..TRIES {
        match bind(fd, saved) {
            Err(Errno::EADDRINUSE) => os::pause_ms(25),
            result => return result,
        }
    }
    bind(fd, saved)
}

fn address_of(saved: &InetSocket) -> inet::Address<'_> {
    inet::Address(inet::address(&saved.local, saved.local_len))
}

/// Accepts the connection of `client`; strangers are turned away.
fn accept(door: Fd, client: Fd) -> crate::sys::Result<Fd> {
    let (mut wanted, mut found) = ([0u8; 32], [0u8; 32]);
    sys::local_name(client, &mut wanted)?;
    loop {
        let fd = sys::accept(door)?;
        sys::peer_name(fd, &mut found)?;
        if found[2..4] == wanted[2..4] {
            return Ok(fd);
        }
        fd::close(fd);
    }
}

/// Puts back what waits to be read, through the other end.
pub fn fill(o: &Maker, index: u32, object: &'static Object) -> Result<()> {
    if object.queue.len == 0 {
        return Ok(());
    }
    let saved = record(o, index)?;
    let peer = if saved.peer == NONE { None } else { o.made(saved.peer) };
    let Some(through) = peer.or(o.kept(index, OTHER)) else { return Ok(()) };
    messages(o.ctx, object)?.try_for_each(|message| send(o, index, through, message.bytes))
}

fn send(o: &Maker, index: u32, through: Fd, bytes: &[u8]) -> Result<()> {
    let mut sent = 0;
    let (mut widened, mut patience) = (false, 250);
    while sent < bytes.len() {
        match sys::send_with(through, &bytes[sent..], &[], &[]) {
            Ok(n) => sent += n,
            Err(Errno::EAGAIN) if !widened => {
                widened = true;
                widen(through, bytes.len());
            }
            // What the receiver takes makes room here.
            Err(Errno::EAGAIN) if patience > 0 => {
                patience -= 1;
                if let Some(fd) = o.made(index) {
                    make_room(fd, bytes.len());
                }
                os::pause_ms(2);
            }
            Err(e) => {
                return Err(Error::os("cannot put back what waits in the TCP connection")(e)
                    .on(o.on(index))
                    .remedy("run the image as root, or raise /proc/sys/net/core/wmem_max"));
            }
        }
    }
    if widened {
        // The size is again as the program has set it, or grows and shrinks by itself.
        let lock = sys::option_int(through, sys::SOL_SOCKET, sys::SO_BUF_LOCK).unwrap_or(1);
        let _ = sys::set_option_int(through, sys::SOL_SOCKET, sys::SO_BUF_LOCK, lock & !1);
        let saved = record(o, index)?;
        if saved.peer != NONE {
            // (IPV6_V6ONLY, for one, cannot be set any more.)
            let peer = record(o, saved.peer)?;
            options::set_level(o, through, o.on(index), peer.options, ckpt_format::fd::options::SOL_SOCKET)?;
        }
    }
    Ok(())
}

/// Makes the receive buffer larger, as reading would: SO_RCVLOWAT does (up to net.ipv4.tcp_rmem), and is
/// put back at once. A look at the first byte tells the sender.
fn make_room(fd: Fd, bytes: usize) {
    const SO_RCVLOWAT: u32 = 18;
    let wanted = i32::try_from(bytes).unwrap_or(i32::MAX / 2).saturating_add(1 << 20);
    if let Ok(before) = sys::option_int(fd, sys::SOL_SOCKET, SO_RCVLOWAT) {
        let _ = sys::set_option_int(fd, sys::SOL_SOCKET, SO_RCVLOWAT, wanted);
        let _ = sys::set_option_int(fd, sys::SOL_SOCKET, SO_RCVLOWAT, before);
    }
    sys::peek(fd);
}

/// Makes room for what is sent; never less than there is.
fn widen(fd: Fd, bytes: usize) {
    const SO_SNDBUFFORCE: u32 = 32;
    let wanted = i32::try_from(bytes).unwrap_or(i32::MAX / 2).saturating_add(1 << 20);
    let now = sys::option_int(fd, sys::SOL_SOCKET, sys::SO_SNDBUF).unwrap_or(0);
    if wanted <= now || sys::set_option_int(fd, sys::SOL_SOCKET, SO_SNDBUFFORCE, wanted).is_ok() {
        return;
    }
    // As far as anybody may; less than what a connection over loopback has by itself is of no use.
    let probe = sys::socket(sys::AF_UNIX, sys::SOCK_STREAM, 0);
    if let Ok(probe) = probe {
        let _ = sys::set_option_int(probe, sys::SOL_SOCKET, sys::SO_SNDBUF, wanted);
        let most = sys::option_int(probe, sys::SOL_SOCKET, sys::SO_SNDBUF).unwrap_or(0);
        fd::close(probe);
        if most > now {
            let _ = sys::set_option_int(fd, sys::SOL_SOCKET, sys::SO_SNDBUF, wanted);
        }
    }
}

/// A client that a listening socket of the image has not accepted yet.
pub fn connect_waiting(o: &Maker, index: u32, _: &'static Object) -> Result<()> {
    let saved = record(o, index)?;
    let Some(fd) = o.made(index).filter(|_| saved.state == socket_state::WAITING) else { return Ok(()) };
    bind_and_connect(fd, &saved, inet::address(&saved.remote, saved.remote_len))
        .map_err(|e| e.on(o.on(index)))
}

/// The last step: what was shut down, and the ends that were closed.
pub fn settle(o: &Maker, index: u32, _: &'static Object) -> Result<()> {
    let saved = record(o, index)?;
    let connected = [socket_state::CONNECTED, socket_state::WAITING].contains(&saved.state);
    let Some(fd) = o.made(index).filter(|_| connected && saved.kind == sys::SOCK_STREAM) else {
        return Ok(());
    };
    if let Some(other) = o.kept(index, OTHER) {
        o.keep(index, OTHER, None);
        fd::close(other);
    }
    // SHUT_RD = 1, SHUT_WR = 2 bits.
    if saved.shutdown & 3 != 0 {
        let _ = sys::shutdown(fd, (saved.shutdown & 3) - 1);
    }
    let own = options::saved_int(o.ctx, saved.options, sys::SOL_SOCKET, sys::SO_REUSEADDR)?.unwrap_or(0);
    sys::set_option_int(fd, sys::SOL_SOCKET, sys::SO_REUSEADDR, own)
        .map_err(|e| Error::os("cannot set a socket option")(e).on(o.on(index)))
}

/// A socket that is to be connected to a listening one later on.
pub fn waiting(o: &Maker, index: u32, saved: &InetSocket) -> Result<Fd> {
    let fd = sys::socket(saved.family, saved.kind, 0)
        .map_err(|e| Error::os("cannot make the socket")(e).on(o.on(index)))?;
    let fd = o.raise(fd)?;
    options::set_options(o, fd, o.on(index), saved.options)?;
    Ok(fd)
}
