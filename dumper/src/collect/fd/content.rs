//! Which bytes of a file without a name must be stored: all but its holes.

use super::{Context, Probe};
use crate::sys;
use anyhow::{Context as _, Result};
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;

/// Bytes of a file that the dumper has open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Index in [`super::FdFacts::files`].
    pub key: u32,
    /// `(offset, length)` of the runs of data.
    pub runs: Vec<(u64, u64)>,
}

/// Opens the file anew (offset and access mode of our own) and finds its runs of data.
///
/// # Errors
/// When it can be opened neither anew nor read through the target's description.
pub fn collect(cx: &mut Context<'_>, probe: &Probe) -> Result<Contents> {
    let size = probe.stat.size;
    let path = probe.fd_path();
    let (file, runs) = match OpenOptions::new().read(true).open(&path) {
        Ok(file) => {
            let runs = runs_of(&file, size).unwrap_or_else(|_| vec![(0, size)]);
            (file, runs)
        }
        // Not ours to open; the target's own description can be read at an offset without moving it.
        Err(e) if probe.info.flags as i32 & libc::O_ACCMODE == libc::O_WRONLY => {
            return Err(e).with_context(|| {
                format!("fd {}: the contents of {} are not readable", probe.fd, probe.link_text())
            });
        }
        Err(_) => (File::from(cx.duplicate(probe)?), vec![(0, size)]),
    };
    let runs = runs.into_iter().filter(|(_, len)| *len > 0).collect();
    Ok(Contents { key: cx.keep(file), runs })
}

fn runs_of(file: &File, size: u64) -> Result<Vec<(u64, u64)>> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size {
        let Some((start, end)) = sys::fd::next_data(file.as_fd(), at)? else { break };
        let end = end.min(size);
        if end <= start {
            break;
        }
        runs.push((start, end - start));
        at = end;
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    #[test]
    fn holes_are_left_out() {
        let mut file = tempfile::tempfile().unwrap();
        file.seek(SeekFrom::Start(1 << 20)).unwrap();
        file.write_all(b"x").unwrap();
        file.set_len(2 << 20).unwrap();
        let runs = super::runs_of(&file, 2 << 20).unwrap();
        assert_eq!(runs.len(), 1);
        assert!(runs[0].0 <= 1 << 20 && runs[0].0 + runs[0].1 > 1 << 20 && runs[0].1 <= 1 << 16);
    }
}
