//! The memory that contents pass through on their way to the file.

use crate::WriteError;
use crate::stream::{BUFFERS, CHUNK, Filled};
use memmap2::{Advice, MmapMut};
use std::io;
use std::sync::mpsc::{Receiver, SyncSender};

/// Contents of at most so many bytes never wait for the writer.
pub const AT_ONCE: u64 = 32 << 20;
/// Buffers for that; where pieces do not fill them, the reader has to wait after all.
pub const MOST_BUFFERS: usize = AT_ONCE as usize / CHUNK * 5 / 4;

/// Buffers that wait for contents, all in one piece of memory.
pub struct Room(MmapMut);

impl Room {
    /// Room for [`AT_ONCE`]. Physical memory is taken now for so many `bytes` of contents, if they will be read
    /// as a whole: a page fault costs about as much as filling the page.
    ///
    /// # Errors
    /// As mmap(2).
    pub fn new(bytes: u64) -> io::Result<Self> {
        let map = MmapMut::map_anon(MOST_BUFFERS * CHUNK)?;
        // Hints: kernels without huge pages, or before Linux 5.14, do without.
        let _ = map.advise(Advice::HugePage);
        let needed = if bytes > AT_ONCE { BUFFERS * CHUNK } else { bytes as usize };
        let _ = map.advise_range(Advice::PopulateWrite, 0, needed.next_multiple_of(CHUNK).min(map.len()));
        Ok(Self(map))
    }
}

/// The reader's end of the circle.
pub struct Buffers<'b> {
    unused: Vec<&'b mut [u8]>,
    /// How many go round.
    used: usize,
    free: Receiver<&'b mut [u8]>,
    pub full: SyncSender<Filled<'b>>,
}

impl<'b> Buffers<'b> {
    pub fn new(room: &'b mut Room, free: Receiver<&'b mut [u8]>, full: SyncSender<Filled<'b>>) -> Self {
        Self { unused: room.0.chunks_mut(CHUNK).rev().collect(), used: 0, free, full }
    }

    /// A buffer, when at most so many go round. An error means that the writer failed; it reports why.
    pub fn take(&mut self, most: usize) -> Result<&'b mut [u8], WriteError> {
        loop {
            // Rather one that was used just before, whose memory is in the cache.
            let returned = if self.used < most { self.free.try_recv().ok() } else { self.free.recv().ok() };
            match returned {
                Some(buf) if self.used <= most => return Ok(buf),
                // More than these would not stay in the cache.
                Some(buf) => self.unused.push(buf),
                None if self.used < most => {
                    self.used += 1;
                    return self.unused.pop().ok_or(WriteError::Interrupted);
                }
                None => return Err(WriteError::Interrupted),
            }
            self.used -= 1;
        }
    }
}
