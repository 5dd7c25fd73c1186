//! TCP connections that the dump has left with a process that holds them: that process hands them over, as they
//! were when the image was written. Nobody notices a moment without them, in which the kernel would answer
//! whatever arrives by a reset; and all that the kernel knows of them stays.

use super::make::Maker;
use super::{inet, repair};
use crate::ctx::Ctx;
use crate::report::Result;
use crate::sys::{Fd, fd, socket as sys};
use ckpt_format::ObjectKind;
use ckpt_format::fd::socket::{InetSocket, socket_state};
use ckpt_format::fd::tcp::TcpRepair;

/// Takes the connections from the process that holds them, if there is one; it ends then.
pub fn take_over(o: &Maker) -> Result<()> {
    let ctx = o.ctx;
    if repair::all(ctx).next().is_none() {
        return Ok(());
    }
    // `struct sockaddr_un` with an abstract name.
    let mut addr = *b"\x01\0\0ckpt-00000000000000000000000000000000";
    for (at, byte) in addr[8..].chunks_exact_mut(2).zip(ctx.image.header.uuid) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        at.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    let Ok(door) = sys::socket(sys::AF_UNIX, sys::SOCK_STREAM, 0) else { return Ok(()) };
    if sys::connect(door, &addr).is_ok() {
        let mut carried = [-1; sys::MAX_CARRIED];
        // The end comes when all is closed there.
        while let Ok(Some(count)) = sys::receive_descriptors(door, &mut carried) {
            carried.iter().take(count).try_for_each(|n| keep(o, Fd(*n)))?;
        }
    }
    fd::close(door);
    Ok(())
}

/// Keeps a connection for the object that has its addresses.
fn keep(o: &Maker, fd: Fd) -> Result<()> {
    let fd = o.raise(fd)?;
    let (mut local, mut remote) = ([0; 32], [0; 32]);
    let lens = (sys::local_name(fd, &mut local), sys::peer_name(fd, &mut remote));
    let (Ok(local_len), Ok(remote_len)) = lens else {
        fd::close(fd);
        return Ok(());
    };
    let is_it = |s: &InetSocket| {
        s.state == socket_state::REPAIRED
            && inet::address(&s.local, s.local_len) == &local[..local_len]
            && inet::address(&s.remote, s.remote_len) == &remote[..remote_len]
    };
    let index = wanted(o.ctx).find_map(|(index, saved)| is_it(saved).then_some(index));
    match index.and_then(|i| o.held.borrow_mut().get_mut(i).map(|slot| *slot = fd.0 + 1)) {
        Some(()) => {}
        None => fd::close(fd),
    }
    Ok(())
}

/// Connections that go on, by object.
fn wanted(ctx: &Ctx) -> impl Iterator<Item = (usize, &'static InetSocket)> {
    let image = ctx.image;
    let sockets = image.objects.iter().enumerate().filter(|(_, o)| o.kind == ObjectKind::InetSocket as u32);
    sockets.filter_map(move |(i, o)| Some((i, image.payload::<InetSocket>(o.payload).ok()?)))
}

/// The connection of an object, in repair mode; `None` if it was not held, or has changed since (given up
/// by the kernel).
pub fn connection(o: &Maker, index: u32, r: &TcpRepair) -> Option<Fd> {
    let fd = o.held.borrow_mut().get_mut(index as usize).map(core::mem::take)?.checked_sub(1).map(Fd)?;
    if repair::tcp(fd, repair::TCP_REPAIR, 1).is_ok() && is_as_saved(fd, r) {
        return Some(fd);
    }
    fd::close(fd);
    None
}

/// What nobody has asked for (`--tcp reset`) ends without a word: it is in repair mode.
pub fn close_rest(o: &Maker) {
    for slot in o.held.borrow_mut().iter_mut() {
        if let Some(fd) = core::mem::take(slot).checked_sub(1) {
            fd::close(Fd(fd));
        }
    }
}

/// A connection in repair mode has all that was written and received.
pub fn is_as_saved(fd: Fd, r: &TcpRepair) -> bool {
    let sequence = |queue| {
        repair::tcp(fd, repair::TCP_REPAIR_QUEUE, queue)?;
        sys::option_int(fd, repair::SOL_TCP, repair::TCP_QUEUE_SEQ).map(i32::cast_unsigned)
    };
    let both = (sequence(repair::RECEIVED), sequence(repair::SENT));
    let _ = repair::tcp(fd, repair::TCP_REPAIR_QUEUE, repair::NO_QUEUE);
    repair::state(fd) == r.state && both == (Ok(r.received), Ok(r.written))
}
