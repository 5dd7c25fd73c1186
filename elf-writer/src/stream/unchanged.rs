//! What is known to be what the parent has: it gets its place in this image without being read.
//!
//! The checksums of the parent's extents come along. Where only a part of one is still the same, that part's own
//! checksum is computed from the parent's bytes when everything has its place: the processes may run by then.

use super::regions::Regions;
use super::{Reader, Wanted};
use crate::WriteError;
use crate::alias::Run;
use crate::plan::{DROP_ZERO, Plan, UNCHANGED};
use ckpt_format::{Extent, FormatError, Image, NONE, PAGE_SIZE, checksum, extent_flags};
use ckpt_reader::{ImageFile, Scratch};
use std::collections::HashMap;

/// Parts of an extent that are shorter than this fraction of it are read instead: the checksum of one costs a
/// read of the whole extent.
const SHORTEST: u64 = 16;
/// Blocks of which less than this fraction is taken are left behind.
const LEAST_OF_BLOCK: u64 = 2;

/// A run of pages that is taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub addr: u64,
    pub len: u64,
    /// Where it, or the compressed block that holds it, is in the parent's file.
    from: u64,
    /// Of which of the parent's extents it is a part, and where in it.
    of: u32,
    skip: u64,
    /// Its checksum, if it is the whole of that.
    checksum: Option<u64>,
}

/// Bytes of the parent's extent `of` that are those of `made[extent][index]`.
#[derive(Clone, Copy, Debug)]
struct Part {
    of: u32,
    skip: u64,
    extent: usize,
    index: usize,
    /// Known already.
    checked: bool,
}

/// Everything that is taken.
#[derive(Debug, Default)]
pub struct Unchanged {
    /// By planned extent, ascending.
    taken: Vec<Vec<Taken>>,
    /// Where bytes of the parent's file are in this one.
    pub regions: Regions,
    parts: Vec<Part>,
    /// Compressed blocks, by offset in the parent's file: their lengths before and after.
    pub blocks: HashMap<u64, [u64; 2]>,
    /// How much has been taken; several extents may lead to the same.
    pub bytes: u64,
}

/// Whole pages, in the image, and as they are.
pub fn is_whole(image: &Image<'_>, e: &Extent) -> bool {
    e.file_offset.is_multiple_of(PAGE_SIZE) && !e.is_compressed() && can_be_taken(image, e)
}

/// Whole pages, in the image; they may be a part of a compressed block.
fn can_be_taken(image: &Image<'_>, e: &Extent) -> bool {
    let whole = [e.addr, e.len].iter().all(|n| n.is_multiple_of(PAGE_SIZE));
    let end = e.file_offset.checked_add(e.stored());
    let sane = end.is_some_and(|end| end <= image.header.image_size) && e.addr.checked_add(e.len).is_some();
    let place = if e.is_compressed() { e.block().is_some() } else { e.file_offset.is_multiple_of(PAGE_SIZE) };
    whole && sane && e.len > 0 && place
}

impl Unchanged {
    /// `spaces`: the address space of each planned extent; `start`: where contents begin in the new file.
    pub fn new(parent: &Image<'_>, plan: &Plan, spaces: &[u32], start: u64) -> Result<Self, FormatError> {
        let mut out = Self::default();
        let mut last: Option<(u32, Vec<u32>)> = None;
        for (planned, &space) in plan.tables.extents.iter().zip(spaces) {
            out.taken.push(Vec::new());
            let aligned = planned.addr.is_multiple_of(PAGE_SIZE) && planned.len.is_multiple_of(PAGE_SIZE);
            if planned.flags & UNCHANGED == 0 || space == NONE || !aligned {
                continue;
            }
            let Some(&mm) = plan.earlier.get(&space) else { continue };
            if last.as_ref().is_none_or(|(of, _)| *of != mm) {
                last = Some((mm, of_space(parent, mm)?));
            }
            let Some((_, all)) = &last else { continue };
            let at = |i: &u32| &parent.extents[*i as usize];
            let first = all.partition_point(|i| at(i).addr + at(i).len <= planned.addr);
            let end = planned.addr + planned.len;
            for &i in all[first..].iter().take_while(|i| at(i).addr < end) {
                let e = at(&i);
                let (from, to) = (e.addr.max(planned.addr), (e.addr + e.len).min(end));
                let whole = to - from == e.len;
                if whole || (to - from) * SHORTEST >= e.len {
                    let taken = Taken {
                        addr: from,
                        len: to - from,
                        from: if e.is_compressed() { e.file_offset } else { e.file_offset + (from - e.addr) },
                        of: i,
                        skip: from - e.addr,
                        checksum: whole.then_some(e.checksum),
                    };
                    out.taken.last_mut().into_iter().for_each(|t| t.push(taken));
                }
            }
        }
        out.leave_sparse_blocks(parent);
        out.place(parent, plan, start);
        Ok(out)
    }

    /// What is left of compressed blocks that are hardly used any more is read instead.
    fn leave_sparse_blocks(&mut self, parent: &Image<'_>) {
        let mut used: HashMap<u64, u64> = HashMap::new();
        let of = |t: &Taken| &parent.extents[t.of as usize];
        for t in self.taken.iter().flatten().filter(|t| of(t).is_compressed()) {
            *used.entry(t.from).or_default() += t.len;
        }
        if used.is_empty() {
            return;
        }
        let is_used = |t: &Taken| {
            let e = of(t);
            let len = used.get(&t.from).copied().unwrap_or(0);
            !e.is_compressed() || len * LEAST_OF_BLOCK >= u64::from(e.block_len)
        };
        self.taken.iter_mut().for_each(|all| all.retain(is_used));
    }

    /// Gives everything its place in the new file.
    fn place(&mut self, parent: &Image<'_>, plan: &Plan, start: u64) {
        let mut ranges = Vec::new();
        for t in self.taken.iter().flatten() {
            let e = &parent.extents[t.of as usize];
            if e.is_compressed() {
                self.blocks.insert(t.from, [u64::from(e.block_len), u64::from(e.stored_len)]);
            } else {
                ranges.push((t.from, t.len));
            }
        }
        ranges.extend(self.blocks.iter().map(|(from, [_, stored])| (*from, *stored)));
        self.regions = Regions::new(ranges, start, plan.shares, PAGE_SIZE);
    }

    /// The first run of a planned extent that does not end before this address.
    pub fn at(&self, extent: usize, addr: u64) -> Option<Taken> {
        let all = self.taken.get(extent)?;
        all.get(all.partition_point(|t| t.addr + t.len <= addr)).copied()
    }

    /// How much of a planned extent is taken.
    pub fn len_of(&self, extent: usize) -> u64 {
        self.taken.get(extent).map_or(0, |all| all.iter().map(|t| t.len).sum())
    }

    /// Computes the checksums that are not known, from bytes that match their own; with `verify` all bytes that
    /// were taken must.
    pub fn sums(
        &mut self,
        parent: &ImageFile,
        verify: bool,
        made: &mut [Vec<Extent>],
    ) -> Result<(), WriteError> {
        let damaged = |e: &dyn std::fmt::Display| WriteError::Parent(e.to_string());
        let image = parent.image().map_err(|e| damaged(&e))?;
        let mut scratch = Scratch::default();
        self.parts.retain(|p| verify || !p.checked);
        self.parts.sort_unstable_by_key(|p| (p.of, p.extent, p.index));
        for parts in self.parts.chunk_by(|a, b| a.of == b.of) {
            let e = &image.extents[parts[0].of as usize];
            let bytes = parent.contents(e, &mut scratch).map_err(|e| damaged(&e))?;
            for p in parts {
                let extent = &mut made[p.extent][p.index];
                extent.checksum = checksum(&bytes[p.skip as usize..(p.skip + extent.len) as usize]);
            }
        }
        Ok(())
    }
}

/// The extents of an address space that can be taken, ascending.
fn of_space(image: &Image<'_>, mm: u32) -> Result<Vec<u32>, FormatError> {
    let mm = Image::get(image.mms, mm, "address space")?;
    let mut all = Vec::new();
    for vma in Image::slice(image.vmas, mm.vmas, "VMAs")? {
        // Also checks the range.
        let extents = Image::slice(image.extents, vma.dirty, "extents")?;
        let whole = |(e, _): &(&Extent, u32)| can_be_taken(image, e);
        all.extend(extents.iter().zip(vma.dirty.first..).filter(whole).map(|(_, i)| i));
    }
    all.sort_unstable_by_key(|i| image.extents[*i as usize].addr);
    // Damaged tables may contradict themselves.
    let at = |i: u32| &image.extents[i as usize];
    if all.windows(2).any(|w| at(w[0]).addr + at(w[0]).len > at(w[1]).addr) {
        return Err(FormatError::Reference("extent"));
    }
    Ok(all)
}

impl Reader<'_> {
    /// Gives a run of the parent's its place.
    pub(super) fn keep_unread(&mut self, w: &Wanted, taken: &Taken) {
        let Some(parent) = &mut self.parent else { return };
        let Some(file_offset) = parent.unchanged.regions.place(taken.from) else { return };
        let planned = self.plan.tables.extents[w.extent];
        let (extent, index) = (w.extent, self.made[w.extent].len());
        let (of, skip, checked) = (taken.of, taken.skip, taken.checksum.is_some());
        parent.unchanged.parts.push(Part { of, skip, extent, index, checked });
        parent.unchanged.bytes += taken.len;
        let mut made = Extent {
            addr: taken.addr,
            len: taken.len,
            file_offset,
            checksum: taken.checksum.unwrap_or(0),
            flags: planned.flags & !(DROP_ZERO | UNCHANGED),
            ..Default::default()
        };
        let old = &parent.extents[of as usize];
        if old.is_compressed() {
            made.flags |= extent_flags::COMPRESSED;
            (made.stored_len, made.block_len, made.skip) =
                (old.stored_len, old.block_len, old.skip + skip as u32);
        } else if let Some((owner, first)) = self.plan.owner(w.extent) {
            let run = Run { start: first + w.skip, len: taken.len, file_offset };
            self.stored.add(owner, run);
        }
        self.made[w.extent].push(made);
    }
}
