//! What is known to be what the parent has: it gets its place in this image without being read.
//!
//! The checksums of the parent's extents come along. Where only a part of one is still the same, that part's own
//! checksum is computed from the parent's bytes when everything has its place: the processes may run by then.

use super::{Reader, Wanted};
use crate::WriteError;
use crate::alias::{Owner, Run, Stored};
use crate::plan::{DROP_ZERO, Plan, UNCHANGED};
use ckpt_format::{Extent, FormatError, Image, NONE, PAGE_SIZE, checksum};
use ckpt_reader::{ImageFile, Scratch};

/// Shorter parts of an extent are read instead: taking one costs a read of the whole extent, and a block that is
/// shared for itself.
const SHORTEST: u64 = 4 * PAGE_SIZE;

/// A run of pages that is taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub addr: u64,
    pub len: u64,
    /// Where it is in the parent's file.
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
    /// Where bytes of the parent's file are in this one: several extents of it may lead to the same.
    placed: Stored,
    parts: Vec<Part>,
    /// How much has been taken.
    pub bytes: u64,
}

/// What bytes of the parent's file are to [`Unchanged::placed`].
const FILE: Owner = Owner::File(0);

/// Whole pages, in the image, and as they are.
pub fn is_whole(image: &Image<'_>, e: &Extent) -> bool {
    let whole = [e.addr, e.len, e.file_offset].iter().all(|n| n.is_multiple_of(PAGE_SIZE));
    let end = e.file_offset.checked_add(e.len);
    let sane = end.is_some_and(|end| end <= image.header.image_size) && e.addr.checked_add(e.len).is_some();
    whole && sane && e.len > 0 && !e.is_compressed()
}

impl Unchanged {
    /// `spaces`: the address space of each planned extent.
    pub fn new(parent: &Image<'_>, plan: &Plan, spaces: &[u32]) -> Result<Self, FormatError> {
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
                if whole || to - from >= SHORTEST {
                    let taken = Taken {
                        addr: from,
                        len: to - from,
                        from: e.file_offset + (from - e.addr),
                        of: i,
                        skip: from - e.addr,
                        checksum: whole.then_some(e.checksum),
                    };
                    out.taken.last_mut().into_iter().for_each(|t| t.push(taken));
                }
            }
        }
        Ok(out)
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
        let whole = |(e, _): &(&Extent, u32)| is_whole(image, e);
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
        let planned = self.plan.tables.extents[w.extent];
        self.offset = self.offset.next_multiple_of(PAGE_SIZE);
        let known = match parent.unchanged.placed.within(FILE, taken.from, taken.len)[..] {
            [run] if run.len == taken.len => Some(run.file_offset),
            _ => None,
        };
        let file_offset = known.unwrap_or(self.offset);
        if known.is_some() {
            self.shared[0] += taken.len;
        } else {
            parent.take(taken.from, self.offset, taken.len);
            let run = Run { start: taken.from, len: taken.len, file_offset };
            parent.unchanged.placed.add(FILE, run);
            parent.unchanged.bytes += taken.len;
            self.offset += taken.len;
        }
        let (extent, index) = (w.extent, self.made[w.extent].len());
        let (of, skip, checked) = (taken.of, taken.skip, taken.checksum.is_some());
        parent.unchanged.parts.push(Part { of, skip, extent, index, checked });
        self.made[w.extent].push(Extent {
            addr: taken.addr,
            len: taken.len,
            file_offset,
            checksum: taken.checksum.unwrap_or(0),
            flags: planned.flags & !(DROP_ZERO | UNCHANGED),
            ..Default::default()
        });
        if let Some((owner, first)) = self.plan.owner(w.extent) {
            let run = Run { start: first + w.skip, len: taken.len, file_offset };
            self.stored.add(owner, run);
        }
    }
}
