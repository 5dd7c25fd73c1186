//! What all sockets have: options.

use super::Planner;
use crate::collect::fd::Description;
use crate::collect::fd::socket::OptionFacts;
use ckpt_format::Span;
use ckpt_format::fd::options::*;
use ckpt_format::fd::socket::{SockOpt, option_stage};
use zerocopy::IntoBytes;

/// Options as the image holds them: each followed by its value, padded to 8 bytes. `raw` sockets get
/// packets from the start: their filter comes when all else is set.
pub fn options(p: &mut Planner<'_>, d: &Description, options: &[OptionFacts], raw: bool) -> Span {
    let mut bytes = Vec::new();
    for o in options {
        let (level, name) = (o.level as u32, o.name as u32);
        if let Some(known) = TABLE.iter().find(|k| (k.level, k.name) == (level, name) && k.of == Of::Nobody) {
            let what = format!("{}: its socket option {} cannot be set again", p.name(d), known.text);
            p.refuse(d, what, "let the program unset it, or close the socket, before the dump");
        }
        let value = value(o);
        let len = value.len() as u32;
        let record = SockOpt { level, name, len, stage: stage((level, name), raw) };
        bytes.extend_from_slice(record.as_bytes());
        bytes.extend_from_slice(&value);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    p.b.blob(&bytes)
}

fn stage(option: (u32, u32), raw: bool) -> u32 {
    const ADD_MEMBERSHIP: u32 = 1;
    match option {
        (SOL_SOCKET, SO_ATTACH_FILTER | SO_LOCK_FILTER) if raw => option_stage::LAST,
        (SOL_SOCKET, SO_PEEK_OFF) | (SOL_PACKET, PACKET_FANOUT) => option_stage::LAST,
        (SOL_PACKET | SOL_NETLINK, ADD_MEMBERSHIP) => option_stage::LAST,
        _ => option_stage::FIRST,
    }
}

/// The value that setsockopt(2) must be given to make getsockopt(2) say what it said.
fn value(o: &OptionFacts) -> Vec<u8> {
    let doubled = o.level == libc::SOL_SOCKET && [libc::SO_SNDBUF, libc::SO_RCVBUF].contains(&o.name);
    match (doubled, o.value.first_chunk::<4>()) {
        // socket(7): the kernel doubles what it is given.
        (true, Some(bytes)) => (i32::from_ne_bytes(*bytes) / 2).to_ne_bytes().to_vec(),
        _ => o.value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_sizes_are_halved() {
        let o = OptionFacts {
            level: libc::SOL_SOCKET,
            name: libc::SO_RCVBUF,
            value: 8192_i32.to_ne_bytes().to_vec(),
        };
        assert_eq!(value(&o), 4096_i32.to_ne_bytes());
    }
}
