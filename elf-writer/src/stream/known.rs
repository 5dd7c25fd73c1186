//! What is in the image already.

use super::{Reader, Wanted};
use crate::WriteError;
use crate::alias::{Owner, Run};
use crate::dedup::Place;
use crate::plan::{ContentSource, Source};
use ckpt_format::{PAGE_SIZE, extent_flags};

impl Reader<'_> {
    /// Pages of `bytes` that are in the image already; `start` counts from their beginning. A page
    /// of memory is known if the ancestor's page at the same address was stored and is equal, byte by
    /// byte; one of a file, if it was stored before.
    pub(super) fn known(
        &mut self,
        source: &mut dyn ContentSource,
        w: &Wanted,
        bytes: &[u8],
    ) -> Result<Vec<Run>, WriteError> {
        let Some((owner, first)) = self.plan.owner(w.extent) else { return Ok(Vec::new()) };
        let (first, len) = (first + w.skip, bytes.len() as u64);
        let whole_pages = |r: &Run| r.start.is_multiple_of(PAGE_SIZE) && r.len.is_multiple_of(PAGE_SIZE);
        let relative = |r: Run| Run { start: r.start - first, ..r };
        let pid = match owner {
            Owner::File(_) => {
                let found = self.stored.within(owner, first, len);
                return Ok(found.into_iter().filter(whole_pages).map(relative).collect());
            }
            Owner::Memory(pid) => pid,
        };
        let Some(&ancestor) = self.plan.ancestors.get(&pid) else { return Ok(Vec::new()) };
        let mut equal: Vec<Run> = Vec::new();
        for run in self.stored.within(Owner::Memory(ancestor), first, len).iter().filter(|r| whole_pages(r)) {
            self.other.resize(run.len as usize, 0);
            let theirs = Source::Memory { pid: ancestor, addr: run.start };
            source.read(&theirs, 0, &mut self.other).map_err(|source| WriteError::Content {
                what: format!("near address {:#x} of PID {ancestor}", run.start),
                source,
            })?;
            let own = &bytes[(run.start - first) as usize..];
            let relative = Run { start: run.start - first, ..*run };
            equal_pages(own, &self.other, relative, &mut equal);
        }
        Ok(equal)
    }

    /// Adds to `known` what else is in the image already, by its contents.
    pub(super) fn duplicates(&mut self, source: &mut dyn ContentSource, bytes: &[u8], known: &mut Vec<Run>) {
        let Some(dedup) = &self.dedup else { return };
        let old = known.len();
        for (pages, position) in dedup.candidates(&self.hashes) {
            let range = pages.start * PAGE_SIZE as usize..pages.end * PAGE_SIZE as usize;
            let (start, len) = (range.start as u64, range.len() as u64);
            let overlaps = |r: &Run| r.start < start + len && start < r.start + r.len;
            if known[..old].iter().any(overlaps) {
                continue;
            }
            let places = dedup.places(position, len);
            if places.is_some_and(|p| self.are(source, &p, &bytes[range])) {
                self.duplicates += len;
                known.push(Run { start, len, file_offset: position });
            }
        }
        known.sort_unstable_by_key(|r| r.start);
    }

    /// Whether these bytes are what was stored there.
    fn are(&self, source: &mut dyn ContentSource, places: &[Place], bytes: &[u8]) -> bool {
        let mut rest = bytes;
        let mut other = Vec::new();
        places.iter().all(|p| {
            let (now, later) = rest.split_at(p.len as usize);
            rest = later;
            other.resize(now.len(), 0);
            // What cannot be read any more is not the same.
            source.read(&self.plan.sources[p.extent], p.skip, &mut other).is_ok() && other == now
        })
    }

    /// An extent is in one block.
    pub(super) fn split(&self, runs: Vec<Run>) -> Vec<Run> {
        if !self.plan.compress {
            return runs;
        }
        let mut out = Vec::with_capacity(runs.len());
        for mut run in runs {
            let first = self.blocks.partition_point(|b| *b <= run.file_offset);
            for border in &self.blocks[first..] {
                let len = border - run.file_offset;
                if len >= run.len {
                    break;
                }
                out.push(Run { len, ..run });
                run = Run { start: run.start + len, len: run.len - len, file_offset: *border };
            }
            out.push(run);
        }
        out
    }
}

impl Reader<'_> {
    /// Adds to `known` what the parent has at the same addresses: it gets its place in this image now, and its
    /// bytes at the end.
    pub(super) fn inherited(
        &mut self,
        w: &Wanted,
        bytes: &[u8],
        known: &mut Vec<Run>,
    ) -> Result<(), WriteError> {
        let Some(parent) = &mut self.parent else { return Ok(()) };
        let planned = self.plan.tables.extents[w.extent];
        let addr = planned.addr + w.skip;
        let equal = parent.equal(w.extent, addr, bytes).map_err(|source| WriteError::Content {
            what: "from the image named by --parent".into(),
            source,
        })?;
        let old = known.len();
        for run in equal {
            let overlaps = |r: &Run| r.start < run.start + run.len && run.start < r.start + r.len;
            if known[..old].iter().any(overlaps) {
                continue;
            }
            parent.take(run.file_offset, self.offset, run.len);
            parent.bytes[usize::from(planned.flags & extent_flags::EMBEDDED_FILE != 0)] += run.len;
            known.push(Run { file_offset: self.offset, ..run });
            self.offset += run.len;
        }
        known.sort_unstable_by_key(|r| r.start);
        Ok(())
    }
}

/// Adds those pages of `run` that are equal in `own` and `other`, which both begin where it does.
pub(super) fn equal_pages(own: &[u8], other: &[u8], run: Run, equal: &mut Vec<Run>) {
    let page = PAGE_SIZE as usize;
    for at in (0..run.len as usize).step_by(page) {
        if own[at..at + page] != other[at..at + page] {
            continue;
        }
        let (start, file_offset) = (run.start + at as u64, run.file_offset + at as u64);
        match equal.last_mut() {
            Some(last) if last.start + last.len == start && last.file_offset + last.len == file_offset => {
                last.len += PAGE_SIZE;
            }
            _ => equal.push(Run { start, len: PAGE_SIZE, file_offset }),
        }
    }
}
