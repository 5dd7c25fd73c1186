//! Finding the metadata region in an image file.

use anyhow::{Context, Result, bail, ensure};
use ckpt_format::{EI_PAD_MAGIC, Image, Meta};
use object::elf::{FileHeader64, PT_NOTE, ProgramHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{LittleEndian, pod};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

type Ehdr = FileHeader64<LittleEndian>;
type Phdr = ProgramHeader64<LittleEndian>;

/// An image on disk with its metadata in memory.
#[derive(Debug)]
pub struct ImageFile {
    pub path: PathBuf,
    pub file: File,
    /// Metadata region; u64 for the alignment that the records need.
    meta: Vec<u64>,
    meta_len: usize,
}

impl ImageFile {
    /// Reads ELF header, program headers and the `PT_NOTE` segment.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
        let size = file.metadata()?.len();
        let mut head = vec![0; size.min(65536) as usize];
        file.read_exact_at(&mut head, 0).with_context(|| format!("cannot read {name}"))?;
        let ehdr = Ehdr::parse(&*head).with_context(|| format!("{name} is not an ELF file"))?;
        ensure!(head.get(9..16) == Some(&EI_PAD_MAGIC), "{name} is not a ckpt image (no magic in EI_PAD)");
        let phdrs: &[Phdr] = ehdr
            .program_headers(LittleEndian, &*head)
            .with_context(|| format!("{name}: bad program headers"))?;
        let Some(note) = phdrs.iter().find(|p| p.p_type(LittleEndian) == PT_NOTE) else {
            bail!("{name} is damaged: no PT_NOTE segment");
        };
        // The segment starts with the first note, the region a little before it, for the alignment.
        let gap = Meta::FIRST_NOTE as u64;
        let (offset, len) = (
            note.p_offset(LittleEndian).saturating_sub(gap),
            note.p_filesz(LittleEndian).saturating_add(gap),
        );
        ensure!(
            offset.checked_add(len).is_some_and(|end| end <= size),
            "{name} is truncated: its notes end at {}, the file at {size}",
            offset.saturating_add(len)
        );
        let meta_len = usize::try_from(len)?;
        let mut meta = vec![0u64; meta_len.div_ceil(8)];
        let bytes = &mut pod::bytes_of_slice_mut(&mut meta)[..meta_len];
        file.read_exact_at(bytes, offset).with_context(|| format!("cannot read the notes of {name}"))?;
        let this = Self { path: path.into(), file, meta, meta_len };
        let need = this.image()?.header.image_size;
        ensure!(size >= need, "{name} is truncated: {size} bytes, {need} expected");
        Ok(this)
    }

    /// The tables; header and tables are verified.
    pub fn image(&self) -> Result<Image<'_>> {
        let bytes = &pod::bytes_of_slice(&self.meta)[..self.meta_len];
        Image::parse(bytes).map_err(|e| anyhow::anyhow!("{}: {e}", self.path.display()))
    }
}
