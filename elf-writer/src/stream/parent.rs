//! An earlier image: what is still equal to it is not written again, but shared with it by the file system.

use super::known;
use super::regions::{self, Region};
use super::unchanged::Unchanged;
use super::{Progress, unchanged};
use crate::WriteError;
use crate::alias::{Owner, Run, Stored};
use crate::dedup::SHORTEST;
use crate::plan::{ContentSource, Plan, Tables, UNCHANGED};
use ckpt_format::{Extent, FormatError, Image, NONE, PAGE_SIZE};
use ckpt_reader::ImageFile;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The earlier image.
#[derive(Debug)]
pub struct Parent<'a> {
    image: &'a ImageFile,
    pub extents: &'a [Extent],
    /// The file system can let both share blocks.
    pub shares: bool,
    /// What need not even be read.
    pub unchanged: Unchanged,
    /// What it has, by address space of the plan.
    stored: Stored,
    /// By planned extent: its address space.
    spaces: Vec<u32>,
    /// What is found equal, in the order in which it is in the new file.
    shared: Vec<Region>,
    buffer: Vec<u8>,
    /// What of it counts as the program's own, and as embedded.
    pub bytes: [u64; 2],
}

impl<'a> Parent<'a> {
    /// `start`: where contents begin in the new file.
    pub fn new(image: &'a ImageFile, plan: &Plan, start: u64) -> Result<Self, FormatError> {
        let tables = &plan.tables;
        let shares = plan.shares;
        let mut spaces = vec![NONE; tables.extents.len()];
        for (index, mm) in tables.mms.iter().enumerate() {
            for vma in &tables.vmas[mm.vmas.indices()] {
                for range in [vma.dirty, vma.embedded] {
                    spaces[range.indices()].fill(index as u32);
                }
            }
        }
        let old = image.image()?;
        let unchanged = Unchanged::new(&old, plan, &spaces, start)?;
        // Of a VMA that was tracked, what is read was written to since, and is not worth a comparison.
        let is_unchanged = |e: &Extent| e.flags & UNCHANGED != 0;
        for vma in tables.vmas.iter().filter(|v| tables.extents[v.dirty.indices()].iter().any(is_unchanged)) {
            spaces[vma.dirty.indices()].fill(NONE);
        }
        // What cannot be shared is written as fast as it is compared; compressed blocks are at no page boundary.
        let stored = if shares && !plan.compress { earlier(&old, tables)? } else { Stored::default() };
        let (shared, buffer) = (Vec::new(), Vec::new());
        Ok(Self {
            image,
            extents: old.extents,
            shares,
            unchanged,
            stored,
            spaces,
            shared,
            buffer,
            bytes: [0; 2],
        })
    }

    /// Runs of pages at `addr`, of planned extent `extent`, that are the same in the parent, byte by byte: relative
    /// to `addr`, and where they are in the parent's file.
    pub fn equal(&mut self, extent: usize, addr: u64, bytes: &[u8]) -> io::Result<Vec<Run>> {
        let mut found = Vec::new();
        let space = match self.spaces.get(extent) {
            Some(&space) if space != NONE => Owner::Memory(space as i32),
            _ => return Ok(found),
        };
        let whole = bytes.len() as u64 / PAGE_SIZE * PAGE_SIZE;
        for run in self.stored.within(space, addr, whole) {
            self.buffer.resize(run.len as usize, 0);
            self.image.file().read_exact_at(&mut self.buffer, run.file_offset)?;
            let own = &bytes[(run.start - addr) as usize..];
            let relative = Run { start: run.start - addr, ..run };
            known::equal_pages(own, &self.buffer, relative, &mut found);
        }
        found.retain(|run| run.len >= SHORTEST as u64 * PAGE_SIZE);
        Ok(found)
    }

    /// What is at `from` in the parent will be at `to` in the new file.
    pub fn take(&mut self, from: u64, to: u64, len: u64) {
        regions::append(&mut self.shared, Region { from, to, len });
    }

    /// Shares, or copies, everything that was taken, and completes the extents `made` of it.
    pub fn finish(
        &mut self,
        plan: &Plan,
        made: &mut [Vec<Extent>],
        file: &File,
        path: &Path,
        source: &mut dyn ContentSource,
        progress: &mut Progress<'_>,
    ) -> Result<(), WriteError> {
        let failed = |e: CopyError| match e {
            CopyError::Read(e) => WriteError::Parent(format!("cannot read it: {e}")),
            CopyError::Write(source) => {
                WriteError::Output { what: "cannot write", path: path.into(), source }
            }
        };
        let done = plan.tables.extents.iter().map(|e| e.len).sum();
        let regions = &self.unchanged.regions;
        let found = self.shared.iter().map(|r| (r, self.shares));
        for (r, shared) in regions.all.iter().map(|r| (r, regions.shared)).chain(found) {
            if progress(done).is_break() {
                return Err(WriteError::Interrupted);
            }
            let shared = match shared {
                true => source.share(self.image.file(), r.from, file, r.to, r.len),
                false => Err(io::ErrorKind::Unsupported.into()),
            };
            shared.or_else(|_| copy(self.image.file(), r, file, &mut self.buffer)).map_err(failed)?;
        }
        self.unchanged.sums(self.image, made, &mut || progress(done))
    }
}

enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Where blocks cannot be shared, or sharing has failed although it was possible for the first page.
fn copy(from: &File, r: &Region, to: &File, buffer: &mut Vec<u8>) -> Result<(), CopyError> {
    buffer.resize(1 << 20, 0);
    let mut done = 0;
    while done < r.len {
        let part = (r.len - done).min(buffer.len() as u64) as usize;
        from.read_exact_at(&mut buffer[..part], r.from + done).map_err(CopyError::Read)?;
        to.write_all_at(&buffer[..part], r.to + done).map_err(CopyError::Write)?;
        done += part as u64;
    }
    Ok(())
}

/// What the earlier image has of each address space of the plan: that of the process with the same id; or, of a
/// single process that has got another id, of the only one.
fn earlier(image: &Image<'_>, tables: &Tables) -> Result<Stored, FormatError> {
    let before: BTreeMap<i32, u32> = image.tasks.iter().rev().map(|t| (t.pid, t.mm)).collect();
    let single = image.mms.len() == 1 && tables.mms.len() == 1;
    let mut stored = Stored::default();
    for (index, _) in tables.mms.iter().enumerate() {
        let task = tables.tasks.iter().find(|t| t.mm as usize == index);
        let Some(mm) = task.and_then(|t| before.get(&t.pid).copied()).or(single.then_some(0)) else {
            continue;
        };
        let Ok(mm) = Image::get(image.mms, mm, "address space") else { continue };
        for vma in Image::slice(image.vmas, mm.vmas, "VMAs")? {
            for range in [vma.dirty, vma.embedded] {
                for e in Image::slice(image.extents, range, "extents")? {
                    if unchanged::is_whole(image, e) {
                        let run = Run { start: e.addr, len: e.len, file_offset: e.file_offset };
                        stored.add(Owner::Memory(index as i32), run);
                    }
                }
            }
        }
    }
    Ok(stored)
}
