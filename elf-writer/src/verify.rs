//! Reading an image file, and checking every checksum in it.

use ckpt_format::{Extent, FormatError, Header, Image, Meta, PAGE_SIZE, checksum};
use object::LittleEndian as Le;
use object::elf::{FileHeader64, PT_NOTE, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use zerocopy::IntoBytes;

/// Why an image is not good.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("cannot read the image: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Format(#[from] FormatError),
    #[error(
        "the image is damaged: {len} bytes for address {addr:#x} (at offset {offset:#x}) do not match their checksum"
    )]
    Extent { addr: u64, len: u64, offset: u64 },
}

/// The metadata of an image file in memory.
pub struct ImageFile {
    /// u64: records are viewed in place and want 8-byte alignment.
    region: Vec<u64>,
    len: usize,
}

impl ImageFile {
    /// Reads the metadata region. Nothing is verified yet but that the file is as long as it says.
    ///
    /// # Errors
    /// When it is not an image or shorter than its header says.
    pub fn read(file: &File) -> Result<Self, VerifyError> {
        let have = file.metadata()?.len();
        let mut head = vec![0u8; have.min(PAGE_SIZE) as usize];
        file.read_exact_at(&mut head, 0)?;
        let (offset, len) = notes_at(&head).ok_or(FormatError::NotAnImage)?;
        let first = Meta::FIRST_NOTE as u64;
        let (start, len) = (offset.checked_sub(first).ok_or(FormatError::NotAnImage)?, len + first);
        let need = start.checked_add(len).ok_or(FormatError::NotAnImage)?;
        if have < need {
            return Err(FormatError::Truncated { have, need }.into());
        }
        let len = len as usize;
        let mut region = vec![0u64; len.div_ceil(8)];
        file.read_exact_at(&mut region.as_mut_bytes()[..len], start)?;
        let out = Self { region, len };
        let need = out.image()?.header.image_size;
        if have < need {
            return Err(FormatError::Truncated { have, need }.into());
        }
        Ok(out)
    }

    /// The tables, with all checksums of the metadata verified.
    ///
    /// # Errors
    /// When the metadata is damaged or of another version.
    pub fn image(&self) -> Result<Image<'_>, FormatError> {
        Image::parse(&self.region.as_bytes()[..self.len])
    }
}

/// Offset and length of the PT_NOTE segment.
fn notes_at(head: &[u8]) -> Option<(u64, u64)> {
    let header = FileHeader64::<Le>::parse(head).ok()?;
    let phdrs: &[ProgramHeader64<Le>] = header.program_headers(Le, head).ok()?;
    let note = phdrs.iter().find(|p| p.p_type.get(Le) == PT_NOTE)?;
    Some((note.p_offset(Le), note.p_filesz(Le)))
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub extents: usize,
    pub bytes: u64,
}

/// Checks every checksum of an image: header, tables, contents.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(file: &File) -> Result<Verified, VerifyError> {
    let meta = ImageFile::read(file)?;
    let image = meta.image()?;
    let mut out = Verified::default();
    let mut buf = Vec::new();
    for e in image.extents {
        check_extent(file, image.header, e, &mut buf)?;
        out.extents += 1;
        out.bytes += e.len;
    }
    Ok(out)
}

fn check_extent(file: &File, header: &Header, e: &Extent, buf: &mut Vec<u8>) -> Result<(), VerifyError> {
    let end = e.file_offset.checked_add(e.len);
    if e.len > ckpt_format::content::MAX_EXTENT || end.is_none_or(|end| end > header.image_size) {
        return Err(FormatError::Reference("extent").into());
    }
    buf.resize(e.len as usize, 0);
    file.read_exact_at(buf, e.file_offset)?;
    if checksum(buf) != e.checksum {
        return Err(VerifyError::Extent { addr: e.addr, len: e.len, offset: e.file_offset });
    }
    Ok(())
}
