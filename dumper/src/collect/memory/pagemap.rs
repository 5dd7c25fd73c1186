//! Which pages a process has to itself, and which are guards.

use crate::sys::vm::{self, PageRegion, Wanted};
use anyhow::{Context, Result};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// `(start, end)` addresses; ascending, not adjacent unless they differ in kind.
pub type Runs = Vec<Range<u64>>;

/// Pages of an address range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// Present or swapped, and not the page of a file or of shared memory.
    pub own: Runs,
    /// Guards (MADV_GUARD_INSTALL).
    pub guards: Runs,
}

impl Pages {
    fn add(&mut self, start: u64, end: u64, guard: bool) {
        let runs = if guard { &mut self.guards } else { &mut self.own };
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
    }

    /// The part inside `[start, end)`.
    #[must_use]
    pub fn within(&self, start: u64, end: u64) -> Self {
        Self { own: clip(&self.own, start, end), guards: clip(&self.guards, start, end) }
    }
}

/// The parts of sorted runs inside `[start, end)`.
fn clip(runs: &Runs, start: u64, end: u64) -> Runs {
    let first = runs.partition_point(|r| r.end <= start);
    runs[first..].iter().take_while(|r| r.start < end).map(|r| r.start.max(start)..r.end.min(end)).collect()
}

/// What must be known of a VMA to look at its pages.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    pub start: u64,
    pub end: u64,
    /// Resident and swapped bytes that smaps counts.
    pub populated: u64,
}

/// Pages of all private VMAs (`areas`, ascending).
///
/// # Errors
/// When `/proc/PID/pagemap` cannot be read.
pub fn collect(pid: i32, areas: &[Area]) -> Result<Pages> {
    let path = format!("/proc/{pid}/pagemap");
    let file = File::open(&path).with_context(|| format!("opening {path}"))?;
    let (Some(first), Some(last)) = (areas.first(), areas.last()) else { return Ok(Pages::default()) };
    for tell_guards in [true, false] {
        match scan(&file, first.start, last.end, tell_guards) {
            Ok(pages) => return Ok(pages),
            // EINVAL: PAGE_IS_GUARD is not known.
            Err(e) if tell_guards && e.raw_os_error() == Some(libc::EINVAL) => {}
            Err(e) if e.raw_os_error() == Some(libc::ENOTTY) => break,
            Err(e) => return Err(e).with_context(|| format!("PAGEMAP_SCAN of {path}")),
        }
    }
    read(&file, areas).with_context(|| format!("reading {path}"))
}

/// Regions asked for at once.
const BATCH: usize = 16 << 10;

fn scan(file: &File, start: u64, end: u64, tell_guards: bool) -> std::io::Result<Pages> {
    let populated = vm::PAGE_IS_PRESENT | vm::PAGE_IS_SWAPPED;
    let wanted = Wanted {
        none_of: vm::PAGE_IS_FILE | vm::PAGE_IS_PFNZERO,
        any_of: populated,
        tell: if tell_guards { vm::PAGE_IS_GUARD } else { 0 } | populated,
    };
    let mut regions = vec![PageRegion::default(); BATCH];
    let mut pages = Pages::default();
    let mut at = start;
    while at < end {
        let (found, walked) = vm::pagemap_scan(file, at, end, wanted, &mut regions)?;
        for r in &regions[..found] {
            pages.add(r.start, r.end, r.categories & vm::PAGE_IS_GUARD != 0);
        }
        if walked <= at {
            break;
        }
        at = walked;
    }
    Ok(pages)
}

const PM_GUARD: u64 = 1 << 58;
const PM_FILE: u64 = 1 << 61;
const PM_SWAP: u64 = 1 << 62;
const PM_PRESENT: u64 = 1 << 63;
/// Pages looked at with one read.
const ENTRIES: usize = 64 << 10;

/// For kernels without PAGEMAP_SCAN. The zero page cannot be told from others here; it is read and
/// then found to be zero.
fn read(file: &File, areas: &[Area]) -> std::io::Result<Pages> {
    let mut pages = Pages::default();
    let mut buf = vec![0u8; ENTRIES * 8];
    for area in areas {
        let mut left = area.populated;
        let mut at = area.start;
        while at < area.end && left > 0 {
            let count = ((area.end - at) / 4096).min(ENTRIES as u64);
            let bytes = &mut buf[..count as usize * 8];
            file.read_exact_at(bytes, at / 4096 * 8)?;
            for entry in bytes.as_chunks::<8>().0 {
                let entry = u64::from_le_bytes(*entry);
                if entry & (PM_PRESENT | PM_SWAP) != 0 || entry & PM_GUARD != 0 {
                    left = left.saturating_sub(4096);
                    if entry & PM_FILE == 0 {
                        pages.add(at, at + 4096, entry & PM_GUARD != 0);
                    }
                }
                at += 4096;
            }
        }
    }
    Ok(pages)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_clipped_to_a_vma() {
        let pages = Pages { own: vec![0x1000..0x3000, 0x5000..0x9000], guards: vec![0x4000..0x5000] };
        let inside = pages.within(0x2000, 0x6000);
        assert_eq!(inside.own, [0x2000..0x3000, 0x5000..0x6000]);
        assert_eq!(inside.guards, [0x4000..0x5000]);
        assert!(pages.within(0x9000, 0x10000).own.is_empty());
    }

    #[test]
    fn both_ways_find_the_same_pages() {
        // A large zeroed allocation is a fresh mapping: only what is written is populated.
        let mut memory = vec![0u8; 16 << 20];
        let base = (memory.as_ptr() as u64).next_multiple_of(4096);
        let skip = (base - memory.as_ptr() as u64) as usize;
        for page in [10, 11, 12, 700] {
            memory[skip + page * 4096] = 1;
        }
        let area = Area { start: base, end: base + (8 << 20), populated: 8 << 20 };
        let file = File::open("/proc/self/pagemap").unwrap();
        let slow = read(&file, &[area]).unwrap();
        let quick = collect(std::process::id() as i32, &[area]).unwrap();
        assert_eq!(quick.within(area.start, area.end).own, slow.own);
        let touched = |p: u64| slow.own.iter().any(|r| r.contains(&(base + p * 4096)));
        assert!(touched(10) && touched(12) && touched(700));
        std::hint::black_box(&memory);
    }
}
