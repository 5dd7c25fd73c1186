//! Bytes of a task's memory: raw, or the text in it.

use crate::space::{Piece, Space, What, in_chunks};
use anyhow::{Context, Result, bail, ensure};
use std::io::Write;

/// `ADDR..LEN` (LEN bytes from ADDR on) or `START-END`, as in /proc/PID/maps. Numbers are hexadecimal, with
/// or without 0x; LEN may be decimal with a suffix K, M, G.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub start: u64,
    pub end: u64,
}

impl std::str::FromStr for Addresses {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let hex = |s: &str| {
            u64::from_str_radix(s.trim_start_matches("0x"), 16)
                .with_context(|| format!("{s:?} is no address"))
        };
        if let Some((start, len)) = text.split_once("..") {
            let start = hex(start)?;
            let end = start.checked_add(length(len)?).context("it ends behind the address space")?;
            return Ok(Self { start, end });
        }
        let (start, end) = text.split_once('-').context("expected ADDR..LEN or START-END")?;
        let (start, end) = (hex(start)?, hex(end)?);
        ensure!(start < end, "it ends before it starts");
        Ok(Self { start, end })
    }
}

/// Bytes: decimal, with a suffix K, M or G, or hexadecimal with 0x.
fn length(text: &str) -> Result<u64> {
    if let Some(hex) = text.strip_prefix("0x") {
        return Ok(u64::from_str_radix(hex, 16)?);
    }
    let (digits, factor) = match text.chars().last() {
        Some('K') => (&text[..text.len() - 1], 1 << 10),
        Some('M') => (&text[..text.len() - 1], 1 << 20),
        Some('G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().with_context(|| format!("{text:?} is no length"))?;
    number.checked_mul(factor).context("too long")
}

/// Writes the bytes of a range, all of which must be mapped.
pub fn extract(space: &mut Space<'_>, range: Addresses, out: &mut impl Write) -> Result<()> {
    let mut at = range.start;
    while at < range.end {
        let Some(vma) = space.vma(at) else { bail!("nothing is mapped at {at:#x} (--vmas lists what is)") };
        for piece in space.pieces(vma)? {
            if piece.end <= at || piece.start >= range.end {
                continue;
            }
            let piece = if piece.start < at { piece.from(at) } else { piece };
            let (piece, _) = piece.split(range.end - piece.start);
            in_chunks(piece, |p| Ok(out.write_all(&space.read(&p)?)?))?;
        }
        at = vma.end;
    }
    Ok(())
}

/// Writes each run of at least `least` printable ASCII characters in what is stored, with its address.
pub fn strings(space: &mut Space<'_>, least: usize, out: &mut impl Write) -> Result<()> {
    let mut found = Run { start: 0, text: Vec::new(), least };
    for vma in space.vmas {
        for piece in space.pieces(vma)? {
            if matches!(piece.what, What::Stored { .. }) {
                in_chunks(piece, |p: Piece<'_>| {
                    let bytes = space.read(&p)?;
                    found.feed(p.start, &bytes, out)
                })?;
            } else {
                found.end(out)?;
            }
        }
        found.end(out)?;
    }
    Ok(())
}

struct Run {
    start: u64,
    text: Vec<u8>,
    least: usize,
}

impl Run {
    fn feed(&mut self, addr: u64, bytes: &[u8], out: &mut impl Write) -> Result<()> {
        if self.start + self.text.len() as u64 != addr {
            self.end(out)?;
        }
        for (at, byte) in (addr..).zip(bytes) {
            if byte.is_ascii_graphic() || *byte == b' ' {
                if self.text.is_empty() {
                    self.start = at;
                }
                self.text.push(*byte);
            } else {
                self.end(out)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, out: &mut impl Write) -> Result<()> {
        if self.text.len() >= self.least {
            write!(out, "{:#x} ", self.start)?;
            out.write_all(&self.text)?;
            writeln!(out)?;
        }
        self.text.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range = |s: &str| s.parse::<Addresses>().ok().map(|a| (a.start, a.end));
        assert_eq!(range("0x1000..16"), Some((0x1000, 0x1010)));
        assert_eq!(range("1000..4K"), Some((0x1000, 0x2000)));
        assert_eq!(range("7f00-7f80"), Some((0x7f00, 0x7f80)));
        assert_eq!((range("5"), range("9-3"), range("1..x")), (None, None, None));
    }

    #[test]
    fn runs_of_text_cross_chunks() {
        let mut run = Run { start: 0, text: Vec::new(), least: 4 };
        let mut out = Vec::new();
        run.feed(0x1000, b"\0ab", &mut out).unwrap();
        run.feed(0x1003, b"cd\0no\0", &mut out).unwrap();
        run.feed(0x2000, b"word", &mut out).unwrap();
        run.end(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "0x1001 abcd\n0x2000 word\n");
    }
}
