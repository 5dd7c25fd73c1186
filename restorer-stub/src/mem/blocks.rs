//! Contents that are compressed: one block is read and decompressed at a time.

use crate::report::{Error, On, Result};
use crate::sys::{Fd, fd};
use ckpt_format::Extent;
use ckpt_format::content::{Block, MAX_BLOCK, decompress};

/// Bytes that one who decompresses needs: for a block, and for its compressed form.
pub const ROOM: usize = 2 * MAX_BLOCK as usize;

/// One who decompresses.
pub struct Blocks<'a> {
    stored: &'a mut [u8],
    block: &'a mut [u8],
    /// What is in `block`: several extents in a row may be in one.
    held: Option<(u64, usize)>,
}

impl<'a> Blocks<'a> {
    /// With [`ROOM`] bytes.
    pub fn new(room: &'a mut [u8]) -> Self {
        let (stored, block) = room.split_at_mut(MAX_BLOCK as usize);
        Self { stored, block, held: None }
    }

    /// The bytes of an extent, which are not compared with their checksum here.
    pub fn bytes(&mut self, image: Fd, e: &Extent) -> Result<&[u8]> {
        let block = checked(e)?;
        let id = (block.file_offset, block.block_len);
        if self.held != Some(id) {
            self.held = None;
            let stored = read(image, &block, self.stored).map_err(|e2| e2.on(on(e)))?;
            if !decompress(stored, &mut self.block[..block.block_len]) {
                return Err(damaged(e));
            }
            self.held = Some(id);
        }
        Ok(&self.block[block.start..block.end])
    }

    /// The same into `to`, which is as long as the extent.
    pub fn copy(&mut self, image: Fd, e: &Extent, to: &mut [u8]) -> Result<()> {
        let block = checked(e)?;
        // Nobody else's bytes are in it: there is no need to keep it.
        if block.start == 0 && block.end == block.block_len && to.len() == block.block_len {
            let stored = read(image, &block, self.stored).map_err(|e2| e2.on(on(e)))?;
            return if decompress(stored, to) { Ok(()) } else { Err(damaged(e)) };
        }
        to.copy_from_slice(self.bytes(image, e)?);
        Ok(())
    }
}

fn on(e: &Extent) -> On {
    On::Range(e.addr, e.addr.saturating_add(e.len))
}

fn checked(e: &Extent) -> Result<Block> {
    e.block().ok_or(Error::new("the image is damaged: bad lengths of the compressed contents of").on(on(e)))
}

fn damaged(e: &Extent) -> Error {
    Error::new("the image is damaged: cannot decompress the contents of")
        .on(on(e))
        .remedy("copy or dump it again")
}

fn read<'a>(image: Fd, block: &Block, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let stored = &mut buffer[..block.stored_len];
    fd::pread_exact(image, stored, block.file_offset)
        .map_err(Error::os("cannot read the compressed contents of"))?;
    Ok(stored)
}
