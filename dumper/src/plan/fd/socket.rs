//! What all sockets have: options.

use super::Planner;
use crate::collect::fd::socket::OptionFacts;
use ckpt_format::Span;
use ckpt_format::fd::socket::SockOpt;
use zerocopy::IntoBytes;

/// Options as the image holds them: each followed by its value, padded to 8 bytes.
pub fn options(p: &mut Planner<'_>, options: &[OptionFacts]) -> Span {
    let mut bytes = Vec::new();
    for o in options {
        let value = value(o);
        let len = value.len() as u32;
        let record = SockOpt { level: o.level as u32, name: o.name as u32, len, reserved: 0 };
        bytes.extend_from_slice(record.as_bytes());
        bytes.extend_from_slice(&value);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    p.b.blob(&bytes)
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
