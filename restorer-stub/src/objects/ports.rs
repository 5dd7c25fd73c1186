//! Ports: others than the saved ones (`--port`), and who has one that is wanted.

use super::inet::{self, Address};
use super::make::Maker;
use crate::ctx::Ctx;
use crate::report::{Printable, Result, say};
use crate::sys::{CPath, Decimal, Fd, fd, socket as sys};
use crate::tree;
use ckpt_format::fd::socket::{InetSocket, socket_state};
use ckpt_format::{Object, ObjectKind};
use linux_raw_sys::general::{O_DIRECTORY, O_RDONLY};

fn port(addr: &[u8; 32]) -> u16 {
    u16::from_be_bytes([addr[2], addr[3]])
}

/// Gives a socket the ports that the caller wants: its own, unless somebody outside knows that, and that of
/// the other end, if that is a socket of the image.
pub fn remap(o: &Maker, s: &mut InetSocket) -> Result<()> {
    if s.kind > sys::SOCK_DGRAM {
        // Raw sockets have protocols.
        return Ok(());
    }
    for (old, new) in o.ctx.options.ports() {
        let to = new.to_be_bytes();
        if s.remote_len > 0 && port(&s.remote) == *old && is_inside(o, s)? {
            s.remote[2..4].copy_from_slice(&to);
        }
        if s.local_len > 0 && port(&s.local) == *old && s.state != socket_state::REPAIRED {
            s.local[2..4].copy_from_slice(&to);
        }
    }
    Ok(())
}

/// Whether a socket of the image has the remote port of this one.
fn is_inside(o: &Maker, s: &InetSocket) -> Result<bool> {
    if s.state == socket_state::REPAIRED {
        return Ok(false);
    }
    for object in o.ctx.image.objects.iter().filter(is_socket) {
        let other: &InetSocket = o.ctx.image.payload(object.payload)?;
        if other.kind == s.kind && other.local_len > 0 && other.local[2..4] == s.remote[2..4] {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_socket(object: &&Object) -> bool {
    object.kind == ObjectKind::InetSocket as u32
}

/// Refuses `--port` for ports that the image does not have.
pub fn check(ctx: &Ctx) -> Result<()> {
    for (old, _) in ctx.options.ports() {
        let mut found = false;
        for object in ctx.image.objects.iter().filter(is_socket) {
            let s: &InetSocket = ctx.image.payload(object.payload)?;
            found |= s.local_len > 0 && port(&s.local) == *old && s.state != socket_state::REPAIRED;
        }
        if !found {
            return Err(crate::report::Error::new("--port: no socket of the saved program has the port")
                .on(crate::report::On::Number(u64::from(*old)))
                .remedy("see ckpt-info for the list"));
        }
    }
    Ok(())
}

/// Says who has an address that cannot be had, as far as that can be told.
pub fn say_who_has(ctx: &Ctx, s: &InetSocket) {
    let local = inet::address(&s.local, s.local_len);
    let files: [&[u8]; 2] = match s.kind {
        sys::SOCK_STREAM => [b"/proc/net/tcp", b"/proc/net/tcp6"],
        _ => [b"/proc/net/udp", b"/proc/net/udp6"],
    };
    let wanted = port(&s.local);
    let inode = files.into_iter().filter_map(|f| inode_at(f, wanted)).max();
    let holder = inode.filter(|(_, inode)| *inode != 0).and_then(|(_, inode)| holder(inode));
    match holder {
        Some((pid, number)) => say(format_args!(
            "the address {} is that of fd {number} of process {pid} ({})",
            Address(local),
            Printable(tree::name_of(ctx, pid))
        )),
        None => say(format_args!("the address of the socket is {}", Address(local))),
    }
}

/// The socket with a local port: whether it listens, and its inode.
fn inode_at(path: &[u8], port: u16) -> Option<(bool, u64)> {
    let file = fd::open(path, O_RDONLY, 0).ok()?;
    let mut buffer = [0u8; 4096];
    let (mut len, mut best) = (0, None);
    while let Ok(n @ 1..) = fd::read(file, &mut buffer[len..]) {
        len += n;
        while let Some(end) = buffer[..len].iter().position(|b| *b == b'\n') {
            best = best.max(line(&buffer[..end], port));
            buffer.copy_within(end + 1..len, 0);
            len -= end + 1;
        }
    }
    fd::close(file);
    best
}

/// `  0: 0100007F:1F90 00000000:0000 0A ...  uid timeout inode ...`
fn line(text: &[u8], port: u16) -> Option<(bool, u64)> {
    const LISTEN: &str = "0A";
    let mut fields = core::str::from_utf8(text).ok()?.split_ascii_whitespace();
    let (_, its) = fields.nth(1)?.split_once(':')?;
    if u16::from_str_radix(its, 16) != Ok(port) {
        return None;
    }
    let listens = fields.nth(1)? == LISTEN;
    Some((listens, fields.nth(5)?.parse().ok()?))
}

/// A process and a descriptor of it that is the socket with this inode.
fn holder(inode: u64) -> Option<(i32, i32)> {
    let number = Decimal::new(inode);
    let link = CPath::concat(&[b"socket:[", number.as_bytes(), b"]"]).ok()?;
    let proc = fd::open(b"/proc", O_RDONLY | O_DIRECTORY, 0).ok()?;
    let mut found = None;
    fd::each_entry(proc, |name| {
        let pid = parse(name)?;
        let path = CPath::concat(&[b"/proc/", name, b"/fd"]).ok()?;
        let dir = fd::open_at(Fd::CWD, &path, O_RDONLY | O_DIRECTORY, 0).ok()?;
        fd::each_entry(dir, |name| {
            let mut target = [0u8; 64];
            let len = fd::read_link_at(dir, &CPath::new(name).ok()?, &mut target).ok()?;
            if target[..len] == *link.as_bytes() {
                found = Some((pid, parse(name)?));
            }
            found.map(drop)
        });
        fd::close(dir);
        found.map(drop)
    });
    fd::close(proc);
    found
}

fn parse(name: &[u8]) -> Option<i32> {
    core::str::from_utf8(name).ok()?.parse().ok()
}
