//! Which pages a process has to itself, which of these have not been written to, and which are guards.

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
    /// Those of `own` that are tracked, and to which nobody has written since.
    pub unwritten: Runs,
    /// Guards (MADV_GUARD_INSTALL).
    pub guards: Runs,
}

impl Pages {
    fn add(&mut self, start: u64, end: u64, guard: bool) {
        push(if guard { &mut self.guards } else { &mut self.own }, start, end);
    }

    /// The part inside `[start, end)`.
    #[must_use]
    pub fn within(&self, start: u64, end: u64) -> Self {
        Self {
            own: clip(&self.own, start, end),
            unwritten: clip(&self.unwritten, start, end),
            guards: clip(&self.guards, start, end),
        }
    }
}

fn push(runs: &mut Runs, start: u64, end: u64) {
    match runs.last_mut() {
        Some(last) if last.end == start => last.end = end,
        _ => runs.push(start..end),
    }
}

/// The parts of sorted runs inside `[start, end)`.
fn clip(runs: &[Range<u64>], start: u64, end: u64) -> Runs {
    let first = runs.partition_point(|r| r.end <= start);
    runs[first..].iter().take_while(|r| r.start < end).map(|r| r.start.max(start)..r.end.min(end)).collect()
}

/// What is in both.
#[must_use]
pub fn both(a: &[Range<u64>], b: &[Range<u64>]) -> Runs {
    a.iter().flat_map(|r| clip(b, r.start, r.end)).collect()
}

/// What of the sorted runs `a` is not in `b`.
#[must_use]
pub fn without(a: &[Range<u64>], b: &[Range<u64>]) -> Runs {
    let mut out = Runs::new();
    for run in a {
        let mut at = run.start;
        for hole in clip(b, run.start, run.end) {
            if hole.start > at {
                out.push(at..hole.start);
            }
            at = hole.end;
        }
        if run.end > at {
            out.push(at..run.end);
        }
    }
    out
}

/// What must be known of a VMA to look at its pages.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    pub start: u64,
    pub end: u64,
    /// Resident and swapped bytes that smaps counts.
    pub populated: u64,
    /// Private anonymous memory: no page of it is a file's.
    pub anonymous: bool,
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
        match scan_all(&file, first.start..last.end, areas, tell_guards) {
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

const POPULATED: u64 = vm::PAGE_IS_PRESENT | vm::PAGE_IS_SWAPPED;

/// To tell whether a page is a file's the kernel looks at the page itself: 17 instead of 3 ms for 1 GiB, so it is
/// not asked of large anonymous areas.
fn scan_all(file: &File, all: Range<u64>, areas: &[Area], tell_guards: bool) -> std::io::Result<Pages> {
    const LARGE: u64 = 8 << 20;
    let mut pages = Pages::default();
    let mut at = all.start;
    for area in areas.iter().filter(|a| a.anonymous && a.populated >= LARGE) {
        scan(file, at..area.start, vm::PAGE_IS_FILE, tell_guards, &mut pages)?;
        scan(file, area.start..area.end, 0, tell_guards, &mut pages)?;
        at = area.end;
    }
    scan(file, at..all.end, vm::PAGE_IS_FILE, tell_guards, &mut pages)?;
    Ok(pages)
}

fn scan(
    file: &File,
    range: Range<u64>,
    none_of: u64,
    tell_guards: bool,
    pages: &mut Pages,
) -> std::io::Result<()> {
    let guards = if tell_guards { vm::PAGE_IS_GUARD } else { 0 };
    let wanted = Wanted {
        none_of: none_of | vm::PAGE_IS_PFNZERO,
        any_of: POPULATED,
        tell: guards | POPULATED | vm::PAGE_IS_WPALLOWED | vm::PAGE_IS_WRITTEN,
        ..Wanted::default()
    };
    for_regions(file, range, wanted, |r| {
        let guard = r.categories & vm::PAGE_IS_GUARD != 0;
        pages.add(r.start, r.end, guard);
        let tracked = r.categories & (vm::PAGE_IS_WPALLOWED | vm::PAGE_IS_WRITTEN) == vm::PAGE_IS_WPALLOWED;
        if tracked && !guard {
            push(&mut pages.unwritten, r.start, r.end);
        }
    })
}

fn for_regions(
    file: &File,
    range: Range<u64>,
    wanted: Wanted,
    mut each: impl FnMut(&PageRegion),
) -> std::io::Result<()> {
    let mut regions = vec![PageRegion::default(); BATCH];
    let mut at = range.start;
    while at < range.end {
        let (found, walked) = vm::pagemap_scan(file, at, range.end, wanted, &mut regions)?;
        regions[..found].iter().for_each(&mut each);
        if walked <= at {
            break;
        }
        at = walked;
    }
    Ok(())
}

/// Pages of these VMAs, whose writes are tracked, that were written to since they were protected. With `protect`
/// they are protected in the same moment.
///
/// # Errors
/// As PAGEMAP_SCAN; when some of it is not tracked.
pub fn written(file: &File, vmas: &[Range<u64>], protect: bool) -> std::io::Result<Runs> {
    let mut runs = Runs::new();
    for vma in vmas {
        for tell_guards in [true, false] {
            let wanted = Wanted {
                all_of: vm::PAGE_IS_WRITTEN | vm::PAGE_IS_WPALLOWED,
                none_of: if tell_guards { vm::PAGE_IS_GUARD } else { 0 } | vm::PAGE_IS_PFNZERO,
                any_of: POPULATED,
                tell: vm::PAGE_IS_WRITTEN,
                protect,
            };
            match for_regions(file, vma.clone(), wanted, |r| push(&mut runs, r.start, r.end)) {
                Err(e) if tell_guards && e.raw_os_error() == Some(libc::EINVAL) => {}
                other => {
                    other?;
                    break;
                }
            }
        }
    }
    Ok(runs)
}

/// Whether some page of memory whose writes are tracked is protected.
///
/// # Errors
/// As PAGEMAP_SCAN.
pub fn is_protected(file: &File, vma: &Range<u64>) -> std::io::Result<bool> {
    let wanted = Wanted {
        all_of: vm::PAGE_IS_WPALLOWED,
        none_of: vm::PAGE_IS_WRITTEN,
        any_of: POPULATED,
        tell: vm::PAGE_IS_WPALLOWED,
        ..Wanted::default()
    };
    let mut found = false;
    for_regions(file, vma.clone(), wanted, |_| found = true)?;
    Ok(found)
}

/// Whether writes to this page are tracked (by whomever).
///
/// # Errors
/// As PAGEMAP_SCAN.
pub fn is_tracked(file: &File, page: u64) -> std::io::Result<bool> {
    let wanted = Wanted { all_of: vm::PAGE_IS_WPALLOWED, tell: vm::PAGE_IS_WPALLOWED, ..Wanted::default() };
    let mut found = false;
    for_regions(file, page..page + 4096, wanted, |_| found = true)?;
    Ok(found)
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
        let pages = Pages {
            own: vec![0x1000..0x3000, 0x5000..0x9000],
            guards: vec![0x4000..0x5000],
            ..Pages::default()
        };
        let inside = pages.within(0x2000, 0x6000);
        assert_eq!(inside.own, [0x2000..0x3000, 0x5000..0x6000]);
        assert_eq!(inside.guards, [0x4000..0x5000]);
        assert!(pages.within(0x9000, 0x10000).own.is_empty());
    }

    #[test]
    fn runs_are_sets() {
        let a = [0..4, 6..10, 20..30];
        let b = [1..2, 3..7, 9..12, 25..40];
        assert_eq!(both(&a, &b), [1..2, 3..4, 6..7, 9..10, 25..30]);
        assert_eq!(without(&a, &b), [0..1, 2..3, 7..9, 20..25]);
        assert_eq!(without(&a, &[]), a);
        assert!(without(&a, &[0..100]).is_empty());
    }

    #[test]
    fn large_anonymous_areas_are_looked_at_apart() {
        let mut memory = vec![0u8; 24 << 20];
        memory.iter_mut().step_by(3 * 4096).for_each(|b| *b = 1);
        let base = (memory.as_ptr() as u64).next_multiple_of(4096);
        let file = File::open("/proc/self/pagemap").unwrap();
        let pages = |anonymous| {
            let half = 12 << 20;
            let area = |start| Area { start, end: start + half - 4096, populated: half, anonymous };
            let areas = [area(base), area(base + half - 4096)];
            scan_all(&file, base..areas[1].end, &areas, true)
                .or_else(|_| scan_all(&file, base..areas[1].end, &areas, false))
                .unwrap()
        };
        assert_eq!(pages(true), pages(false));
        std::hint::black_box(&memory);
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
        let area = Area { start: base, end: base + (8 << 20), populated: 8 << 20, anonymous: false };
        let file = File::open("/proc/self/pagemap").unwrap();
        let slow = read(&file, &[area]).unwrap();
        let quick = collect(std::process::id() as i32, &[area]).unwrap();
        assert_eq!(quick.within(area.start, area.end).own, slow.own);
        let touched = |p: u64| slow.own.iter().any(|r| r.contains(&(base + p * 4096)));
        assert!(touched(10) && touched(12) && touched(700));
        std::hint::black_box(&memory);
    }
}
