//! What is known to be what the parent has: it gets its place in this image without being read.
//!
//! The checksums of the parent's extents come along. Where only a part of one is still the same, that part's own
//! checksum is computed from the parent's bytes when everything has its place: the processes may run by then.

use super::regions::Regions;
use super::{CHUNK, Reader, TRACKED_EXTENT, Wanted};
use crate::WriteError;
use crate::alias::Run;
use crate::plan::{DROP_ZERO, Plan, UNCHANGED};
use ckpt_format::content::MAX_EXTENT;
use ckpt_format::{Extent, FormatError, Image, NONE, PAGE_SIZE, checksum, extent_flags};
use ckpt_reader::{ImageFile, Scratch};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Parts of an extent that are shorter than this fraction of it are read instead: the checksum of one costs a
/// read of the whole extent.
const SHORTEST: u64 = 16;
/// So many of the parent's extents are asked for before they are read.
const AHEAD: usize = 256;
/// Blocks of which less than this fraction is taken are left behind.
const LEAST_OF_BLOCK: u64 = 2;

/// A run of pages that is taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub addr: u64,
    /// [`ckpt_format::content::MAX_EXTENT`] at most.
    len: u32,
    /// Of which of the parent's extents it is a part.
    of: u32,
    /// Where it, or the compressed block that holds it, is in the new file.
    to: u64,
}

impl Taken {
    pub fn len(&self) -> u64 {
        self.len.into()
    }

    pub fn end(&self) -> u64 {
        self.addr + self.len()
    }

    /// Where it, or the compressed block that holds it, is in the parent's file.
    fn from(&self, e: &Extent) -> u64 {
        if e.is_compressed() { e.file_offset } else { e.file_offset + (self.addr - e.addr) }
    }
}

/// Bytes of the parent's extent `of` that are some of `made[extent][index]`.
#[derive(Clone, Copy, Debug)]
struct Part {
    of: u32,
    extent: u32,
    index: u32,
}

/// Everything that is taken.
#[derive(Debug, Default)]
pub struct Unchanged {
    /// By planned extent, ascending.
    taken: Vec<Vec<Taken>>,
    /// Where bytes of the parent's file are in this one.
    pub regions: Regions,
    parts: Vec<Part>,
    /// What was taken last, and whether it is the whole of an extent that is in no part.
    last: Option<(Part, bool)>,
    /// Compressed blocks, by offset in the parent's file: their lengths before and after.
    pub blocks: HashMap<u64, [u64; 2]>,
    /// How much has been taken; several extents may lead to the same.
    pub bytes: u64,
}

/// Whole pages, in the image, and as they are.
pub fn is_whole(image: &Image<'_>, e: &Extent) -> bool {
    !e.is_compressed() && can_be_taken(image, e)
}

/// Whole pages, in the image; they may be a part of a compressed block.
fn can_be_taken(image: &Image<'_>, e: &Extent) -> bool {
    let whole = [e.addr, e.len].iter().all(|n| n.is_multiple_of(PAGE_SIZE));
    let end = e.file_offset.checked_add(e.stored());
    let sane = end.is_some_and(|end| end <= image.header.image_size) && e.addr.checked_add(e.len).is_some();
    let place = if e.is_compressed() { e.block().is_some() } else { e.file_offset.is_multiple_of(PAGE_SIZE) };
    whole && sane && (1..=MAX_EXTENT).contains(&e.len) && place
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
                    let taken = Taken { addr: from, len: (to - from) as u32, of: i, to: 0 };
                    out.taken.last_mut().into_iter().for_each(|t| t.push(taken));
                }
            }
        }
        out.leave_sparse_blocks(parent);
        out.place(parent, plan, start)?;
        Ok(out)
    }

    /// What is left of compressed blocks that are hardly used any more is read instead.
    fn leave_sparse_blocks(&mut self, parent: &Image<'_>) {
        let mut used: HashMap<u64, u64> = HashMap::new();
        let of = |t: &Taken| &parent.extents[t.of as usize];
        for t in self.taken.iter().flatten().filter(|t| of(t).is_compressed()) {
            *used.entry(of(t).file_offset).or_default() += t.len();
        }
        if used.is_empty() {
            return;
        }
        let is_used = |t: &Taken| {
            let e = of(t);
            let len = used.get(&e.file_offset).copied().unwrap_or(0);
            !e.is_compressed() || len * LEAST_OF_BLOCK >= u64::from(e.block_len)
        };
        self.taken.iter_mut().for_each(|all| all.retain(is_used));
    }

    /// Gives everything its place in the new file.
    fn place(&mut self, parent: &Image<'_>, plan: &Plan, start: u64) -> Result<(), FormatError> {
        const CONTRADICTION: FormatError = FormatError::Reference("extent");
        let mut ranges = Vec::new();
        for t in self.taken.iter().flatten() {
            let e = &parent.extents[t.of as usize];
            if e.is_compressed() {
                let lens = [u64::from(e.block_len), u64::from(e.stored_len)];
                if self.blocks.insert(e.file_offset, lens).is_some_and(|before| before != lens) {
                    return Err(CONTRADICTION);
                }
            } else {
                ranges.push((t.from(e), t.len()));
            }
        }
        ranges.extend(self.blocks.iter().map(|(from, [_, stored])| (*from, *stored)));
        let shared = if plan.shares { Regions::to_share(ranges, start) } else { None };
        self.regions = shared.unwrap_or_else(|| Regions::to_copy(start));
        for t in self.taken.iter_mut().flatten() {
            let e = &parent.extents[t.of as usize];
            let (len, align) = if e.is_compressed() { (e.stored(), 1) } else { (t.len(), PAGE_SIZE) };
            let from = t.from(e);
            t.to = match self.regions.shared {
                true => self.regions.place(from).ok_or(CONTRADICTION)?,
                false => self.regions.copy(from, len, align),
            };
            // Something compressed overlaps it.
            if !t.to.is_multiple_of(align) {
                return Err(CONTRADICTION);
            }
        }
        self.regions.end = self.regions.end.next_multiple_of(PAGE_SIZE);
        Ok(())
    }

    /// The first run of a planned extent that does not end before this address.
    pub fn at(&self, extent: usize, addr: u64) -> Option<Taken> {
        let all = self.taken.get(extent)?;
        all.get(all.partition_point(|t| t.end() <= addr)).copied()
    }

    /// How much of a planned extent is taken.
    pub fn len_of(&self, extent: usize) -> u64 {
        self.taken.get(extent).map_or(0, |all| all.iter().map(Taken::len).sum())
    }

    /// Computes the checksums that are not known, from bytes that match their own.
    pub fn sums(
        &self,
        parent: &ImageFile,
        made: &mut [Vec<Extent>],
        progress: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<(), WriteError> {
        let damaged = |e: &dyn std::fmt::Display| WriteError::Parent(e.to_string());
        let image = parent.image().map_err(|e| damaged(&e))?;
        let (mut scratch, mut buffer) = (Scratch::default(), Vec::new());
        let mut asked = 0usize;
        for parts in self.parts.chunk_by(|a, b| (a.extent, a.index) == (b.extent, b.index)) {
            buffer.clear();
            let extent = &mut made[parts[0].extent as usize][parts[0].index as usize];
            for part in parts {
                if asked.is_multiple_of(AHEAD) {
                    let soon =
                        self.parts[asked..].iter().take(2 * AHEAD).skip(if asked == 0 { 0 } else { AHEAD });
                    soon.for_each(|p| parent.will_need(&image.extents[p.of as usize]));
                    if progress().is_break() {
                        return Err(WriteError::Interrupted);
                    }
                }
                asked += 1;
                let e = &image.extents[part.of as usize];
                let bytes = parent.contents(e, &mut scratch).map_err(|e| damaged(&e))?;
                let (from, to) = (e.addr.max(extent.addr), (e.addr + e.len).min(extent.addr + extent.len));
                buffer.extend_from_slice(&bytes[(from - e.addr) as usize..(to - e.addr) as usize]);
            }
            debug_assert_eq!(buffer.len() as u64, extent.len);
            extent.checksum = checksum(&buffer);
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
    /// Puts a run of the parent's into the image.
    pub(super) fn keep_unread(&mut self, w: &Wanted, taken: &Taken) {
        let Some(parent) = &mut self.parent else { return };
        let (old, unchanged) = (&parent.extents[taken.of as usize], &mut parent.unchanged);
        let made = &mut self.made[w.extent];
        unchanged.bytes += taken.len();
        if !old.is_compressed()
            && !self.plan.ancestors.is_empty()
            && let Some((owner, first)) = self.plan.owner(w.extent)
        {
            self.stored.add(owner, Run { start: first + w.skip, len: taken.len(), file_offset: taken.to });
        }
        let part = |index| Part { of: taken.of, extent: w.extent as u32, index };
        if let Some((last, whole)) = unchanged.last
            && let Some(index) = made.len().checked_sub(1)
            && (last.extent, last.index) == (w.extent as u32, index as u32)
            && joins(&made[index], taken, old)
        {
            // What earlier changes divided is one again.
            unchanged.parts.extend(whole.then_some(last));
            unchanged.parts.push(part(last.index));
            unchanged.last = Some((last, false));
            made[index].len += taken.len();
            return;
        }
        let whole = taken.len() == old.len && !self.plan.verify;
        let part = part(made.len() as u32);
        unchanged.parts.extend((!whole).then_some(part));
        unchanged.last = Some((part, whole));
        let mut extent = Extent {
            addr: taken.addr,
            len: taken.len(),
            file_offset: taken.to,
            checksum: old.checksum,
            flags: self.plan.tables.extents[w.extent].flags & !(DROP_ZERO | UNCHANGED),
            ..Default::default()
        };
        if old.is_compressed() {
            extent.flags |= extent_flags::COMPRESSED;
            (extent.stored_len, extent.block_len) = (old.stored_len, old.block_len);
            extent.skip = old.skip + (taken.addr - old.addr) as u32;
        }
        made.push(extent);
    }
}

/// Whether what is taken, of the parent's extent `old`, can be a part of the extent before it.
fn joins(before: &Extent, taken: &Taken, old: &Extent) -> bool {
    let place = match (before.is_compressed(), old.is_compressed()) {
        (false, false) => before.file_offset + before.len == taken.to,
        (true, true) => {
            let skip = u64::from(old.skip) + (taken.addr - old.addr);
            before.file_offset == taken.to && u64::from(before.skip) + before.len == skip
        }
        _ => false,
    };
    let fits = before.len + taken.len() <= CHUNK as u64;
    fits && place && before.addr + before.len == taken.addr && !taken.addr.is_multiple_of(TRACKED_EXTENT)
}
