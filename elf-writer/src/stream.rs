//! Copies the contents into the file: one thread reads, looks for zeros and computes checksums, the
//! other writes. A few buffers that fit the L2 cache go round between them; nothing is copied twice.
//! Several others write, and are given more buffers, when the contents are compressed.
//!
//! Contents of up to [`AT_ONCE`] are read as fast as they can be, so that the processes can run on: there is a
//! buffer for all of them, and the writer computes the checksums.

use crate::alias::{Owner, Run, Stored};
use crate::buffers::{AT_ONCE, Buffers, MOST_BUFFERS, Room};
use crate::compress::{self, Blocks, Order};
use crate::dedup::{self, Dedup, Place};
use crate::plan::{ContentSource, DROP_ZERO, Piece, Plan, Source, Stage, UNCHANGED};
use crate::{Tables, WriteError};
use ckpt_format::content::{MAX_BLOCK, MAX_EXTENT};
use ckpt_format::{Compression, Extent, PAGE_SIZE, checksum, extent_flags};
use nix::sys::uio::pwritev;
use parent::Parent;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex};

mod known;
mod parent;
mod regions;
mod unchanged;

/// Size of a buffer, and the longest extent that is written.
pub const CHUNK: usize = 256 << 10;
const _: () = assert!(CHUNK as u64 <= MAX_EXTENT && CHUNK.is_multiple_of(PAGE_SIZE as usize));
const _: () = assert!(CHUNK as u64 == MAX_BLOCK);
/// The longest extent of memory that is tracked: an image that has this one for a parent reads the whole of an
/// extent of which something has changed.
pub const TRACKED_EXTENT: u64 = 32 << 10;
/// Buffers in use.
pub const BUFFERS: usize = 6;
const _: () = assert!(compress::BUFFERS <= MOST_BUFFERS);
/// Most pieces read at once (IOV_MAX of process_vm_readv).
const MAX_PIECES: usize = 1024;
/// Most pieces of a buffer, with those that are not read.
const MAX_WANTED: usize = 32 * MAX_PIECES;
/// Small contents (pipe data, tails of files) are aligned to this in the image.
const SMALL_ALIGN: u64 = 64;

/// Called with the number of planned bytes done so far.
pub type Progress<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

/// A buffer on its way to the file.
pub struct Filled<'b> {
    /// Counts from 0.
    pub number: u64,
    pub buf: &'b mut [u8],
    /// Ascending.
    pub parts: Vec<Part>,
    /// Extents whose checksum the writer computes.
    sums: Vec<Sum<Range<usize>>>,
}

/// Bytes of a buffer whose checksum belongs into `made[extent][index]`; or that checksum.
struct Sum<T> {
    extent: usize,
    index: usize,
    of: T,
}

/// A piece of a buffer that is stored.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Start in the buffer.
    pub at: usize,
    pub len: usize,
    /// Offset in the file; of compressed contents the one that it would have without compression.
    pub position: u64,
    /// A compressed block begins with it.
    pub begins: bool,
}

/// What came of the planned extents.
#[derive(Debug, Default)]
pub struct Streamed {
    /// The image's extents, in the order of the plan.
    pub extents: Vec<Extent>,
    /// `first[i]..first[i + 1]` are those of planned extent `i`.
    pub first: Vec<u32>,
    /// End of the contents in the file.
    pub end: u64,
    /// Bytes of extents that lead to what was stored before, without and with
    /// [`extent_flags::EMBEDDED_FILE`].
    pub shared: [u64; 2],
    /// Bytes of these that were found by their contents only.
    pub duplicates: u64,
    /// Bytes that are shared with the parent; `None` if there is none, or the file system cannot.
    pub inherited: Option<u64>,
    /// Bytes that came from the parent without being read from their source; shared with it, or copied.
    pub unread: u64,
    /// How much was compressed, if anything was.
    pub compression: Option<Compression>,
}

/// Order in which planned extents are written: memory by address, so that a VMA is contiguous in the
/// file whether its bytes are dirty or embedded; then the rest as planned. What is urgent comes before all
/// that; returns how much that is.
fn write_order(tables: &Tables, urgent: &[bool]) -> (Vec<usize>, usize) {
    let mut done = vec![false; tables.extents.len()];
    let mut order = Vec::with_capacity(done.len());
    for vma in &tables.vmas {
        let start = order.len();
        order.extend(vma.dirty.indices().chain(vma.embedded.indices()));
        order[start..].sort_unstable_by_key(|&i| tables.extents[i].addr);
    }
    order.iter().for_each(|&i| done[i] = true);
    order.extend((0..done.len()).filter(|&i| !done[i]));
    let (mut first, rest): (Vec<usize>, Vec<usize>) =
        order.into_iter().partition(|&i| urgent.get(i).copied().unwrap_or(false));
    let count = first.len();
    first.extend(rest);
    (first, count)
}

/// Copies the contents of `plan` to `file` from offset `start` on.
///
/// # Errors
/// When a read or a write fails, or `progress` asks to stop. The file is then incomplete.
pub fn stream(
    plan: &Plan,
    source: &mut dyn ContentSource,
    file: &File,
    path: &Path,
    start: u64,
    room: &mut Room,
    progress: &mut Progress<'_>,
) -> Result<Streamed, WriteError> {
    let mut reader = Reader::new(plan, start);
    let mut start = start;
    if let Some(parent) = plan.parent.as_deref() {
        let parent = Parent::new(parent, plan, start).map_err(|e| WriteError::Parent(e.to_string()))?;
        start = parent.unchanged.regions.end;
        reader.offset = start;
        reader.parent = Some(parent);
    }
    let (full_tx, full_rx) = sync_channel(MOST_BUFFERS);
    let (free_tx, free_rx) = channel();
    let mut buffers = Buffers::new(room, free_rx, full_tx);
    let order = Order::new(start);
    let begin = || plan.on_writer.into_iter().for_each(|begin| begin());
    let result = std::thread::scope(|scope| {
        let full = Arc::new(Mutex::new(full_rx));
        let writers: Vec<_> = match plan.compress {
            true => (0..compress::threads())
                .map(|_| {
                    let (full, free, order) = (full.clone(), free_tx.clone(), &order);
                    scope.spawn(move || {
                        begin();
                        compress::work(file, order, &full, &free).map(|()| Vec::new())
                    })
                })
                .collect(),
            false => {
                let (full, free) = (full.clone(), free_tx.clone());
                vec![scope.spawn(move || {
                    begin();
                    write_all(file, &full, &free)
                })]
            }
        };
        // What writers alone have is closed when they have ended.
        drop((full, free_tx));
        let result = reader.run(source, &mut buffers, progress);
        drop(buffers);
        let ended = writers
            .into_iter()
            .map(|w| w.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread panicked"))));
        let written: io::Result<Vec<_>> = ended.collect::<Vec<_>>().into_iter().collect();
        // When a writer fails the reader only sees a closed channel: its error comes first.
        let sums = written.map_err(|source| WriteError::Output {
            what: "cannot write",
            path: path.into(),
            source,
        })?;
        result.map(|()| sums)
    });
    for sum in result?.into_iter().flatten() {
        reader.made[sum.extent][sum.index].checksum = sum.of;
    }
    if let Some(parent) = &mut reader.parent {
        parent.finish(plan, &mut reader.made, file, path, source, progress)?;
    }
    Ok(reader.finish(plan.compress.then(|| order.finish())))
}

/// Returns the checksums that it was asked for.
fn write_all<'b>(
    file: &File,
    full: &Mutex<Receiver<Filled<'b>>>,
    free: &Sender<&'b mut [u8]>,
) -> io::Result<Vec<Sum<u64>>> {
    let mut sums = Vec::new();
    let Ok(full) = full.lock() else { return Ok(sums) };
    for filled in full.iter() {
        let sum =
            |s: Sum<Range<usize>>| Sum { of: checksum(&filled.buf[s.of]), extent: s.extent, index: s.index };
        sums.extend(filled.sums.into_iter().map(sum));
        for group in filled.parts.chunk_by(|a, b| a.position + a.len as u64 == b.position) {
            for slices in group.chunks(MAX_PIECES) {
                let iov = slices.iter().map(|p| IoSlice::new(&filled.buf[p.at..p.at + p.len])).collect();
                pwritev_all(file, iov, slices[0].position)?;
            }
        }
        // The reader may have finished.
        let _ = free.send(filled.buf);
    }
    Ok(sums)
}

/// `pwritev` until everything is written.
pub fn pwritev_all(file: &File, mut iov: Vec<IoSlice<'_>>, mut offset: u64) -> io::Result<()> {
    let mut rest = &mut iov[..];
    while !rest.is_empty() {
        match pwritev(file, rest, offset as i64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                offset += n as u64;
                IoSlice::advance_slices(&mut rest, n);
            }
            Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

struct Reader<'a> {
    plan: &'a Plan,
    order: Vec<usize>,
    /// How many of these are urgent.
    urgent: usize,
    /// By planned extent: its extents in the image.
    made: Vec<Vec<Extent>>,
    offset: u64,
    stored: Stored,
    shared: [u64; 2],
    /// For the comparison with an ancestor's pages.
    other: Vec<u8>,
    /// Where compressed blocks begin, ascending.
    blocks: Vec<u64>,
    /// Nothing of the present buffer is in a block yet.
    fresh: bool,
    /// Of the next buffer.
    number: u64,
    /// With [`Plan::dedup`].
    dedup: Option<Dedup>,
    /// For that: of the pages of the present piece.
    hashes: Vec<u64>,
    duplicates: u64,
    /// With [`Plan::parent`].
    parent: Option<Parent<'a>>,
}

/// As in [`Filled`]: parts, and checksums to come.
type Cut = (Vec<Part>, Vec<Sum<Range<usize>>>);

/// Part of a planned extent in the current buffer.
#[derive(Clone, Copy)]
struct Wanted {
    extent: usize,
    skip: u64,
    len: usize,
    /// It is taken from the parent, and not read.
    unread: Option<unchanged::Taken>,
}

impl<'a> Reader<'a> {
    fn new(plan: &'a Plan, start: u64) -> Self {
        let (order, urgent) = write_order(&plan.tables, &plan.urgent);
        Self {
            plan,
            order,
            urgent,
            made: vec![Vec::new(); plan.tables.extents.len()],
            offset: start,
            stored: Stored::default(),
            shared: [0; 2],
            other: Vec::new(),
            blocks: Vec::new(),
            fresh: true,
            number: 0,
            dedup: plan.dedup.then(|| Dedup::new(plan.tables.extents.iter().map(|e| e.len).sum())),
            hashes: Vec::new(),
            duplicates: 0,
            parent: None,
        }
    }

    fn run(
        &mut self,
        source: &mut dyn ContentSource,
        buffers: &mut Buffers<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<(), WriteError> {
        let order = std::mem::take(&mut self.order);
        let (urgent, rest) = order.split_at(self.urgent);
        let mut done = 0;
        for (stage, order) in [(Stage::Urgent, urgent), (Stage::All, rest)] {
            self.read_all(order, source, buffers, &mut done, progress)?;
            let failed = |source| WriteError::Content { what: format!("at stage {stage:?}"), source };
            source.reached(stage).map_err(failed)?;
            // What these were read from is not stopped any more.
            if let Some(dedup) = self.dedup.as_mut().filter(|_| !order.is_empty()) {
                dedup.forget();
            }
        }
        Ok(())
    }

    /// Reads these extents.
    fn read_all(
        &mut self,
        order: &[usize],
        source: &mut dyn ContentSource,
        buffers: &mut Buffers<'_>,
        done: &mut u64,
        progress: &mut Progress<'_>,
    ) -> Result<(), WriteError> {
        let unread = |i: usize| self.parent.as_ref().map_or(0, |p| p.unchanged.len_of(i));
        let to_read = |i: &usize| self.plan.tables.extents[*i].len - unread(*i);
        let at_once = order.iter().map(to_read).sum::<u64>() <= AT_ONCE;
        let most = match (at_once, self.plan.compress) {
            (true, _) => MOST_BUFFERS,
            (false, true) => compress::BUFFERS,
            (false, false) => BUFFERS,
        };
        let mut at = (0, 0);
        while at.0 < order.len() {
            let buf = buffers.take(most)?;
            let (wanted, filled) = self.next(order, &mut at);
            self.read(source, &wanted, &mut buf[..filled])?;
            let (parts, mut sums) = self.cut(source, &wanted, buf)?;
            if !at_once || self.plan.compress {
                // The writer has more to do than we have.
                for sum in sums.drain(..) {
                    self.made[sum.extent][sum.index].checksum = checksum(&buf[sum.of]);
                }
            }
            let number = self.number;
            self.number += 1;
            buffers.full.send(Filled { number, buf, parts, sums }).map_err(|_| WriteError::Interrupted)?;
            *done += wanted.iter().map(|w| w.len as u64).sum::<u64>();
            if progress(*done).is_break() {
                return Err(WriteError::Interrupted);
            }
        }
        Ok(())
    }

    /// What comes into the next buffer, and how much that is; `at`: extent in `order`, and bytes of it.
    fn next(&self, order: &[usize], at: &mut (usize, u64)) -> (Vec<Wanted>, usize) {
        let (next, skip) = (&mut at.0, &mut at.1);
        let (mut wanted, mut filled, mut pieces) = (Vec::new(), 0, 0);
        while *next < order.len() && filled < CHUNK && pieces < MAX_PIECES && wanted.len() < MAX_WANTED {
            let extent = &self.plan.tables.extents[order[*next]];
            let unread = self.parent.as_ref().and_then(|p| p.unchanged.at(order[*next], extent.addr + *skip));
            if let Some(taken) = unread.filter(|t| t.addr == extent.addr + *skip) {
                let (skipped, len) = (*skip, taken.len() as usize);
                wanted.push(Wanted { extent: order[*next], skip: skipped, len, unread });
                *skip += taken.len();
                if *skip == extent.len {
                    (*next, *skip) = (*next + 1, 0);
                }
                continue;
            }
            // Extents end at multiples of CHUNK, so that the stub finds whole huge pages.
            let end = unread.map_or(extent.len, |taken| taken.addr - extent.addr);
            let len = (end - *skip).min(CHUNK as u64 - (extent.addr + *skip) % CHUNK as u64) as usize;
            if len > CHUNK - filled {
                break;
            }
            if len > 0 {
                wanted.push(Wanted { extent: order[*next], skip: *skip, len, unread: None });
                pieces += 1;
                filled += len;
                *skip += len as u64;
            }
            if *skip == extent.len {
                (*next, *skip) = (*next + 1, 0);
            }
        }
        (wanted, filled)
    }

    fn read(
        &self,
        source: &mut dyn ContentSource,
        wanted: &[Wanted],
        buf: &mut [u8],
    ) -> Result<(), WriteError> {
        let piece = |w: &Wanted| Piece { source: &self.plan.sources[w.extent], skip: w.skip, len: w.len };
        let pieces: Vec<Piece<'_>> = wanted.iter().filter(|w| w.unread.is_none()).map(piece).collect();
        source.read_pieces(&pieces, buf).map_err(|source| {
            let first = wanted.first().map(|w| self.plan.tables.extents[w.extent].addr + w.skip);
            WriteError::Content { what: format!("near address {:#x}", first.unwrap_or(0)), source }
        })
    }

    /// Decides which bytes of the buffer are stored, and where.
    fn cut(
        &mut self,
        source: &mut dyn ContentSource,
        wanted: &[Wanted],
        buf: &[u8],
    ) -> Result<Cut, WriteError> {
        let mut cut: Cut = (Vec::with_capacity(wanted.len()), Vec::with_capacity(wanted.len()));
        let mut at = 0;
        self.fresh = true;
        for w in wanted {
            let planned = self.plan.tables.extents[w.extent];
            let page_wise = planned.addr.is_multiple_of(PAGE_SIZE) && planned.len >= PAGE_SIZE;
            if w.skip == 0 {
                let align = if page_wise { PAGE_SIZE } else { SMALL_ALIGN };
                self.offset = self.offset.next_multiple_of(align);
            }
            if let Some(taken) = &w.unread {
                self.keep_unread(w, taken);
                continue;
            }
            let bytes = &buf[at..at + w.len];
            let mut known = if page_wise { self.known(source, w, bytes)? } else { Vec::new() };
            self.hashes = if page_wise && self.dedup.is_some() { dedup::hashes(bytes) } else { Vec::new() };
            self.duplicates(source, bytes, &mut known);
            if page_wise {
                self.inherited(w, bytes, &mut known)?;
            }
            let known = self.split(known);
            let mut done = 0;
            for run in &known {
                let start = run.start as usize;
                self.keep_new(w, bytes, done..start, at, &mut cut);
                done = start + run.len as usize;
                self.keep_known(w, start..done, at, run.file_offset, &mut cut);
            }
            self.keep_new(w, bytes, done..w.len, at, &mut cut);
            at += w.len;
        }
        Ok(cut)
    }

    /// Stores what is not in the image yet, without pages of zeros if they need not be stored.
    fn keep_new(
        &mut self,
        w: &Wanted,
        bytes: &[u8],
        range: Range<usize>,
        at: usize,
        (parts, sums): &mut Cut,
    ) {
        if range.is_empty() {
            return;
        }
        let planned = self.plan.tables.extents[w.extent];
        let mut keep = |start: usize, end: usize| {
            let (start, end) = (range.start + start, range.start + end);
            self.make(w, start..end, at, self.offset, sums);
            if let Some((owner, first)) = self.plan.owner(w.extent) {
                let (start, len) = (first + w.skip + start as u64, (end - start) as u64);
                self.note_stored(owner, Run { start, len, file_offset: self.offset });
            }
            if let Some(dedup) = &mut self.dedup {
                let (skip, len) = (w.skip + start as u64, (end - start) as u64);
                let whole = start.div_ceil(PAGE_SIZE as usize)..end / PAGE_SIZE as usize;
                let place = Place { position: self.offset, len, extent: w.extent, skip };
                dedup.add(place, self.hashes.get(whole).unwrap_or_default());
            }
            let end_of_part = self.offset + (end - start) as u64;
            let begins = self.fresh || self.blocks.last().is_none_or(|b| end_of_part - b > MAX_BLOCK);
            if begins && self.plan.compress {
                self.blocks.push(self.offset);
            }
            self.fresh = false;
            parts.push(Part { at: at + start, len: end - start, position: self.offset, begins });
            self.offset += (end - start) as u64;
        };
        if planned.flags & DROP_ZERO == 0 {
            keep(0, range.len());
        } else {
            nonzero_runs(&bytes[range.clone()], &mut keep);
        }
    }

    /// Remembers what may be wanted again: memory, by other processes only.
    fn note_stored(&mut self, owner: Owner, run: Run) {
        if !matches!(owner, Owner::Memory(_)) || !self.plan.ancestors.is_empty() {
            self.stored.add(owner, run);
        }
    }

    /// Makes extents of a run of bytes.
    fn make(
        &mut self,
        w: &Wanted,
        range: Range<usize>,
        at: usize,
        file_offset: u64,
        sums: &mut Vec<Sum<Range<usize>>>,
    ) {
        let planned = self.plan.tables.extents[w.extent];
        let longest = match self.plan.sources.get(w.extent) {
            Some(Source::Memory { .. }) if self.plan.track => TRACKED_EXTENT,
            _ => CHUNK as u64,
        };
        let addr = |at: usize| planned.addr + w.skip + at as u64;
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + (longest - addr(start) % longest) as usize);
            let (extent, index) = (w.extent, self.made[w.extent].len());
            sums.push(Sum { extent, index, of: at + start..at + end });
            self.made[w.extent].push(Extent {
                addr: addr(start),
                len: (end - start) as u64,
                file_offset: file_offset + (start - range.start) as u64,
                flags: planned.flags & !(DROP_ZERO | UNCHANGED),
                ..Default::default()
            });
            start = end;
        }
    }

    /// Refers to bytes that are in the image already.
    fn keep_known(
        &mut self,
        w: &Wanted,
        range: Range<usize>,
        at: usize,
        file_offset: u64,
        (_, sums): &mut Cut,
    ) {
        let planned = self.plan.tables.extents[w.extent];
        let len = range.len() as u64;
        self.shared[usize::from(planned.flags & extent_flags::EMBEDDED_FILE != 0)] += len;
        // For the children of this process; what is known of a file, is known.
        if let Some((owner @ Owner::Memory(_), first)) = self.plan.owner(w.extent) {
            self.note_stored(owner, Run { start: first + w.skip + range.start as u64, len, file_offset });
        }
        self.make(w, range, at, file_offset, sums);
    }

    fn finish(mut self, blocks: Option<Blocks>) -> Streamed {
        let mut out = Streamed {
            end: self.offset,
            shared: self.shared,
            duplicates: self.duplicates,
            ..Default::default()
        };
        if let Some(parent) = &self.parent {
            // They are this image's own, wherever the blocks are.
            (0..2).for_each(|i| out.shared[i] -= parent.bytes[i]);
            let unchanged = &parent.unchanged;
            out.unread = unchanged.bytes;
            // Several extents may lead to the same bytes; of compressed blocks, all count.
            if unchanged.blocks.is_empty() {
                out.shared[0] += unchanged.bytes - unchanged.regions.taken;
            }
            let unread = if unchanged.regions.shared { unchanged.regions.taken } else { 0 };
            out.inherited = parent.shares.then(|| parent.bytes.iter().sum::<u64>() + unread);
        }
        if let Some(blocks) = blocks {
            (out.end, out.compression) = (blocks.end, blocks.record());
            // What is the parent's lies before all of these.
            self.made.iter_mut().flatten().for_each(|e| blocks.place(e));
        }
        if let Some(parent) = self.parent.as_ref().filter(|p| !p.unchanged.blocks.is_empty()) {
            let record = out.compression.get_or_insert_with(compress::no_blocks);
            compress::add(record, parent.unchanged.blocks.values().copied());
        }
        out.extents.reserve_exact(self.made.iter().map(Vec::len).sum());
        for made in self.made {
            out.first.push(out.extents.len() as u32);
            out.extents.extend(made);
        }
        out.first.push(out.extents.len() as u32);
        out
    }
}

/// Calls `run(start, end)` for each maximal run of pages that are not all zeros.
fn nonzero_runs(bytes: &[u8], run: &mut impl FnMut(usize, usize)) {
    let mut start = None;
    let mut at = 0;
    for page in bytes.chunks(PAGE_SIZE as usize) {
        match (is_zero(page), start) {
            (false, None) => start = Some(at),
            (true, Some(from)) => {
                run(from, at);
                start = None;
            }
            _ => {}
        }
        at += page.len();
    }
    if let Some(from) = start {
        run(from, at);
    }
}

/// Most pages differ from zero in their first bytes; the others are compared 64 bytes at a time.
fn is_zero(page: &[u8]) -> bool {
    let (blocks, tail) = page.as_chunks::<64>();
    blocks.iter().all(|b| b.iter().fold(0, |a, &x| a | x) == 0) && tail.iter().all(|&b| b == 0)
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
