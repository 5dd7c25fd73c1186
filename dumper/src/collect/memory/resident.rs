//! Which pages of shared memory have contents, where we have no handle to ask for its holes: reading
//! them all would make the kernel populate the holes of the program that we only want to look at.

use super::pagemap::Runs;
use super::smaps::Entry;
use crate::ptrace::{Call, Frozen};
use anyhow::Result;

const PAGE: u64 = 4096;

/// The pages of a mapping that are in memory, whoever put them there; `None` when that is not all
/// that has contents: some are in swap, which mincore(2) does not see, or they are huge pages, of
/// which it sees only those that this process has touched.
///
/// # Errors
/// When the target died.
pub fn collect(target: &mut Frozen, entry: &Entry) -> Result<Option<Runs>> {
    if entry.swap > 0 || entry.has(b"ht") {
        return Ok(None);
    }
    let scratch = target.scratch()?;
    let mut runs = Runs::new();
    let mut at = entry.start;
    while at < entry.end {
        let pages = ((entry.end - at) / PAGE).min(scratch.len);
        let call = Call::new(libc::SYS_mincore, &[at, pages * PAGE, scratch.addr.0]);
        if target.batch(&[call])?.first() != Some(&0) {
            return Ok(None);
        }
        let mut states = vec![0; pages as usize];
        target.read(scratch.addr, &mut states)?;
        add(&mut runs, at, &states);
        at += pages * PAGE;
    }
    Ok(Some(runs))
}

/// Bit 0 of each state says whether the page is there.
fn add(runs: &mut Runs, start: u64, states: &[u8]) {
    let mut at = start;
    for group in states.chunk_by(|a, b| a & 1 == b & 1) {
        let end = at + group.len() as u64 * PAGE;
        if group[0] & 1 != 0 {
            match runs.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => runs.push(at..end),
            }
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_become_runs_across_calls() {
        let mut runs = Runs::new();
        add(&mut runs, 0x1000, &[0, 1, 1, 0, 0x81]);
        add(&mut runs, 0x6000, &[1, 0, 1]);
        assert_eq!(runs, [0x2000..0x4000, 0x5000..0x7000, 0x8000..0x9000]);
    }
}
