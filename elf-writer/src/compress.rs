//! Compresses the contents on their way to the file, with all CPUs.
//!
//! The reader lays contents out as if they were not compressed; what it calls offsets are *positions*. Here
//! each block of up to [`MAX_BLOCK`] gets its place in the file, in the order of the positions, as soon as
//! its length is known; [`Blocks::place`] translates when all is written.

use crate::stream::{Filled, Part, pwritev_all};
use ckpt_format::content::{MAX_BLOCK, METHOD_LZ4};
use ckpt_format::{Compression, Extent, PAGE_SIZE, extent_flags};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Buffers in use: a process of this many times 256 KiB is read, and may run on, before the compression has
/// caught up.
pub const BUFFERS: usize = 96;
/// More threads do not help: the reader is one.
const MAX_THREADS: usize = 8;

/// How many threads compress.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)
}

/// A block that has its place.
#[derive(Clone, Copy, Debug)]
struct Block {
    position: u64,
    len: u32,
    file_offset: u64,
    /// 0: not compressed.
    stored_len: u32,
}

/// Where everything went.
#[derive(Debug, Default)]
pub struct Blocks {
    blocks: Vec<Block>,
    /// End of the contents in the file.
    pub end: u64,
    /// Number of the next buffer to be placed.
    next: u64,
    failed: bool,
}

impl Blocks {
    /// Turns the position of an extent into its place in the file.
    pub fn place(&self, e: &mut Extent) {
        let after = self.blocks.partition_point(|b| b.position <= e.file_offset);
        let Some(b) = after.checked_sub(1).map(|i| self.blocks[i]) else { return };
        let skip = e.file_offset - b.position;
        debug_assert!(skip + e.len <= u64::from(b.len));
        if b.stored_len == 0 {
            e.file_offset = b.file_offset + skip;
            return;
        }
        e.file_offset = b.file_offset;
        e.flags |= extent_flags::COMPRESSED;
        (e.stored_len, e.block_len, e.skip) = (b.stored_len, b.len, skip as u32);
    }

    /// The record of the image; `None` if nothing became smaller.
    pub fn record(&self) -> Option<Compression> {
        let compressed = self.blocks.iter().filter(|b| b.stored_len > 0);
        let mut record = no_blocks();
        add(&mut record, compressed.map(|b| [u64::from(b.len), u64::from(b.stored_len)]));
        (record.blocks > 0).then_some(record)
    }
}

/// A record of no blocks.
pub fn no_blocks() -> Compression {
    Compression { method: METHOD_LZ4, ..Compression::default() }
}

/// Adds blocks, of which the lengths before and after are given.
pub fn add(record: &mut Compression, blocks: impl Iterator<Item = [u64; 2]>) {
    for [len, stored] in blocks {
        record.blocks += 1;
        record.block_bytes += len;
        record.stored_bytes += stored;
    }
}

/// What the compressing threads share.
pub struct Order {
    blocks: Mutex<Blocks>,
    turn: Condvar,
}

impl Order {
    pub fn new(start: u64) -> Self {
        Self { blocks: Mutex::new(Blocks { end: start, ..Blocks::default() }), turn: Condvar::new() }
    }

    pub fn finish(self) -> Blocks {
        self.blocks.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the blocks of buffer `number` their places, when it is its turn; `None` if another has failed.
    fn place(&self, number: u64, packed: &mut [Packed]) -> Option<()> {
        let mut all = self.lock();
        while all.next != number && !all.failed {
            all = self.turn.wait(all).unwrap_or_else(PoisonError::into_inner);
        }
        if all.failed {
            return None;
        }
        for p in packed {
            let block = &mut p.block;
            let align = if block.stored_len == 0 { PAGE_SIZE } else { 1 };
            block.file_offset = all.end.next_multiple_of(align);
            let len = if block.stored_len == 0 { block.len } else { block.stored_len };
            all.end = block.file_offset + u64::from(len);
            all.blocks.push(*block);
        }
        all.next += 1;
        self.turn.notify_all();
        Some(())
    }
}

/// Others that wait for their turn must not wait for a thread that has ended.
struct FailOnDrop<'a>(&'a Order, bool);

impl Drop for FailOnDrop<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.lock().failed = true;
            self.0.turn.notify_all();
        }
    }
}

/// A block in one of the thread's own buffers: `data[start..]`, as long as it is stored.
struct Packed {
    block: Block,
    start: usize,
}

/// One of the threads: compresses and writes buffers until there are no more.
pub fn work<'b>(
    file: &File,
    order: &Order,
    full: &Mutex<Receiver<Filled<'b>>>,
    free: &Sender<&'b mut [u8]>,
) -> io::Result<()> {
    let mut guard = FailOnDrop(order, true);
    let mut table = CompressTable::large();
    let (mut plain, mut data) = (Vec::new(), Vec::new());
    let mut packed: Vec<Packed> = Vec::new();
    loop {
        let next = full.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(filled) = next else { break };
        packed.clear();
        data.clear();
        for parts in filled.parts.chunk_by(|_, b| !b.begins) {
            packed.push(pack(filled.buf, parts, &mut table, &mut plain, &mut data)?);
        }
        if order.place(filled.number, &mut packed).is_none() {
            break;
        }
        // The reader may have finished.
        let _ = free.send(filled.buf);
        for group in packed.chunk_by(|a, b| end_in_file(a) == b.block.file_offset) {
            let start = group[0].start;
            let end = group.last().map_or(start, |p| p.start + stored(&p.block));
            pwritev_all(file, vec![IoSlice::new(&data[start..end])], group[0].block.file_offset)?;
        }
    }
    guard.1 = false;
    Ok(())
}

fn stored(block: &Block) -> usize {
    if block.stored_len == 0 { block.len as usize } else { block.stored_len as usize }
}

fn end_in_file(p: &Packed) -> u64 {
    p.block.file_offset + stored(&p.block) as u64
}

/// Appends a block to `data`: compressed, unless it would not become at least an eighth smaller.
fn pack(
    buf: &[u8],
    parts: &[Part],
    table: &mut CompressTable,
    plain: &mut Vec<u8>,
    data: &mut Vec<u8>,
) -> io::Result<Packed> {
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    let len = (last.position + last.len as u64 - first.position) as usize;
    debug_assert!(len as u64 <= MAX_BLOCK);
    let block = match parts {
        [only] => &buf[only.at..only.at + only.len],
        _ => {
            // With the gaps that alignment makes.
            plain.clear();
            plain.resize(len, 0);
            for p in parts {
                let to = (p.position - first.position) as usize;
                plain[to..to + p.len].copy_from_slice(&buf[p.at..p.at + p.len]);
            }
            &plain[..]
        }
    };
    let start = data.len();
    data.resize(start + get_maximum_output_size(len), 0);
    let compressed = compress_into_with_table(block, &mut data[start..], table)
        .map_err(|e| io::Error::other(format!("cannot compress: {e}")))?;
    let worth = compressed + len / 8 < len;
    if worth {
        data.truncate(start + compressed);
    } else {
        data.truncate(start);
        data.extend_from_slice(block);
    }
    let stored_len = if worth { compressed as u32 } else { 0 };
    Ok(Packed {
        block: Block { position: first.position, len: len as u32, file_offset: 0, stored_len },
        start,
    })
}
