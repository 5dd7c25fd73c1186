//! Which ranges of the parent's file come along, and where to.
//!
//! Sharing a range costs about as much as copying 100 KiB, and leaves the new file in one more piece, which whoever
//! takes it for a parent has to share for itself. So ranges are joined across what has changed between them:
//! that comes along without anything leading to it. When it would be too much, nothing is shared but all
//! is copied, in order of its addresses, and the new file is whole again.

use crate::alias::{Owner, Run, Stored};
use ckpt_format::PAGE_SIZE;

/// Longest gap that comes along.
const JOIN: u64 = 256 << 10;
/// Part of what is taken that gaps may make up.
const MOST_WASTE: u64 = 8;
/// What must be joined in one range, on average, to be worth sharing.
const WORTH_SHARING: u64 = 128 << 10;

/// A range of the parent's file and its place in the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub from: u64,
    pub to: u64,
    pub len: u64,
}

/// All of them: they are what the contents of the new file begin with.
#[derive(Debug, Default)]
pub struct Regions {
    pub all: Vec<Region>,
    /// They are to be shared, not copied.
    pub shared: bool,
    /// How much is in them that something leads to.
    pub taken: u64,
    /// Where they end in the new file.
    pub end: u64,
    /// What is in them, by offset in the parent's file; to be copied only.
    placed: Stored,
}

/// What bytes of the parent's file are to [`Regions::placed`].
const FILE: Owner = Owner::File(0);

impl Regions {
    /// For these ranges (offset, length) of the parent's file, which become whole pages, from `start` in the new one on.
    /// `None` if sharing them is not worth it.
    pub fn to_share(mut ranges: Vec<(u64, u64)>, start: u64) -> Option<Self> {
        for (from, len) in &mut ranges {
            let end = (*from + *len).next_multiple_of(PAGE_SIZE);
            *from -= *from % PAGE_SIZE;
            *len = end - *from;
        }
        ranges.sort_unstable();
        let exact = join(&ranges, 0);
        let taken: u64 = exact.iter().map(|(_, len)| len).sum();
        let joined = join(&exact, JOIN);
        let waste = joined.iter().map(|(_, len)| len).sum::<u64>() - taken;
        let parts = match waste <= taken / MOST_WASTE {
            true => joined,
            false if exact.len() as u64 * WORTH_SHARING <= taken => exact,
            false => return None,
        };
        let mut out = Self { shared: true, taken, end: start, ..Self::default() };
        for (from, len) in parts {
            out.all.push(Region { from, to: out.end, len });
            out.end += len;
        }
        Some(out)
    }

    /// To be filled by [`Self::copy`].
    pub fn to_copy(start: u64) -> Self {
        Self { end: start, ..Self::default() }
    }

    /// Where this byte of the parent's file is in the new one, of those that are shared.
    pub fn place(&self, from: u64) -> Option<u64> {
        let next = self.all.partition_point(|r| r.from + r.len <= from);
        let region = self.all.get(next).filter(|r| r.from <= from)?;
        Some(region.to + (from - region.from))
    }

    /// Gives a range its place behind those before it, unless it has one already.
    pub fn copy(&mut self, from: u64, len: u64, align: u64) -> u64 {
        if let [run] = self.placed.within(FILE, from, len)[..]
            && run.len == len
        {
            return run.file_offset;
        }
        let to = self.end.next_multiple_of(align);
        self.placed.add(FILE, Run { start: from, len, file_offset: to });
        append(&mut self.all, Region { from, to, len });
        self.taken += len;
        self.end = to + len;
        to
    }
}

/// Adds a region, to the last one if it follows that in both files.
pub fn append(all: &mut Vec<Region>, r: Region) {
    match all.last_mut() {
        Some(last) if (last.from + last.len, last.to + last.len) == (r.from, r.to) => last.len += r.len,
        _ => all.push(r),
    }
}

/// Ascending ranges, those with at most `gap` between them as one.
fn join(ranges: &[(u64, u64)], gap: u64) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for &(from, len) in ranges {
        match out.last_mut() {
            Some((first, all)) if from <= *first + *all + gap => *all = (*all).max(from + len - *first),
            _ => out.push((from, len)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = PAGE_SIZE;

    #[test]
    fn small_gaps_come_along() {
        let ranges = vec![(100 * PAGE, 10 * PAGE), (0, 50 * PAGE), (51 * PAGE, 49 * PAGE), (52 * PAGE, PAGE)];
        let regions = Regions::to_share(ranges, 8 * PAGE).unwrap();
        assert_eq!(regions.all, [Region { from: 0, to: 8 * PAGE, len: 110 * PAGE }]);
        assert_eq!((regions.taken, regions.end, regions.shared), (109 * PAGE, 118 * PAGE, true));
        assert_eq!(regions.place(51 * PAGE + 5), Some(59 * PAGE + 5));
        assert_eq!(regions.place(110 * PAGE), None);
    }

    #[test]
    fn large_gaps_do_not() {
        let regions = Regions::to_share(vec![(0, 500 * PAGE), (600 * PAGE, 500 * PAGE)], 0).unwrap();
        let second = Region { from: 600 * PAGE, to: 500 * PAGE, len: 500 * PAGE };
        assert_eq!(regions.all, [Region { from: 0, to: 0, len: 500 * PAGE }, second]);
        assert_eq!(regions.place(550 * PAGE), None);
        assert_eq!(regions.place(600 * PAGE), Some(500 * PAGE));
    }

    #[test]
    fn too_many_gaps_are_not_worth_it() {
        assert!(Regions::to_share((0..100).map(|i| (i * 5 * PAGE, 4 * PAGE)).collect(), 0).is_none());
    }

    #[test]
    fn ranges_become_whole_pages() {
        let regions = Regions::to_share(vec![(5000, 100), (8000, 400)], 0).unwrap();
        assert_eq!(regions.all, [Region { from: PAGE, to: 0, len: 2 * PAGE }]);
        assert_eq!(regions.place(8000), Some(8000 - PAGE));
    }

    #[test]
    fn what_is_copied_lies_in_the_order_in_which_it_was_asked_for() {
        let mut regions = Regions::to_copy(PAGE);
        assert_eq!(regions.copy(8 * PAGE, 2 * PAGE, PAGE), PAGE);
        assert_eq!(regions.copy(10 * PAGE, PAGE, PAGE), 3 * PAGE);
        assert_eq!(regions.copy(0, PAGE, PAGE), 4 * PAGE);
        assert_eq!(regions.copy(9 * PAGE, 2 * PAGE, PAGE), 2 * PAGE, "it is there already");
        assert_eq!(regions.all.len(), 2);
        assert_eq!((regions.taken, regions.end), (4 * PAGE, 5 * PAGE));
    }
}
