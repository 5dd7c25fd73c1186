//! Unix sockets.

use super::make::Maker;
use super::{messages, socket as options};
use crate::report::{Error, On, Result, note, say};
use crate::sys::{Errno, Fd, fd, object as os, socket as sys};
use ckpt_format::fd::socket::{UnixSocket, socket_state, unix_flags};
use ckpt_format::{NONE, Object, ObjectKind};
use linux_raw_sys::general::O_PATH;

const S_IFMT: u32 = 0o170_000;
const S_IFSOCK: u32 = 0o140_000;

/// Longest `sun_path`.
const SUN_PATH: usize = 108;

/// `struct sockaddr_un` of a path or an abstract name.
struct Address {
    bytes: [u8; 2 + SUN_PATH],
    len: usize,
}

impl Address {
    fn new(name: &[u8]) -> Result<Self> {
        let mut bytes = [0; 2 + SUN_PATH];
        bytes[0] = sys::AF_UNIX as u8;
        let place = bytes.get_mut(2..2 + name.len());
        place.ok_or(Error::new("the image is damaged: bad socket name"))?.copy_from_slice(name);
        Ok(Self { bytes, len: 2 + name.len() })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn record(o: &Maker, index: u32) -> Result<&'static UnixSocket> {
    Ok(o.ctx.image.payload(o.object(index)?.payload)?)
}

/// Every socket but those that [`accepted`] makes.
pub fn socket(o: &Maker, index: u32, object: &'static Object) -> Result<Option<Fd>> {
    let saved = record(o, index)?;
    let on = o.on(index);
    if saved.state == socket_state::CONNECTED && saved.peer != NONE {
        return if listener_of(o, index)?.is_some() || listener_of(o, saved.peer)?.is_some() {
            Ok(None)
        } else {
            half(o, index, saved).map(Some).map_err(|e| e.on(on))
        };
    }
    if saved.state == socket_state::BROKEN {
        let (fd, other) = pair(o, saved.kind).map_err(|e| e.on(on))?;
        prepare(o, index, object, fd, other)?;
        fd::close(other);
        return Ok(Some(fd));
    }
    let fd = sys::socket(sys::AF_UNIX, saved.kind, 0)
        .map_err(|e| Error::os("cannot make the unix socket")(e).on(on))?;
    let fd = o.raise(fd)?;
    options::set_options(o, fd, o.number(index), saved.options)?;
    bind(o, saved, fd).map_err(|e| e.on(on))?;
    deliver(o, object, saved).map_err(|e| e.on(on))?;
    if saved.flags & unix_flags::UNLINKED != 0 {
        in_dir(o, saved, fd::unlink).map_err(Error::os("cannot unlink the socket"))?;
    }
    if saved.state == socket_state::LISTENING {
        sys::listen(fd, saved.backlog)
            .map_err(|e| Error::os("cannot listen on the unix socket")(e).on(on))?;
    }
    shut(fd, saved);
    Ok(Some(fd))
}

fn pair(o: &Maker, kind: u32) -> Result<(Fd, Fd)> {
    let (a, b) = sys::pair(kind).map_err(Error::os("cannot make a pair of sockets"))?;
    Ok((o.raise(a)?, o.raise(b)?))
}

/// One of a pair inside the image. The first one that is met makes both, and puts what waits in
/// each; the other's turn comes later.
fn half(o: &Maker, index: u32, saved: &UnixSocket) -> Result<Fd> {
    if let Some(fd) = o.kept(index, 0) {
        o.keep(index, 0, None);
        return Ok(fd);
    }
    let (fd, other) = pair(o, saved.kind)?;
    both(o, index, fd, saved.peer, other)?;
    if o.is_wanted(saved.peer) && o.given(saved.peer).is_none() && saved.peer != index {
        o.keep(saved.peer, 0, Some(other));
    } else {
        fd::close(other);
    }
    Ok(fd)
}

/// Options, names and queues of two sockets that are connected to each other. What one has still
/// to read may have been sent before it (or the other) was shut down: shutdown comes last.
fn both(o: &Maker, a: u32, fd_a: Fd, b: u32, fd_b: Fd) -> Result<()> {
    let (saved_a, saved_b) = (record(o, a)?, record(o, b)?);
    for (index, saved, fd, other) in [(a, saved_a, fd_a, fd_b), (b, saved_b, fd_b, fd_a)] {
        inject(o, o.object(index)?, other)?;
        options::set_options(o, fd, o.number(index), saved.options)?;
        if listener_of(o, index)?.is_none() {
            bind(o, saved, fd)?;
        }
    }
    shut(fd_a, saved_a);
    shut(fd_b, saved_b);
    Ok(())
}

/// A socket whose other end is about to be closed.
fn prepare(o: &Maker, index: u32, object: &'static Object, fd: Fd, other: Fd) -> Result<()> {
    let saved = record(o, index)?;
    inject(o, object, other)?;
    options::set_options(o, fd, o.number(index), saved.options)?;
    bind(o, saved, fd)?;
    shut(fd, saved);
    Ok(())
}

/// SHUT_RD = 1, SHUT_WR = 2 bits.
fn shut(fd: Fd, saved: &UnixSocket) {
    if saved.shutdown & 3 != 0 && saved.state != socket_state::LISTENING {
        let _ = sys::shutdown(fd, (saved.shutdown & 3) - 1);
    }
}

/// Sends what waits to be read, through the other end.
fn inject(o: &Maker, object: &Object, through: Fd) -> Result<()> {
    for message in messages(o.ctx, object)? {
        let mut sent = 0;
        loop {
            match sys::send(through, &message[sent..]) {
                Ok(n) => sent += n,
                // More than a new socket may hold: the program had raised the limit.
                Err(Errno::EAGAIN) => {
                    let room = i32::try_from(message.len()).unwrap_or(i32::MAX).max(1 << 20);
                    let _ = sys::set_option_int(through, sys::SOL_SOCKET, sys::SO_SNDBUF, room);
                    sent += sys::send(through, &message[sent..]).map_err(|e| {
                        Error::os("cannot put back what waits in the socket")(e)
                            .remedy("raise /proc/sys/net/core/wmem_max or net/unix/max_dgram_qlen")
                    })?;
                }
                Err(e) => return Err(Error::os("cannot put back what waits in the socket")(e)),
            }
            if sent >= message.len() {
                break;
            }
        }
    }
    Ok(())
}

/// Datagrams for a bound socket, from a sender without a name.
fn deliver(o: &Maker, object: &Object, saved: &UnixSocket) -> Result<()> {
    if object.queue.len == 0 || saved.name.len == 0 {
        return Ok(());
    }
    let failed = Error::os("cannot put back what waits in the socket");
    let sender = sys::socket(sys::AF_UNIX, saved.kind, 0).map_err(&failed)?;
    let result = messages(o.ctx, object)?.try_for_each(|message| {
        in_dir(o, saved, |name| {
            let address = Address::new(name).map_err(|_| Errno::ENAMETOOLONG)?;
            sys::send_to(sender, message, address.as_bytes()).map(drop)
        })
    });
    fd::close(sender);
    result.map_err(failed)
}

/// Runs `f` with the socket's name, in the folder where a relative name starts.
fn in_dir<T>(
    o: &Maker,
    saved: &UnixSocket,
    f: impl FnOnce(&'static [u8]) -> crate::sys::Result<T>,
) -> crate::sys::Result<T> {
    let blob = |span| o.ctx.image.blob(span).map_err(|_| Errno::EINVAL);
    let (name, dir) = (blob(saved.name)?, blob(saved.dir)?);
    if dir.is_empty() {
        return f(name);
    }
    let back = fd::open(b".", O_PATH, 0)?;
    let result = fd::chdir(dir).and_then(|()| f(name));
    let returned = os::fchdir(back);
    fd::close(back);
    returned.and(result)
}

/// Binds to the saved name. A socket file that nobody listens on any more is replaced.
fn bind(o: &Maker, saved: &UnixSocket, fd: Fd) -> Result<()> {
    if saved.name.len == 0 {
        return Ok(());
    }
    let name = o.ctx.image.blob(saved.name)?;
    let address = Address::new(name)?;
    let is_path = name[0] != 0;
    // The socket file has its mode from the start: chmod(2) would follow a link put in its place.
    let umask = crate::sys::fd::umask(!saved.mode & 0o777);
    let bound = in_dir(o, saved, |name| match sys::bind(fd, address.as_bytes()) {
        Err(Errno::EADDRINUSE) if is_path && is_stale(name, saved.kind) => {
            fd::unlink(name)?;
            sys::bind(fd, address.as_bytes())
        }
        r => r,
    });
    crate::sys::fd::umask(umask);
    bound.map_err(|e| {
        let remedy = match e {
            Errno::EADDRINUSE => "end the program that uses it (perhaps the one that was dumped)",
            Errno::ENOENT => "make its folder",
            _ => "",
        };
        say(format_args!("the name of the socket is {}", crate::report::Printable(name)));
        Error::os("cannot bind the unix socket")(e).remedy(remedy)
    })?;
    if is_path {
        // Owner as far as the restorer may.
        let _ = in_dir(o, saved, |name| os::chown(name, saved.uid, saved.gid));
    }
    Ok(())
}

/// Whether a path is a socket that no process has open.
fn is_stale(path: &'static [u8], kind: u32) -> bool {
    if os::mode_of(path).is_ok_and(|mode| mode & S_IFMT != S_IFSOCK) {
        return false;
    }
    let (Ok(address), Ok(probe)) = (Address::new(path), sys::socket(sys::AF_UNIX, kind, 0)) else {
        return false;
    };
    let answer = sys::connect(probe, address.as_bytes());
    fd::close(probe);
    answer == Err(Errno::ECONNREFUSED)
}

/// The listening socket inside the image through which a connection got its name.
fn listener_of(o: &Maker, index: u32) -> Result<Option<u32>> {
    let saved = record(o, index)?;
    if saved.name.len == 0 || saved.state != socket_state::CONNECTED || saved.kind == sys::SOCK_DGRAM {
        return Ok(None);
    }
    for (i, object) in o.ctx.image.objects.iter().enumerate() {
        if object.kind != ObjectKind::UnixSocket as u32 || !o.is_wanted(i as u32) {
            continue;
        }
        let other = record(o, i as u32)?;
        // Equal names are stored once.
        if other.state == socket_state::LISTENING && other.kind == saved.kind && same(saved, other) {
            return Ok(Some(i as u32));
        }
    }
    Ok(None)
}

fn same(a: &UnixSocket, b: &UnixSocket) -> bool {
    (a.name.offset, a.name.len) == (b.name.offset, b.name.len)
}

/// Both ends of a connection that was made through a listening socket of the image: made again
/// through it, so that both see the names they saw.
pub fn accepted(o: &Maker, index: u32, _: &'static Object) -> Result<Option<Fd>> {
    if let Some(fd) = o.kept(index, 0) {
        o.keep(index, 0, None);
        return Ok(Some(fd));
    }
    let saved = record(o, index)?;
    if saved.state != socket_state::CONNECTED || saved.peer == NONE {
        return Ok(None);
    }
    let (server, client) = match listener_of(o, index)? {
        Some(_) => (index, saved.peer),
        None => (saved.peer, index),
    };
    let Some(listener) = listener_of(o, server)? else { return Ok(None) };
    let failed = |what| move |e| Error::os(what)(e).on(o.on(index));
    let listening = o.made(listener).ok_or(Error::new("the listening socket is missing"))?;
    let ours = sys::socket(sys::AF_UNIX, saved.kind, 0).map_err(failed("cannot make the unix socket"))?;
    let ours = o.raise(ours)?;
    let door = record(o, listener)?;
    in_dir(o, door, |name| {
        let address = Address::new(name).map_err(|_| Errno::ENAMETOOLONG)?;
        sys::connect(ours, address.as_bytes())
    })
    .map_err(failed("cannot connect the unix socket"))?;
    let theirs = sys::accept(listening).map_err(failed("cannot accept the connection"))?;
    let theirs = o.raise(theirs)?;
    both(o, client, ours, server, theirs)?;
    let (own, other, peer) = if server == index { (theirs, ours, client) } else { (ours, theirs, server) };
    if o.is_wanted(peer) && o.given(peer).is_none() {
        o.keep(peer, 0, Some(other));
    } else {
        fd::close(other);
    }
    Ok(Some(own))
}

/// Datagram sockets with a default destination, when every name is bound.
pub fn connect(o: &Maker, index: u32, _: &'static Object) -> Result<()> {
    let saved = record(o, index)?;
    let remote = o.ctx.image.blob(saved.remote)?;
    let Some(fd) = o.made(index).filter(|_| !remote.is_empty()) else { return Ok(()) };
    match sys::connect(fd, Address::new(remote)?.as_bytes()) {
        Err(e) if o.ctx.options.ignore_changed_files => {
            note(format_args!("fd {}: left unconnected: {e}", fd.0));
            Ok(())
        }
        r => r.map_err(|e| {
            note(format_args!("the name of the other end is {}", crate::report::Printable(remote)));
            Error::os("cannot connect the unix socket")(e)
                .on(On::Fd(fd.0))
                .remedy("start the program that owns the other end, or go on with --ignore-changed-files")
        }),
    }
}
