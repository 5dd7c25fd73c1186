//! The end of a stream that had been received: the kernel takes it from a packet only. So one is sent, from
//! the address of the other end, to ourselves.

use super::repair;
use crate::report::{Error, Result};
use crate::sys::{Errno, Fd, fd, object as os, socket as sys};

const AF_INET: u32 = 2;
const SOCK_RAW: u32 = 3;
/// Packets with their IP header.
const IPPROTO_RAW: u32 = 255;
const IPPROTO_TCP: u8 = 6;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;

/// What the packet says.
pub struct End<'a> {
    /// `struct sockaddr_in` or `sockaddr_in6`.
    pub from: &'a [u8],
    pub to: &'a [u8],
    pub sequence: u32,
    pub acknowledged: u32,
}

/// Whether it is permitted (CAP_NET_RAW).
pub fn check() -> crate::sys::Result<()> {
    sys::socket(AF_INET, SOCK_RAW, IPPROTO_RAW).map(fd::close)
}

/// Makes `connection` receive the end of the stream.
pub fn deliver(connection: Fd, end: &End) -> Result<()> {
    let failed = Error::os("cannot end the stream of the TCP connection again");
    let (from, to) = (ip(end.from), ip(end.to));
    let v4 = to.len() == 4;
    let mut packet = [0u8; IPV6_HEADER + TCP_HEADER];
    let header = if v4 { IPV4_HEADER } else { IPV6_HEADER };
    let packet = &mut packet[..header + TCP_HEADER];
    let (ip_part, tcp_part) = packet.split_at_mut(header);
    if v4 {
        ip_part[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, IPPROTO_TCP]);
        ip_part[12..16].copy_from_slice(from);
        ip_part[16..20].copy_from_slice(to);
    } else {
        ip_part[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, TCP_HEADER as u8, IPPROTO_TCP, 64]);
        ip_part[8..24].copy_from_slice(from);
        ip_part[24..40].copy_from_slice(to);
    }
    segment(tcp_part, end, from, to);
    // Where it goes: the port of a raw socket's destination is its protocol, or 0.
    let mut dest = [0u8; 28];
    let dest = if v4 { &mut dest[..16] } else { &mut dest[..] };
    if v4 {
        dest[0] = AF_INET as u8;
        dest[4..8].copy_from_slice(to);
    } else {
        dest.copy_from_slice(end.to);
        dest[2..4].fill(0);
    }
    let family = if v4 { AF_INET } else { sys::AF_INET6 };
    let raw = sys::socket(family, SOCK_RAW, IPPROTO_RAW).map_err(&failed)?;
    let sent = sys::send_with(raw, packet, dest, &[]).map_err(&failed);
    fd::close(raw);
    sent?;
    if arrived(connection) { Ok(()) } else { Err(failed(Errno::ETIMEDOUT)) }
}

/// CLOSE_WAIT or later: it comes over the loopback, at once or nearly so.
fn arrived(connection: Fd) -> bool {
    // CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING, TIME_WAIT.
    const ENDED: [u32; 5] = [7, 8, 9, 11, 6];
    (0..500).any(|_| {
        let ended = ENDED.contains(&repair::state(connection));
        if !ended {
            os::pause_ms(2);
        }
        ended
    })
}

/// The address; that of IPv4 in IPv6 clothes as what it is.
fn ip(addr: &[u8]) -> &[u8] {
    match addr {
        [_, _, _, _, _, _, _, _, rest @ ..] if addr.len() >= 28 => match &rest[..16] {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4 @ ..] => v4,
            v6 => v6,
        },
        _ => addr.get(4..8).unwrap_or(&[0; 4]),
    }
}

/// A segment without data, with FIN and ACK.
fn segment(tcp: &mut [u8], end: &End, from: &[u8], to: &[u8]) {
    const FIN_ACK: u8 = 0x11;
    const WINDOW: u16 = 1024;
    tcp[0..2].copy_from_slice(&end.from[2..4]);
    tcp[2..4].copy_from_slice(&end.to[2..4]);
    tcp[4..8].copy_from_slice(&end.sequence.to_be_bytes());
    tcp[8..12].copy_from_slice(&end.acknowledged.to_be_bytes());
    (tcp[12], tcp[13]) = ((TCP_HEADER as u8 / 4) << 4, FIN_ACK);
    tcp[14..16].copy_from_slice(&WINDOW.to_be_bytes());
    let mut sum = u32::from(IPPROTO_TCP) + TCP_HEADER as u32;
    for pair in from.chunks_exact(2).chain(to.chunks_exact(2)).chain(tcp.chunks_exact(2)) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    tcp[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
