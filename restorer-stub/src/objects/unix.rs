//! Unix sockets.

use super::make::Maker;
use super::{Queued, messages, socket as options};
use crate::ctx::Ctx;
use crate::paths;
use crate::report::{Error, Result, note, say};
use crate::sys::{CPath, Errno, Fd, fd, object as os, socket as sys};
use ckpt_format::fd::socket::{UnixSocket, socket_state, unix_flags};
use ckpt_format::{NONE, Object, ObjectKind};
use core::sync::atomic::Ordering;
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

/// Every socket but those that [`accepted`] makes: with its name, but without options or contents.
pub fn socket(o: &Maker, index: u32, _: &'static Object) -> Result<Option<Fd>> {
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
        bind(o, saved, fd).map_err(|e| e.on(on))?;
        o.keep(index, OTHER, Some(other));
        return Ok(Some(fd));
    }
    let fd = sys::socket(sys::AF_UNIX, saved.kind, 0)
        .map_err(|e| Error::os("cannot make the unix socket")(e).on(on))?;
    let fd = o.raise(fd)?;
    bind(o, saved, fd).map_err(|e| e.on(on))?;
    if saved.state == socket_state::LISTENING {
        sys::listen(fd, saved.backlog)
            .map_err(|e| Error::os("cannot listen on the unix socket")(e).on(on))?;
    }
    Ok(Some(fd))
}

/// Slots of spare descriptors: the socket itself, made before its turn, and the other end of a
/// connection, where that is nobody's.
const SELF: usize = 0;
const OTHER: usize = 1;

fn pair(o: &Maker, kind: u32) -> Result<(Fd, Fd)> {
    let (a, b) = sys::pair(kind).map_err(Error::os("cannot make a pair of sockets"))?;
    Ok((o.raise(a)?, o.raise(b)?))
}

/// One of a pair inside the image. The first one that is met makes both; the other's turn comes later.
fn half(o: &Maker, index: u32, saved: &UnixSocket) -> Result<Fd> {
    if let Some(fd) = o.kept(index, SELF) {
        o.keep(index, SELF, None);
        return Ok(fd);
    }
    let (fd, other) = pair(o, saved.kind)?;
    bind(o, saved, fd)?;
    bind(o, record(o, saved.peer)?, other)?;
    keep_other(o, index, saved.peer, other);
    Ok(fd)
}

/// Keeps the other end of the connection of `index` for its own turn, or until what waits in `index`
/// has been sent through it.
fn keep_other(o: &Maker, index: u32, peer: u32, other: Fd) {
    if o.is_wanted(peer) && o.given(peer).is_none() && peer != index {
        o.keep(peer, SELF, Some(other));
    } else {
        o.keep(index, OTHER, Some(other));
    }
}

/// Puts back what waits to be read, when every object that messages carry is there.
pub fn fill(o: &Maker, index: u32, object: &'static Object) -> Result<()> {
    if object.queue.len == 0 {
        return Ok(());
    }
    let saved = record(o, index)?;
    let connected = match saved.peer {
        NONE => None,
        peer => o.made(peer).filter(|_| saved.state == socket_state::CONNECTED),
    };
    match connected.or(o.kept(index, OTHER)) {
        Some(other) => messages(o.ctx, object)?.try_for_each(|m| inject(o, &m, other, &[])),
        None => deliver(o, object, saved),
    }
    .map_err(|e| e.on(o.on(index)))
}

/// Datagrams for a socket with a name, each from the socket that sent it, or from one without a name.
fn deliver(o: &Maker, object: &Object, saved: &UnixSocket) -> Result<()> {
    if saved.name.len == 0 {
        return Ok(());
    }
    let failed = Error::os("cannot put back what waits in the socket");
    let nameless = sys::socket(sys::AF_UNIX, saved.kind, 0).map_err(&failed)?;
    let result = messages(o.ctx, object)?.try_for_each(|m| {
        let sender = if m.from == NONE { None } else { o.made(m.from) };
        in_dir(o, saved, |name| {
            let address = Address::new(name).map_err(|_| Errno::ENAMETOOLONG)?;
            Ok(inject(o, &m, sender.unwrap_or(nameless), address.as_bytes()))
        })
        .map_err(&failed)?
    });
    fd::close(nameless);
    result
}

/// Sends a message that waits to be read, with its descriptors, to an address or the other end.
fn inject(o: &Maker, message: &Queued, through: Fd, to: &[u8]) -> Result<()> {
    let mut fds = [0i32; sys::MAX_CARRIED];
    let carried = message.objects.len();
    let room =
        fds.get_mut(..carried).ok_or(Error::new("the image is damaged: a message with descriptors"))?;
    for (fd, object) in room.iter_mut().zip(message.objects) {
        *fd = o.made(*object).ok_or(Error::new("a descriptor of a message is missing"))?.0;
    }
    let mut sent = 0;
    let mut again = false;
    loop {
        // Descriptors come with the first byte.
        let with = if sent == 0 { &fds[..carried] } else { &[] };
        match sys::send_with(through, &message.bytes[sent..], to, with) {
            Ok(n) => sent += n,
            // More than a new socket may hold: the program had raised the limit.
            Err(Errno::EAGAIN) if !again => {
                again = true;
                let room = i32::try_from(message.bytes.len()).unwrap_or(i32::MAX).max(1 << 20);
                let _ = sys::set_option_int(through, sys::SOL_SOCKET, sys::SO_SNDBUF, room);
                continue;
            }
            Err(e) => {
                return Err(Error::os("cannot put back what waits in the socket")(e)
                    .remedy("raise /proc/sys/net/core/wmem_max or net/unix/max_dgram_qlen"));
            }
        }
        if sent >= message.bytes.len() {
            return Ok(());
        }
    }
}

/// The last step: options (a credentials option would have given names), what was shut down, names that
/// had been removed.
pub fn settle(o: &Maker, index: u32, _: &'static Object) -> Result<()> {
    let saved = record(o, index)?;
    let Some(fd) = o.made(index) else { return Ok(()) };
    options::set_options(o, fd, o.on(index), saved.options)?;
    // SHUT_RD = 1, SHUT_WR = 2 bits. What is still to be read may have been sent before that.
    if saved.shutdown & 3 != 0 && saved.state != socket_state::LISTENING {
        let _ = sys::shutdown(fd, (saved.shutdown & 3) - 1);
    }
    if let Some(other) = o.kept(index, OTHER) {
        o.keep(index, OTHER, None);
        fd::close(other);
    }
    if saved.flags & unix_flags::UNLINKED != 0 && saved.name.len != 0 && listener_of(o, index)?.is_none() {
        in_dir(o, saved, fd::unlink).map_err(|e| Error::os("cannot unlink the socket")(e).on(o.on(index)))?;
    }
    Ok(())
}

/// Runs `f` with the socket's name, in the folder where a relative name starts.
fn in_dir<T>(
    o: &Maker,
    saved: &UnixSocket,
    f: impl FnOnce(&[u8]) -> crate::sys::Result<T>,
) -> crate::sys::Result<T> {
    let blob = |span| o.ctx.image.blob(span).map_err(|_| Errno::EINVAL);
    let (name, dir) = (blob(saved.name)?, blob(saved.dir)?);
    if name.first() == Some(&b'/') {
        return f(paths::rename(&o.ctx.options, name)?.as_bytes());
    }
    if dir.is_empty() {
        return f(name);
    }
    let back = fd::open(b".", O_PATH, 0)?;
    let dir = paths::rename(&o.ctx.options, dir);
    let result = dir.and_then(|dir| fd::chdir(dir.as_bytes())).and_then(|()| f(name));
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
    let is_path = name[0] != 0;
    // The socket file has its mode from the start: chmod(2) would follow a link put in its place.
    let umask = crate::sys::fd::umask(!saved.mode & 0o777);
    let bound = in_dir(o, saved, |name| {
        let address = Address::new(name).map_err(|_| Errno::ENAMETOOLONG)?;
        match sys::bind(fd, address.as_bytes()) {
            Err(Errno::EADDRINUSE) if is_path && is_stale(name, saved.kind) => {
                fd::unlink(name)?;
                sys::bind(fd, address.as_bytes())
            }
            r => r,
        }
    });
    crate::sys::fd::umask(umask);
    if bound.is_ok() && is_path {
        note_made(o, saved);
    }
    bound.map_err(|e| {
        let remedy = match e {
            Errno::EADDRINUSE => {
                "end the program that uses it (perhaps the one that was dumped), or use --path OLD=NEW"
            }
            Errno::ENOENT => "make its folder",
            Errno::ENAMETOOLONG => "the name of a unix socket has at most 108 bytes: choose a shorter --path",
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

/// The socket file is ours now: if the restore fails, it goes.
fn note_made(o: &Maker, saved: &UnixSocket) {
    let is_it = |object: &Object| {
        object.kind == ObjectKind::UnixSocket as u32
            && o.ctx.image.payload::<UnixSocket>(object.payload).is_ok_and(|r| core::ptr::eq(r, saved))
    };
    if let Some(index) = o.ctx.image.objects.iter().position(is_it) {
        o.ctx.sockets_made[index].store(1, Ordering::SeqCst);
    }
}

/// Of a restore that failed: removes the socket files that it made.
pub fn remove_made(ctx: &Ctx) -> Result<()> {
    for (object, made) in ctx.image.objects.iter().zip(ctx.sockets_made) {
        if made.swap(0, Ordering::SeqCst) == 0 {
            continue;
        }
        let saved: &UnixSocket = ctx.image.payload(object.payload)?;
        let (dir, name) = (ctx.image.blob(saved.dir)?, ctx.image.blob(saved.name)?);
        let renamed = |path| paths::rename(&ctx.options, path);
        let path = match dir.is_empty() {
            true => renamed(name),
            false => renamed(dir).and_then(|dir| CPath::concat(&[dir.as_bytes(), b"/", name])),
        };
        if let Ok(path) = path {
            let _ = fd::unlink(path.as_bytes());
        }
    }
    Ok(())
}

/// Whether a path is a socket that no process has open.
fn is_stale(path: &[u8], kind: u32) -> bool {
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
    if let Some(fd) = o.kept(index, SELF) {
        o.keep(index, SELF, None);
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
    if listener_of(o, client)?.is_none() {
        bind(o, record(o, client)?, ours).map_err(|e| e.on(o.on(client)))?;
    }
    connect_to(o, ours, listener).map_err(failed("cannot connect the unix socket"))?;
    let theirs = sys::accept(listening).map_err(failed("cannot accept the connection"))?;
    let theirs = o.raise(theirs)?;
    let (own, other, peer) = if server == index { (theirs, ours, client) } else { (ours, theirs, server) };
    keep_other(o, index, peer, other);
    Ok(Some(own))
}

fn connect_to(o: &Maker, fd: Fd, listener: u32) -> crate::sys::Result<()> {
    let door = record(o, listener).map_err(|_| Errno::EINVAL)?;
    in_dir(o, door, |name| {
        let address = Address::new(name).map_err(|_| Errno::ENAMETOOLONG)?;
        sys::connect(fd, address.as_bytes())
    })
}

/// Datagram sockets with a default destination, when every name is bound; clients that a listening
/// socket has not accepted yet, in their order, when all that it has accepted are.
pub fn connect(o: &Maker, index: u32, _: &'static Object) -> Result<()> {
    let saved = record(o, index)?;
    if saved.state == socket_state::LISTENING {
        return queue_up(o, index);
    }
    let remote = o.ctx.image.blob(saved.remote)?;
    let Some(fd) = o.made(index).filter(|_| !remote.is_empty()) else { return Ok(()) };
    let connected = if remote[0] == b'/' {
        paths::rename(&o.ctx.options, remote).and_then(|path| {
            let address = Address::new(path.as_bytes()).map_err(|_| Errno::ENAMETOOLONG)?;
            sys::connect(fd, address.as_bytes())
        })
    } else {
        sys::connect(fd, Address::new(remote)?.as_bytes())
    };
    match connected {
        Err(e) if o.ctx.options.ignore_changed_files => {
            note(format_args!("fd {}: left unconnected: {e}", fd.0));
            Ok(())
        }
        r => r.map_err(|e| {
            note(format_args!("the name of the other end is {}", crate::report::Printable(remote)));
            Error::os("cannot connect the unix socket")(e)
                .on(o.on(index))
                .remedy("start the program that owns the other end, or go on with --ignore-changed-files")
        }),
    }
}

/// Connects those that wait at a listening socket.
fn queue_up(o: &Maker, listener: u32) -> Result<()> {
    let mut next = Some(0);
    while let Some(order) = next {
        next = None;
        for (i, object) in o.ctx.image.objects.iter().enumerate() {
            let i = i as u32;
            if object.kind != ObjectKind::UnixSocket as u32 || !o.is_wanted(i) || o.given(i).is_some() {
                continue;
            }
            let client = record(o, i)?;
            if client.state != socket_state::WAITING || client.peer != listener || client.order < order {
                continue;
            }
            if client.order == order {
                let fd = o.made(i).ok_or(Error::new("a socket is missing"))?;
                connect_to(o, fd, listener)
                    .map_err(|e| Error::os("cannot connect the unix socket")(e).on(o.on(i)))?;
            }
            if client.order > order {
                next = Some(next.map_or(client.order, |n: u32| n.min(client.order)));
            }
        }
    }
    Ok(())
}
