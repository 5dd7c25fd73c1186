//! Packet sockets.

use super::diag::{self, PacketDiag};
use super::socket::{self, OptionFacts};
use super::{Context, Detail, Probe};
use crate::sys;
use crate::sys::socket::{local_name, option_int};
use anyhow::{Context as _, Result};
use ckpt_format::fd::options::SOL_PACKET;
use std::os::fd::AsFd;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketFacts {
    /// SOCK_RAW, SOCK_DGRAM.
    pub kind: i32,
    /// `struct sockaddr_ll`.
    pub local: Vec<u8>,
    pub options: Vec<OptionFacts>,
    /// Something of it that cannot be had again, in words.
    pub problem: Option<&'static str>,
    /// Packets or an error wait in it.
    pub waits: bool,
}

const PACKET_ADD_MEMBERSHIP: i32 = 1;
const PACKET_FANOUT: i32 = 18;

pub fn collect(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    let ours = cx.duplicate(probe)?;
    let fd = ours.as_fd();
    let kind = option_int(fd, libc::SOL_SOCKET, libc::SO_TYPE)?;
    if ![libc::SOCK_RAW, libc::SOCK_DGRAM].contains(&kind) {
        return socket::unknown(cx, probe);
    }
    let mut options = socket::options(&mut cx.defaults, fd, (libc::AF_PACKET, kind, 0))?;
    let problem = match diag::packet_socket(probe.pid, probe.stat.ino) {
        None => Some("this kernel does not tell its memberships and rings (CONFIG_PACKET_DIAG)"),
        Some(PacketDiag { has_ring: true, .. }) => Some("it has a ring (PACKET_RX_RING, PACKET_TX_RING)"),
        Some(PacketDiag { memberships, .. }) => {
            options.extend(memberships.into_iter().map(|value| OptionFacts {
                level: SOL_PACKET as i32,
                name: PACKET_ADD_MEMBERSHIP,
                value,
            }));
            let fanout = option_int(fd, SOL_PACKET as i32, PACKET_FANOUT).unwrap_or(0);
            // include/uapi/linux/if_packet.h: PACKET_FANOUT_CBPF 6, PACKET_FANOUT_EBPF 7.
            let program = [6, 7].contains(&(fanout >> 16 & 0xff));
            program.then_some("the BPF program of its fanout group cannot be read")
        }
    };
    let waits = sys::fd::poll_now(fd, libc::POLLIN)? & (libc::POLLIN | libc::POLLERR) != 0;
    let local = local_name(fd).context("getsockname")?;
    Ok(Detail::Packet(PacketFacts { kind, local, options, problem, waits }))
}
