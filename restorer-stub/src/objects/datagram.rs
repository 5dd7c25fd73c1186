//! UDP, UDP-Lite, raw and ICMP sockets.
//!
//! What waits in a UDP socket is sent to it again, before any of them has its name: over the loopback to a
//! port that nobody knows, so that neither another socket with the same port gets it, nor anything else gets
//! in between. Disconnecting takes that port away again and leaves what was received. A raw socket can say
//! that it comes from whoever sent it; without the right to have one, a socket is bound to the sender's
//! address for that moment, which does for senders on this machine.

use super::make::Maker;
use super::{inet, messages, socket as options};
use crate::report::{Error, On, Result, say};
use crate::sys::{Errno, Fd, fd, object as os, socket as sys};
use ckpt_format::Object;
use ckpt_format::fd::options::{SO_ATTACH_FILTER, SOL_IP, SOL_IPV6};
use ckpt_format::fd::socket::{Datagram, InetSocket, option_stage};
use zerocopy::FromBytes;

const IPPROTO_UDPLITE: u32 = 136;
/// Sends with a header that the caller writes.
const IPPROTO_RAW: u32 = 255;

/// The socket, with what waits in it; [`settle`] does the rest.
pub fn create(o: &Maker, index: u32, saved: &InetSocket, object: &'static Object) -> Result<Fd> {
    let on = o.on(index);
    let fd = sys::socket(saved.family, saved.kind, saved.protocol).map_err(|e| {
        Error::os("cannot make the socket")(e).on(on).remedy(match e {
            Errno::EPERM => "a raw socket needs CAP_NET_RAW: restore as root",
            Errno::EACCES => "a socket for pings needs a group in net.ipv4.ping_group_range",
            _ => "",
        })
    })?;
    let fd = o.raise(fd)?;
    if saved.kind == sys::SOCK_RAW {
        shut_out(fd).map_err(|e| Error::os("cannot set a socket option")(e).on(on))?;
    } else if object.queue.len != 0 {
        fill(o, fd, on, saved, object)?;
    }
    Ok(fd)
}

/// A raw socket gets packets from its first moment: none, until all is set that chooses among them.
fn shut_out(fd: Fd) -> crate::sys::Result<()> {
    /// BPF_RET | BPF_K, 0.
    const NOTHING: [u8; 8] = [6, 0, 0, 0, 0, 0, 0, 0];
    sys::attach_filter(fd, &NOTHING)?;
    while sys::discard(fd) {}
    Ok(())
}

/// Options, name, destination: when all have what waits in them.
pub fn settle(o: &Maker, index: u32, object: &'static Object) -> Result<()> {
    let saved = &inet::saved(o, object)?;
    let Some(fd) = o.made(index).filter(|_| saved.kind != sys::SOCK_STREAM) else { return Ok(()) };
    let on = o.on(index);
    options::set_stage(o, fd, on, saved.options, option_stage::FIRST)?;
    inet::bind(o, fd, saved).map_err(|e| e.on(on))?;
    if saved.remote_len != 0 {
        let remote = inet::address(&saved.remote, saved.remote_len);
        sys::connect(fd, remote).map_err(|e| {
            say(format_args!("the destination of the socket is {}", inet::Address(remote)));
            Error::os("cannot connect the socket")(e).on(on)
        })?;
    }
    if saved.kind == sys::SOCK_RAW
        && options::saved_int(o.ctx, saved.options, sys::SOL_SOCKET, SO_ATTACH_FILTER)?.is_none()
    {
        sys::set_option_int(fd, sys::SOL_SOCKET, sys::SO_DETACH_FILTER, 0)
            .map_err(|e| Error::os("cannot set a socket option")(e).on(on))?;
    }
    options::set_stage(o, fd, on, saved.options, option_stage::LAST)?;
    if saved.shutdown & 3 != 0 {
        // ENOTCONN, but done, for a socket without destination.
        let _ = sys::shutdown(fd, (saved.shutdown & 3) - 1);
    }
    Ok(())
}

fn fill(o: &Maker, fd: Fd, on: On, saved: &InetSocket, object: &'static Object) -> Result<()> {
    let failed = |e| Error::os("cannot restore the datagrams that wait in the socket")(e).on(on);
    // What was received elsewhere may take more memory here.
    let size = sys::option_int(fd, sys::SOL_SOCKET, sys::SO_RCVBUF).map_err(failed)?;
    widen(fd);
    for message in messages(o.ctx, object)? {
        let damaged = Error::new("the image is damaged: a datagram without its addresses").on(on);
        let (d, bytes) = Datagram::ref_from_prefix(message.bytes).map_err(|_| damaged)?;
        tell_interface(fd, d.by_loopback);
        deliver(fd, saved, d, bytes).map_err(|e| {
            let from = inet::address(&d.from, d.from_len);
            say(format_args!("a datagram that waits in the socket came from {}", inet::Address(from)));
            failed(e).remedy(match e {
                Errno::EADDRNOTAVAIL | Errno::EACCES => {
                    "that is not on this machine: saying so again needs CAP_NET_RAW; restore as root"
                }
                Errno::EADDRINUSE => {
                    "end the program that has this address now, or restore as root (CAP_NET_RAW)"
                }
                Errno::ETIMEDOUT => "it did not arrive over the loopback: is there a firewall in between?",
                _ => "",
            })
        })?;
    }
    tell_interface(fd, 0);
    disconnect(fd).map_err(failed)?;
    // As new: what the program has set comes with its options.
    let _ = sys::set_option_int(fd, sys::SOL_SOCKET, sys::SO_RCVBUF, size / 2);
    let _ = sys::set_option_int(fd, sys::SOL_SOCKET, sys::SO_BUF_LOCK, 0);
    Ok(())
}

/// IP_PKTINFO, IPV6_RECVPKTINFO: the interface is noted when a datagram arrives.
fn tell_interface(fd: Fd, on: u32) {
    let _ = sys::set_option_int(fd, SOL_IP, 8, on as i32);
    let _ = sys::set_option_int(fd, SOL_IPV6, 49, on as i32);
}

fn widen(fd: Fd) {
    const SO_RCVBUFFORCE: u32 = 33;
    const PLENTY: i32 = 64 << 20;
    if sys::set_option_int(fd, sys::SOL_SOCKET, SO_RCVBUFFORCE, PLENTY).is_err() {
        let _ = sys::set_option_int(fd, sys::SOL_SOCKET, sys::SO_RCVBUF, PLENTY);
    }
}

/// connect(2) to AF_UNSPEC: takes a name away that was not asked for.
fn disconnect(fd: Fd) -> crate::sys::Result<()> {
    sys::connect(fd, &[0; 16])
}

/// Sends a datagram as its sender did, and waits until it is there.
fn deliver(fd: Fd, saved: &InetSocket, d: &Datagram, bytes: &[u8]) -> crate::sys::Result<()> {
    let from = Place::of(inet::address(&d.from, d.from_len)).ok_or(Errno::EINVAL)?;
    let memory = || sys::option_int(fd, sys::SOL_SOCKET, sys::SO_MEMINFO);
    let before = memory()?;
    send(fd, saved, d, from, bytes)?;
    // At once, but for machines that leave it to other CPUs.
    for _ in 0..2000 {
        if memory()? > before {
            return Ok(());
        }
        os::pause_ms(1);
    }
    Err(Errno::ETIMEDOUT)
}

fn send(fd: Fd, saved: &InetSocket, d: &Datagram, from: Place, bytes: &[u8]) -> crate::sys::Result<()> {
    let mut to = Place { port: own_port(fd, saved.family)?, ..destination(saved, d, from) };
    match forge(saved.protocol, from, to, d, bytes) {
        // The address is not here any more, so this one will do.
        Err(Errno::EADDRNOTAVAIL) => {
            to.ip = loopback(from);
            forge(saved.protocol, from, to, d, bytes)
        }
        Err(Errno::EPERM) => loop {
            match send_from(saved.protocol, from, to, d, bytes) {
                // Of all ports, the socket has got just the sender's.
                Err(Errno::EADDRINUSE) if from.port == to.port => {
                    disconnect(fd)?;
                    to.port = own_port(fd, saved.family)?;
                }
                Err(Errno::ENETUNREACH | Errno::EINVAL) if to.ip != loopback(from) => to.ip = loopback(from),
                r => return r,
            }
        },
        r => r,
    }
}

/// The port that the socket has for the moment.
fn own_port(fd: Fd, family: u32) -> crate::sys::Result<u16> {
    let mut name = [0u8; 32];
    for _ in 0..2 {
        let len = sys::local_name(fd, &mut name)?;
        let port = u16::from_be_bytes([name[2], name[3]]);
        if len >= 4 && port != 0 {
            return Ok(port);
        }
        // IPv4 in IPv6 clothes reaches both kinds of sockets. Port 9 is nobody's; nothing is sent.
        let any = Place { v6: false, ip: V4_LOOPBACK, port: 9 };
        let (to, len) = any.socket_address(family);
        sys::give_name(fd, inet::address(&to, len))?;
    }
    Err(Errno::EADDRNOTAVAIL)
}

/// Where a datagram was sent to: as the program could see, or to the address of its socket.
fn destination(saved: &InetSocket, d: &Datagram, from: Place) -> Place {
    let seen = match d.to_len {
        4 => Place::of_ip(false, &d.to[..4]),
        16 => Place::of_ip(true, &d.to[..16]),
        _ => Place::of(inet::address(&saved.local, saved.local_len)),
    };
    match seen {
        Some(to) if to.v6 == from.v6 && to.is_ordinary() => to,
        _ => Place { ip: loopback(from), ..from },
    }
}

/// Address and port.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    v6: bool,
    /// Of an IPv4 address, the first four.
    ip: [u8; 16],
    port: u16,
}

const V4_LOOPBACK: [u8; 16] = [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const V6_LOOPBACK: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// `::ffff:0:0/96`: an IPv4 address in IPv6 clothes.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

fn loopback(like: Place) -> [u8; 16] {
    if like.v6 { V6_LOOPBACK } else { V4_LOOPBACK }
}

impl Place {
    /// A `struct sockaddr_in` or `sockaddr_in6`.
    fn of(raw: &[u8]) -> Option<Self> {
        let port = u16::from_be_bytes([*raw.get(2)?, *raw.get(3)?]);
        let place = match u32::from(*raw.first()?) {
            sys::AF_INET6 => Self::of_ip(true, raw.get(8..24)?)?,
            _ => Self::of_ip(false, raw.get(4..8)?)?,
        };
        Some(Self { port, ..place })
    }

    fn of_ip(v6: bool, bytes: &[u8]) -> Option<Self> {
        if let Some(v4) = bytes.strip_prefix(&MAPPED).filter(|_| v6) {
            return Self::of_ip(false, v4);
        }
        let mut ip = [0; 16];
        ip.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self { v6, ip, port: 0 })
    }

    /// Neither any, nor several.
    fn is_ordinary(&self) -> bool {
        let several = if self.v6 { self.ip[0] == 0xff } else { self.ip[0] >= 224 };
        !several && self.ip != [0; 16]
    }

    fn ip(&self) -> &[u8] {
        &self.ip[..if self.v6 { 16 } else { 4 }]
    }

    fn family(&self) -> u32 {
        if self.v6 { sys::AF_INET6 } else { sys::AF_INET }
    }

    /// As `struct sockaddr_in` or `sockaddr_in6`, for a socket of that family; its length.
    fn socket_address(&self, family: u32) -> ([u8; 32], u32) {
        let mut addr = [0; 32];
        addr[0] = family as u8;
        addr[2..4].copy_from_slice(&self.port.to_be_bytes());
        if family != sys::AF_INET6 {
            addr[4..8].copy_from_slice(&self.ip[..4]);
            return (addr, 16);
        }
        if self.v6 {
            addr[8..24].copy_from_slice(&self.ip);
        } else {
            addr[8..20].copy_from_slice(&MAPPED);
            addr[20..24].copy_from_slice(&self.ip[..4]);
        }
        (addr, 28)
    }
}

/// From a socket that is bound to the sender's address for that.
fn send_from(protocol: u32, from: Place, to: Place, d: &Datagram, bytes: &[u8]) -> crate::sys::Result<()> {
    let family = from.family();
    let sender = sys::socket(family, sys::SOCK_DGRAM, protocol)?;
    // IP_TTL 2, IP_TOS 1; IPV6_UNICAST_HOPS 16, IPV6_TCLASS 67.
    let (level, ttl, tos) = if from.v6 { (SOL_IPV6, 16, 67) } else { (SOL_IP, 2, 1) };
    let result = (|| {
        if d.ttl != 0 {
            sys::set_option_int(sender, level, ttl, d.ttl as i32)?;
        }
        sys::set_option_int(sender, level, tos, d.tos as i32)?;
        let (name, len) = from.socket_address(family);
        sys::bind(sender, inet::address(&name, len))?;
        let (name, len) = to.socket_address(family);
        sys::send_with(sender, bytes, inet::address(&name, len), &[]).map(drop)
    })();
    fd::close(sender);
    result
}

/// With headers of our own: from any address. EPERM where that is not allowed.
fn forge(protocol: u32, from: Place, to: Place, d: &Datagram, bytes: &[u8]) -> crate::sys::Result<()> {
    let raw = sys::socket(from.family(), sys::SOCK_RAW, IPPROTO_RAW)?;
    let result = (|| {
        // To addresses of this machine only: nothing of this may leave it.
        let (name, len) = Place { port: 0, ..to }.socket_address(from.family());
        let name = inet::address(&name, len);
        sys::bind(raw, name)?;
        let mut udp = udp_header(protocol, from, to, bytes).ok_or(Errno::EINVAL)?;
        let mut head = [0u8; 48];
        let ip = ip_header(&mut head, protocol, from, to, d, &udp, bytes.len()).ok_or(Errno::EINVAL)?;
        head[ip..ip + 8].swap_with_slice(&mut udp);
        sys::send_parts(raw, [&head[..ip + 8], bytes], name).map(drop)
    })();
    fd::close(raw);
    result
}

/// Its length.
fn ip_header(
    head: &mut [u8; 48],
    protocol: u32,
    from: Place,
    to: Place,
    d: &Datagram,
    udp: &[u8; 8],
    bytes: usize,
) -> Option<usize> {
    let (ttl, tos) = (if d.ttl == 0 { 64 } else { d.ttl as u8 }, d.tos as u8);
    let len = u16::try_from(udp.len() + bytes).ok()?;
    if from.v6 {
        (head[0], head[1]) = (0x60 | tos >> 4, tos << 4);
        head[4..6].copy_from_slice(&len.to_be_bytes());
        (head[6], head[7]) = (protocol as u8, ttl);
        head[8..24].copy_from_slice(&from.ip);
        head[24..40].copy_from_slice(&to.ip);
        return Some(40);
    }
    // The kernel adds identification and checksum.
    (head[0], head[1]) = (0x45, tos);
    head[2..4].copy_from_slice(&len.checked_add(20)?.to_be_bytes());
    (head[8], head[9]) = (ttl, protocol as u8);
    head[12..16].copy_from_slice(from.ip());
    head[16..20].copy_from_slice(to.ip());
    Some(20)
}

fn udp_header(protocol: u32, from: Place, to: Place, bytes: &[u8]) -> Option<[u8; 8]> {
    let len = u16::try_from(8 + bytes.len()).ok()?;
    let mut udp = [0u8; 8];
    udp[0..2].copy_from_slice(&from.port.to_be_bytes());
    udp[2..4].copy_from_slice(&to.port.to_be_bytes());
    // UDP-Lite has how much the checksum covers here, 0 for all.
    let covers = if protocol == IPPROTO_UDPLITE { 0 } else { len };
    udp[4..6].copy_from_slice(&covers.to_be_bytes());
    let pseudo = sum(from.ip()) + sum(to.ip()) + u64::from(protocol) + u64::from(len);
    let mut checksum = pseudo + sum(&udp) + sum(bytes);
    while checksum >> 16 != 0 {
        checksum = (checksum & 0xffff) + (checksum >> 16);
    }
    // 0 says that there is none.
    let checksum = match !(checksum as u16) {
        0 => 0xffff,
        other => other,
    };
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    Some(udp)
}

/// Of 16-bit words in network order.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|w| u64::from(w[0]) << 8 | u64::from(w.get(1).copied().unwrap_or(0))).sum()
}
