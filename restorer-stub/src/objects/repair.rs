//! TCP connections whose other end is not in the image go on (TCP_REPAIR): the other end notices nothing. They
//! stay in repair mode, in which they send nothing, also when they are closed, until all else is restored.

use super::make::Maker;
use super::place::Placer;
use super::{fin, held, inet, messages, socket as options};
use crate::ctx::Ctx;
use crate::report::{Error, On, Result, say};
use crate::sys::{Errno, Fd, fd, socket as sys};
use ckpt_format::fd::socket::{InetSocket, socket_state};
use ckpt_format::fd::tcp::TcpRepair;
use ckpt_format::{Object, ObjectKind};

pub const SOL_TCP: u32 = 6;
const TCP_MAXSEG: u32 = 2;
pub const TCP_REPAIR: u32 = 19;
pub const TCP_REPAIR_QUEUE: u32 = 20;
pub const TCP_QUEUE_SEQ: u32 = 21;
const TCP_REPAIR_OPTIONS: u32 = 22;
const TCP_TIMESTAMP: u32 = 24;
const TCP_REPAIR_WINDOW: u32 = 29;
const SO_SNDBUFFORCE: u32 = 32;
const SO_RCVBUFFORCE: u32 = 33;
const SO_RCVBUF: u32 = 8;

/// Most that TCP_MAXSEG takes (MAX_TCP_WINDOW).
const MAX_MSS: i32 = 32767;

/// Values of TCP_REPAIR_QUEUE.
pub const NO_QUEUE: i32 = 0;
pub const RECEIVED: i32 = 1;
pub const SENT: i32 = 2;

/// include/net/tcp_states.h.
const FIN_WAIT1: u32 = 4;
const FIN_WAIT2: u32 = 5;
const CLOSE_WAIT: u32 = 8;
const LAST_ACK: u32 = 9;
const CLOSING: u32 = 11;

/// The other end has ended the stream.
fn was_ended(r: &TcpRepair) -> bool {
    [CLOSE_WAIT, LAST_ACK, CLOSING].contains(&r.state)
}

/// The program has.
fn has_ended(r: &TcpRepair) -> bool {
    [FIN_WAIT1, FIN_WAIT2, LAST_ACK, CLOSING].contains(&r.state)
}

/// The sockets that go on.
pub fn all(ctx: &Ctx) -> impl Iterator<Item = &'static InetSocket> {
    let image = ctx.image;
    let sockets = image.objects.iter().filter(|o| o.kind == ObjectKind::InetSocket as u32);
    sockets
        .filter_map(move |o| image.payload::<InetSocket>(o.payload).ok())
        .filter(|s| s.state == socket_state::REPAIRED)
}

/// Whether it is permitted, before anything is done.
pub fn check(ctx: &Ctx) -> Result<()> {
    const AF_INET: u32 = 2;
    if ctx.options.reset_tcp {
        return Ok(());
    }
    let Some(first) = all(ctx).next() else { return Ok(()) };
    let probe = sys::socket(AF_INET, sys::SOCK_STREAM, 0).and_then(|probe| {
        let r = sys::set_option_int(probe, SOL_TCP, TCP_REPAIR, 1);
        fd::close(probe);
        r
    });
    let raw = all(ctx).any(|s| ctx.image.payload(s.repair).is_ok_and(was_ended));
    probe.and_then(|()| if raw { fin::check() } else { Ok(()) }).map_err(|e| {
        say(format_args!(
            "the program has a TCP connection from {} to {}",
            inet::Address(inet::address(&first.local, first.local_len)),
            inet::Address(inet::address(&first.remote, first.remote_len))
        ));
        Error::os("TCP connections to others cannot go on without CAP_NET_ADMIN (and CAP_NET_RAW)")(e)
            .remedy("run the image as root, or with --tcp reset: the program then sees ECONNRESET")
    })
}

/// Makes the connection, without a word to the other end.
pub fn connection(o: &Maker, index: u32, saved: &InetSocket) -> Result<Fd> {
    let on = o.on(index);
    let failed = |what| move |e| Error::os(what)(e).on(on);
    let r: &TcpRepair = o.ctx.image.payload(saved.repair)?;
    if let Some(fd) = held::connection(o, index, r) {
        return Ok(fd);
    }
    let unacked = o.ctx.image.blob(r.unacked)?;
    let made = sys::socket(saved.family, saved.kind, saved.protocol);
    let fd = o.raise(made.map_err(failed("cannot make the socket"))?)?;
    options::set_options(o, fd, on, saved.options)?;
    tcp(fd, TCP_REPAIR, 1).map_err(failed("cannot go on with the TCP connection"))?;
    // The window that connect(2) decides on depends on it.
    force(fd, SO_RCVBUFFORCE, r.receive_buffer / 2);
    let received: usize = messages(o.ctx, o.object(index)?)?.map(|m| m.bytes.len()).sum();
    let first_received = r.received.wrapping_sub(u32::from(was_ended(r))).wrapping_sub(received as u32);
    let first_sent = r.written.wrapping_sub(u32::from(has_ended(r))).wrapping_sub(unacked.len() as u32);
    start_at(fd, RECEIVED, first_received)
        .and_then(|()| start_at(fd, SENT, first_sent))
        .map_err(failed("cannot set the sequence numbers of the TCP connection"))?;
    // connect(2) decides on the size of segments by it, and nothing does again (tcp_connect_init).
    let _ = tcp(fd, TCP_MAXSEG, i32::try_from(r.mss).unwrap_or(MAX_MSS).min(MAX_MSS));
    connect(fd, saved).map_err(|e| e.on(on))?;
    let own = options::saved_int(o.ctx, saved.options, SOL_TCP, TCP_MAXSEG)?;
    let _ = tcp(fd, TCP_MAXSEG, own.unwrap_or(0));
    negotiated(fd, r).map_err(failed("cannot set the options of the TCP connection"))?;
    let room = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX / 8).saturating_mul(2) + (1 << 18);
    force(fd, SO_RCVBUFFORCE, room(received).max(r.receive_buffer / 2));
    force(fd, SO_SNDBUFFORCE, room(unacked.len()).max(r.send_buffer / 2));
    messages(o.ctx, o.object(index)?)?
        .try_for_each(|m| put(fd, RECEIVED, m.bytes))
        .map_err(failed("cannot put back what was received"))?;
    let sent = unacked.len().saturating_sub(r.unsent as usize);
    put(fd, SENT, &unacked[..sent]).map_err(failed("cannot put back what was sent"))?;
    tcp(fd, TCP_REPAIR_QUEUE, NO_QUEUE).map_err(failed("cannot choose no queue"))?;
    window(fd, r).map_err(failed("cannot set the window of the TCP connection"))?;
    buffers(o, fd, saved, r)?;
    Ok(fd)
}

pub fn tcp(fd: Fd, name: u32, value: i32) -> crate::sys::Result<()> {
    sys::set_option_int(fd, SOL_TCP, name, value)
}

/// include/net/tcp_states.h; 0 where it cannot be asked.
pub fn state(fd: Fd) -> u32 {
    const TCP_INFO: u32 = 11;
    // The first byte of `struct tcp_info`.
    sys::option_int(fd, SOL_TCP, TCP_INFO).map_or(0, |info| (info & 0xff).cast_unsigned())
}

/// Sizes above net.core.{r,w}mem_max, too. (The kernel doubles them.)
fn force(fd: Fd, name: u32, bytes: u32) {
    let _ = sys::set_option_int(fd, sys::SOL_SOCKET, name, i32::try_from(bytes).unwrap_or(i32::MAX / 2));
}

fn start_at(fd: Fd, queue: i32, sequence: u32) -> crate::sys::Result<()> {
    tcp(fd, TCP_REPAIR_QUEUE, queue)?;
    tcp(fd, TCP_QUEUE_SEQ, sequence.cast_signed())
}

fn connect(fd: Fd, saved: &InetSocket) -> Result<()> {
    let (local, remote) =
        (inet::address(&saved.local, saved.local_len), inet::address(&saved.remote, saved.remote_len));
    sys::bind(fd, local).and_then(|()| sys::connect(fd, remote)).map_err(|e| {
        say(format_args!("the TCP connection is from {} to {}", inet::Address(local), inet::Address(remote)));
        let remedy = match e {
            Errno::EADDRNOTAVAIL => {
                "end the program that has this connection (perhaps the one that was dumped), or give this \
                 machine the address (ip addr add); --tcp reset lets the program see ECONNRESET"
            }
            _ => "--tcp reset lets the program see ECONNRESET",
        };
        Error::os("cannot go on with the TCP connection")(e).remedy(remedy)
    })
}

/// What both ends had agreed to: `struct tcp_repair_opt`s.
fn negotiated(fd: Fd, r: &TcpRepair) -> crate::sys::Result<()> {
    const MAXSEG: u32 = 2;
    const WINDOW: u32 = 3;
    const SACK_PERMITTED: u32 = 4;
    const TIMESTAMPS: u32 = 8;
    // Bit of tcpi_options, option, value.
    let all = [
        (0, MAXSEG, r.mss),
        (4, WINDOW, r.send_scale | r.receive_scale << 16),
        (2, SACK_PERMITTED, 0),
        (1, TIMESTAMPS, 0),
    ];
    for (_, option, value) in all.into_iter().filter(|(bit, ..)| r.options & bit == *bit) {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&option.to_le_bytes());
        bytes[4..].copy_from_slice(&value.to_le_bytes());
        sys::set_option(fd, SOL_TCP, TCP_REPAIR_OPTIONS, &bytes)?;
    }
    if r.options & 1 != 0 { tcp(fd, TCP_TIMESTAMP, r.timestamp.cast_signed()) } else { Ok(()) }
}

/// Puts bytes into a queue.
fn put(fd: Fd, queue: i32, mut bytes: &[u8]) -> crate::sys::Result<()> {
    const PIECE: usize = 32 << 10;
    tcp(fd, TCP_REPAIR_QUEUE, queue)?;
    while !bytes.is_empty() {
        let n = sys::send_with(fd, &bytes[..bytes.len().min(PIECE)], &[], &[])?;
        bytes = &bytes[n..];
    }
    Ok(())
}

/// `struct tcp_repair_window`: the last word is the sequence number up to which the window was announced,
/// which must not lie behind what was received (the end of the stream is not there yet).
fn window(fd: Fd, r: &TcpRepair) -> crate::sys::Result<()> {
    let mut words = r.window;
    let received = r.received.wrapping_sub(u32::from(was_ended(r)));
    if words[4].wrapping_sub(received).cast_signed() > 0 {
        words[4] = received;
    }
    let mut bytes = [0; 20];
    for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    sys::set_option(fd, SOL_TCP, TCP_REPAIR_WINDOW, &bytes)
}

/// Sizes as they were, and again under the kernel's control, where the program had not set them.
fn buffers(o: &Maker, fd: Fd, saved: &InetSocket, r: &TcpRepair) -> Result<()> {
    force(fd, SO_SNDBUFFORCE, r.send_buffer / 2);
    force(fd, SO_RCVBUFFORCE, r.receive_buffer / 2);
    let set = |name| -> Result<bool> {
        Ok(options::saved_int(o.ctx, saved.options, sys::SOL_SOCKET, name)?.is_some())
    };
    let lock = i32::from(set(sys::SO_SNDBUF)?) | i32::from(set(SO_RCVBUF)?) << 1;
    // Linux 5.14.
    let _ = sys::set_option_int(fd, sys::SOL_SOCKET, sys::SO_BUF_LOCK, lock);
    Ok(())
}

/// All else is restored: the connection goes on.
pub fn go_on(o: &Placer, fd: Fd, object: &'static Object) -> Result<()> {
    let saved: &InetSocket = o.ctx.image.payload(object.payload)?;
    if saved.state != socket_state::REPAIRED || o.ctx.options.reset_tcp {
        return Ok(());
    }
    let on = o.on(fd.0);
    let failed = move |e| Error::os("cannot go on with the TCP connection")(e).on(on);
    let r: &TcpRepair = o.ctx.image.payload(saved.repair)?;
    let unacked = o.ctx.image.blob(r.unacked)?;
    let complete = held::is_as_saved(fd, r);
    options::settle_filter(o.ctx, fd, on, saved.options)?;
    // Tells the other end that we are here, and so asks what it has.
    tcp(fd, TCP_REPAIR, 0).map_err(failed)?;
    let reuse = options::saved_int(o.ctx, saved.options, sys::SOL_SOCKET, sys::SO_REUSEADDR)?;
    sys::set_option_int(fd, sys::SOL_SOCKET, sys::SO_REUSEADDR, reuse.unwrap_or(0)).map_err(failed)?;
    if complete {
        return Ok(());
    }
    let end = fin::End {
        from: inet::address(&saved.remote, saved.remote_len),
        to: inet::address(&saved.local, saved.local_len),
        sequence: r.received.wrapping_sub(1),
        acknowledged: r.written.wrapping_sub(u32::from(has_ended(r))).wrapping_sub(unacked.len() as u32),
    };
    // Who ended first matters to the kernel's state, not to the bytes.
    if was_ended(r) && r.state != CLOSING {
        fin::deliver(fd, &end).map_err(|e| e.on(on))?;
    }
    send(fd, &unacked[unacked.len().saturating_sub(r.unsent as usize)..], r, on)?;
    if has_ended(r) {
        let _ = sys::shutdown(fd, 1);
    }
    if r.state == CLOSING {
        fin::deliver(fd, &end).map_err(|e| e.on(on))?;
    }
    if saved.shutdown & 1 != 0 {
        let _ = sys::shutdown(fd, 0);
    }
    Ok(())
}

/// What had never been sent.
fn send(fd: Fd, mut bytes: &[u8], r: &TcpRepair, on: On) -> Result<()> {
    let mut widened = false;
    while !bytes.is_empty() {
        match sys::send_with(fd, bytes, &[], &[]) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::EAGAIN) if !widened => {
                widened = true;
                force(fd, SO_SNDBUFFORCE, (r.send_buffer / 2).saturating_add(4 << 20));
            }
            Err(e) => {
                // SO_SNDBUFFORCE is for root outside of user namespaces only.
                return Err(Error::os("cannot send what the program had written")(e)
                    .on(on)
                    .remedy("raise net.core.wmem_max, or run the image as root, in no user namespace"));
            }
        }
    }
    Ok(())
}
