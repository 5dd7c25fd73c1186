//! Bytes that are in the image already: pages that processes share copy-on-write, and those of a file
//! that several embed. Extents of both then lead to the same place.

use std::collections::{BTreeMap, HashMap};

/// What a stored byte was: memory of a process, or part of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    Memory(i32),
    File(u32),
}

/// A run of bytes of one owner that is in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Address, or offset in the file.
    pub start: u64,
    pub len: u64,
    /// Where it is in the image.
    pub file_offset: u64,
}

/// Everything of processes and files that has been stored so far.
#[derive(Debug, Default)]
pub struct Stored(HashMap<Owner, BTreeMap<u64, (u64, u64)>>);

impl Stored {
    /// Runs of an owner come in ascending order, mostly: neighbours become one.
    pub fn add(&mut self, owner: Owner, run: Run) {
        let runs = self.0.entry(owner).or_default();
        if let Some((start, (len, offset))) = runs.range_mut(..run.start).next_back()
            && start + *len == run.start
            && *offset + *len == run.file_offset
        {
            *len += run.len;
            return;
        }
        runs.insert(run.start, (run.len, run.file_offset));
    }

    /// What of `[start, start + len)` of an owner is in the image, ascending.
    pub fn within(&self, owner: Owner, start: u64, len: u64) -> Vec<Run> {
        let Some(runs) = self.0.get(&owner) else { return Vec::new() };
        let end = start + len;
        let first = runs.range(..=start).next_back().map_or(start, |(at, _)| *at);
        let overlapping = runs.range(first..end).filter(|(at, (len, _))| *at + len > start);
        overlapping
            .map(|(&at, &(len, offset))| {
                let (from, to) = (at.max(start), (at + len).min(end));
                Run { start: from, len: to - from, file_offset: offset + (from - at) }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_and_parts_are_found() {
        let mut stored = Stored::default();
        let owner = Owner::Memory(7);
        let run = |start, len, file_offset| Run { start, len, file_offset };
        stored.add(owner, run(0x1000, 0x1000, 0x9000));
        stored.add(owner, run(0x2000, 0x1000, 0xa000));
        stored.add(owner, run(0x5000, 0x2000, 0x3000));
        assert_eq!(stored.within(owner, 0x1000, 0x2000), [run(0x1000, 0x2000, 0x9000)]);
        assert_eq!(
            stored.within(owner, 0x1800, 0x4000),
            [run(0x1800, 0x1800, 0x9800), run(0x5000, 0x800, 0x3000)]
        );
        assert_eq!(stored.within(owner, 0x3000, 0x2000), []);
        assert_eq!(stored.within(Owner::File(7), 0x1000, 0x2000), []);
    }
}
