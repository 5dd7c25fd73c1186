//! Reading an image file: its tables, the bytes that it stores, every checksum in it. Executes nothing, and
//! trusts nothing: whatever is in the file, the worst that happens is an error.

pub mod core_notes;
pub mod older;

use ckpt_format::content::{MAX_EXTENT, decompress};
use ckpt_format::{Extent, FormatError, Image, Meta, checksum, is_image};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use object::LittleEndian as Le;
use object::elf::{FileHeader64, PT_NOTE, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use zerocopy::IntoBytes;

/// Why an image is not good.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read the image: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Format(#[from] FormatError),
    #[error(
        "the image is damaged: {len} bytes for address {addr:#x} (at offset {offset:#x}) do not match their checksum"
    )]
    Extent { addr: u64, len: u64, offset: u64 },
    #[error(
        "the image is damaged: {len} compressed bytes at offset {offset:#x}, for address {addr:#x}, cannot be decompressed"
    )]
    Compressed { addr: u64, len: u64, offset: u64 },
}

/// Buffers for reading extents.
#[derive(Debug, Default)]
pub struct Scratch {
    bytes: Vec<u8>,
    stored: Vec<u8>,
    /// The compressed block that is in `bytes`: several extents in a row may be in one.
    block: Option<(u64, usize)>,
}

impl Scratch {
    /// The bytes of an extent of an image of `size` bytes, decompressed and verified.
    ///
    /// # Errors
    /// When they cannot be read or decompressed, or do not match their checksum.
    pub fn contents(&mut self, file: &File, size: u64, e: &Extent) -> Result<&[u8], ReadError> {
        let range = self.read(file, size, e)?;
        let bytes = &self.bytes[range];
        if checksum(bytes) != e.checksum {
            return Err(ReadError::Extent { addr: e.addr, len: e.len, offset: e.file_offset });
        }
        Ok(bytes)
    }

    /// Where in `bytes` they are.
    fn read(&mut self, file: &File, size: u64, e: &Extent) -> Result<Range<usize>, ReadError> {
        let end = e.file_offset.checked_add(e.stored());
        if e.len > MAX_EXTENT || end.is_none_or(|end| end > size) {
            return Err(FormatError::Reference("extent").into());
        }
        if !e.is_compressed() {
            self.block = None;
            self.bytes.resize(e.len as usize, 0);
            file.read_exact_at(&mut self.bytes, e.file_offset)?;
            return Ok(0..self.bytes.len());
        }
        let block = e.block().ok_or(FormatError::Reference("extent"))?;
        let id = (block.file_offset, block.block_len);
        if self.block != Some(id) {
            self.block = None;
            self.stored.resize(block.stored_len, 0);
            self.bytes.resize(block.block_len, 0);
            file.read_exact_at(&mut self.stored, block.file_offset)?;
            if !decompress(&self.stored, &mut self.bytes) {
                return Err(ReadError::Compressed { addr: e.addr, len: e.stored(), offset: e.file_offset });
            }
            self.block = Some(id);
        }
        Ok(block.start..block.end)
    }
}

/// An image file, with its metadata in memory.
#[derive(Debug)]
pub struct ImageFile {
    file: File,
    /// u64: records are viewed in place and want 8-byte alignment.
    region: Vec<u64>,
    len: usize,
    /// Length of the image as its header has it.
    size: u64,
}

impl ImageFile {
    /// # Errors
    /// As [`Self::read`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::read(File::open(path)?)
    }

    /// Reads the metadata region, and verifies it.
    ///
    /// # Errors
    /// When it is not an image, is of another version, shorter than its header says, or its metadata are
    /// damaged.
    pub fn read(file: File) -> Result<Self, ReadError> {
        let have = file.metadata()?.len();
        // The program headers lie behind the ELF header, one page at most (elf-writer).
        let mut head = vec![0u8; have.min(1 << 16) as usize];
        file.read_exact_at(&mut head, 0)?;
        let (offset, len) = notes_at(&head).ok_or(FormatError::NotAnImage)?;
        let first = Meta::FIRST_NOTE as u64;
        let start = offset.checked_sub(first).ok_or(FormatError::NotAnImage)?;
        let len = len.checked_add(first).ok_or(FormatError::NotAnImage)?;
        let need = start.checked_add(len).ok_or(FormatError::NotAnImage)?;
        if have < need {
            return Err(FormatError::Truncated { have, need }.into());
        }
        let len = usize::try_from(len).map_err(|_| FormatError::NotAnImage)?;
        let mut region = vec![0u64; len.div_ceil(8)];
        file.read_exact_at(&mut region.as_mut_bytes()[..len], start)?;
        let older = older::upgrade(&region.as_bytes()[..len])?;
        let (len, region) = older.map_or((len, region), |new| (new.len() * 8, new));
        let mut out = Self { file, region, len, size: 0 };
        out.size = out.image()?.header.image_size;
        if have < out.size {
            return Err(FormatError::Truncated { have, need: out.size }.into());
        }
        Ok(out)
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// The metadata region, from which [`Self::image`] is parsed.
    pub fn region(&self) -> &[u8] {
        &self.region.as_bytes()[..self.len]
    }

    /// The tables, with all checksums of the metadata verified.
    ///
    /// # Errors
    /// None for what [`Self::read`] has returned.
    pub fn image(&self) -> Result<Image<'_>, FormatError> {
        Image::parse(self.region())
    }

    /// The bytes of an extent, decompressed and verified.
    ///
    /// # Errors
    /// As [`Scratch::contents`].
    pub fn contents<'b>(&self, e: &Extent, scratch: &'b mut Scratch) -> Result<&'b [u8], ReadError> {
        scratch.contents(&self.file, self.size, e)
    }

    /// Asks the kernel to read the bytes of an extent soon, without waiting for that.
    pub fn will_need(&self, e: &Extent) {
        let (offset, len) = (e.file_offset as i64, e.stored() as i64);
        // Only an advice.
        let _ = posix_fadvise(&self.file, offset, len, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
    }

    /// Checks every checksum of the contents, and goes on after damage.
    ///
    /// # Errors
    /// What `damage` returns.
    pub fn verify<E>(&self, mut damage: impl FnMut(ReadError) -> Result<(), E>) -> Result<Verified, E> {
        let mut out = Verified::default();
        let mut scratch = Scratch::default();
        // Verified when it was opened.
        let extents = self.image().map_or(&[][..], |image| image.extents);
        for e in extents {
            match self.contents(e, &mut scratch) {
                Ok(bytes) => {
                    out.extents += 1;
                    out.bytes += bytes.len() as u64;
                }
                Err(error) => damage(error)?,
            }
        }
        Ok(out)
    }
}

/// Offset and length of the PT_NOTE segment of an image.
fn notes_at(head: &[u8]) -> Option<(u64, u64)> {
    let header = FileHeader64::<Le>::parse(head).ok()?;
    if !is_image(head) {
        return None;
    }
    let phdrs: &[ProgramHeader64<Le>] = header.program_headers(Le, head).ok()?;
    let note = phdrs.iter().find(|p| p.p_type.get(Le) == PT_NOTE)?;
    Some((note.p_offset(Le), note.p_filesz(Le)))
}

/// What was checked and found good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub extents: usize,
    pub bytes: u64,
}

/// Checks every checksum of an image: header, tables, contents.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(file: File) -> Result<Verified, ReadError> {
    ImageFile::read(file)?.verify(Err)
}
