//! Sockets in words.

use ckpt_format::fd::socket::{InetSocket, socket_state};
use ckpt_format::fd::tcp::TcpRepair;
use ckpt_format::{Image, Object};
use std::net::{IpAddr, SocketAddr};

const IPPROTO_UDP: u32 = 17;
const IPPROTO_UDPLITE: u32 = 136;
const IPPROTO_MPTCP: u32 = 262;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;

/// TCP, UDP and their kin.
pub fn inet(image: &Image, object: &Object, s: &InetSocket) -> String {
    let protocol = match (s.kind, s.protocol) {
        (SOCK_STREAM, IPPROTO_MPTCP) => "MPTCP".to_owned(),
        (SOCK_STREAM, _) => "TCP".to_owned(),
        (SOCK_DGRAM, IPPROTO_UDP) => "UDP".to_owned(),
        (SOCK_DGRAM, IPPROTO_UDPLITE) => "UDP-Lite".to_owned(),
        (kind, protocol) => format!("family {} type {kind} protocol {protocol}", s.family),
    };
    let local = address(&s.local, s.local_len);
    let remote = address(&s.remote, s.remote_len);
    let state = match s.state {
        socket_state::UNCONNECTED => format!("at {local}"),
        socket_state::LISTENING => format!("listening on {local}, backlog {}", s.backlog),
        socket_state::CONNECTED => format!("{local} to {remote}"),
        socket_state::WAITING => format!("{local} to {remote}, not accepted yet"),
        socket_state::BROKEN => format!("to {remote}, comes back as reset"),
        socket_state::CLOSED => "over".to_owned(),
        socket_state::REPAIRED => {
            let unacked = image.payload::<TcpRepair>(s.repair).map_or(0, |r| r.unacked.len);
            format!("{local} to {remote}, outside, goes on (TCP_REPAIR); {unacked} bytes to be acknowledged")
        }
        state => format!("state {state}"),
    };
    let waits = if object.queue.len > 0 { ", with data to be read" } else { "" };
    format!("{protocol} {state}{waits}")
}

/// A `struct sockaddr_in` or `sockaddr_in6`.
fn address(raw: &[u8; 32], len: u32) -> String {
    let port = u16::from_be_bytes([raw[2], raw[3]]);
    let ip = match (len, raw[4..].first_chunk::<4>(), raw[8..].first_chunk::<16>()) {
        (16, Some(v4), _) => IpAddr::from(*v4),
        (28, _, Some(v6)) => IpAddr::from(*v6),
        _ => return "no address".to_owned(),
    };
    SocketAddr::new(ip, port).to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn addresses_in_words() {
        let mut raw = [0; 32];
        raw[..8].copy_from_slice(&[2, 0, 0x1f, 0x90, 127, 0, 0, 1]);
        assert_eq!(super::address(&raw, 16), "127.0.0.1:8080");
        assert_eq!(super::address(&raw, 0), "no address");
    }
}
