//! Which ranges of the parent's file come along, and where to.
//!
//! Sharing a range costs about as much as copying 100 KiB, and leaves the new file in one more piece, which whoever
//! takes it for a parent has to share for itself. So ranges are joined across what has changed between them:
//! that comes along without anything leading to it. When it would be too much, nothing is shared but all
//! is copied, and the new file is whole again.

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
}

impl Regions {
    /// For these ranges (offset, length) of the parent's file, from `start` in the new one on; both are page-aligned,
    /// or become so.
    pub fn new(mut ranges: Vec<(u64, u64)>, start: u64, may_share: bool, page: u64) -> Self {
        for (from, len) in &mut ranges {
            let end = (*from + *len).next_multiple_of(page);
            *from -= *from % page;
            *len = end - *from;
        }
        ranges.sort_unstable();
        let exact = join(&ranges, 0);
        let taken: u64 = exact.iter().map(|(_, len)| len).sum();
        let joined = join(&exact, JOIN);
        let waste = joined.iter().map(|(_, len)| len).sum::<u64>() - taken;
        let (parts, shared) = match may_share {
            true if waste <= taken / MOST_WASTE => (joined, true),
            _ => {
                let shared = may_share && exact.len() as u64 * WORTH_SHARING <= taken;
                (exact, shared)
            }
        };
        let mut end = start;
        let mut place = |(from, len): (u64, u64)| {
            let to = end;
            end += len;
            Region { from, to, len }
        };
        let all = parts.into_iter().map(&mut place).collect();
        Self { all, shared, taken, end }
    }

    /// Where this byte of the parent's file is in the new one.
    pub fn place(&self, from: u64) -> Option<u64> {
        let next = self.all.partition_point(|r| r.from + r.len <= from);
        let region = self.all.get(next).filter(|r| r.from <= from)?;
        Some(region.to + (from - region.from))
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

    const PAGE: u64 = 4096;

    #[test]
    fn small_gaps_come_along() {
        let ranges = vec![(100 * PAGE, 10 * PAGE), (0, 50 * PAGE), (51 * PAGE, 49 * PAGE), (52 * PAGE, PAGE)];
        let regions = Regions::new(ranges, 8 * PAGE, true, PAGE);
        assert_eq!(regions.all, [Region { from: 0, to: 8 * PAGE, len: 110 * PAGE }]);
        assert_eq!((regions.taken, regions.end, regions.shared), (109 * PAGE, 118 * PAGE, true));
        assert_eq!(regions.place(51 * PAGE + 5), Some(59 * PAGE + 5));
        assert_eq!(regions.place(110 * PAGE), None);
    }

    #[test]
    fn large_gaps_do_not() {
        let ranges = vec![(0, 500 * PAGE), (600 * PAGE, 500 * PAGE)];
        let regions = Regions::new(ranges, 0, true, PAGE);
        let second = Region { from: 600 * PAGE, to: 500 * PAGE, len: 500 * PAGE };
        assert_eq!(regions.all, [Region { from: 0, to: 0, len: 500 * PAGE }, second]);
        assert_eq!(regions.place(550 * PAGE), None);
        assert_eq!(regions.place(600 * PAGE), Some(500 * PAGE));
    }

    #[test]
    fn too_many_gaps_are_left_behind_by_copying() {
        let ranges: Vec<(u64, u64)> = (0..100).map(|i| (i * 5 * PAGE, 4 * PAGE)).collect();
        let regions = Regions::new(ranges, 0, true, PAGE);
        assert_eq!((regions.all.len(), regions.shared), (100, false));
        assert_eq!((regions.taken, regions.end), (400 * PAGE, 400 * PAGE));
    }

    #[test]
    fn nothing_is_joined_where_nothing_can_be_shared() {
        let ranges = vec![(0, PAGE), (2 * PAGE, PAGE), (3 * PAGE, PAGE)];
        let regions = Regions::new(ranges, PAGE, false, PAGE);
        assert_eq!((regions.all.len(), regions.shared, regions.end), (2, false, 4 * PAGE));
    }

    #[test]
    fn ranges_become_whole_pages() {
        let ranges = vec![(5000, 100), (8000, 400)];
        let regions = Regions::new(ranges, 0, false, PAGE);
        assert_eq!(regions.all, [Region { from: PAGE, to: 0, len: 2 * PAGE }]);
        assert_eq!(regions.place(8000), Some(8000 - PAGE));
    }
}
