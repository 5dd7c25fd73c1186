//! The memory of a task as the image has it.

use anyhow::{Context, Result, bail};
use ckpt_format::{Extent, FileIdent, Image, Mm, NONE, PAGE_SIZE, Task, Vma, VmaKind};
use ckpt_reader::{ImageFile, Scratch};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

/// What lies at some addresses.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    pub start: u64,
    pub end: u64,
    pub what: What<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// Bytes of an extent from `skip` on.
    Stored { extent: &'a Extent, skip: u64 },
    /// Never touched, or zeros.
    Zero,
    /// As in the file, from `offset` on, which is not in the image.
    File { file: &'a FileIdent, offset: u64 },
}

/// An address space.
pub struct Space<'a> {
    file: &'a ImageFile,
    image: &'a Image<'a>,
    pub mm: &'a Mm,
    pub vmas: &'a [Vma],
    /// The extent that was read last.
    last: Option<(u64, Vec<u8>)>,
    scratch: Scratch,
}

impl<'a> Space<'a> {
    pub fn new(file: &'a ImageFile, image: &'a Image<'a>, task: &Task) -> Result<Self> {
        let mm = Image::get(image.mms, task.mm, "address space")
            .with_context(|| format!("task {} has no memory (a zombie?)", task.pid))?;
        let vmas = Image::slice(image.vmas, mm.vmas, "VMAs")?;
        Ok(Self { file, image, mm, vmas, last: None, scratch: Scratch::default() })
    }

    /// What a VMA consists of, by address, without gaps.
    pub fn pieces(&self, v: &Vma) -> Result<Vec<Piece<'a>>> {
        let image = self.image;
        let mut stored: Vec<(u64, u64, &'a Extent)> = Vec::new();
        for range in [v.dirty, v.embedded] {
            let extents = Image::slice(image.extents, range, "extents")?;
            stored.extend(extents.iter().map(|e| (e.addr, e.addr.saturating_add(e.len), e)));
        }
        let file = Image::get(image.files, v.file, "file").ok();
        let is_object = v.kind == VmaKind::SharedObject as u32;
        if let Some(object) = file.filter(|_| is_object) {
            let extents = Image::slice(image.extents, object.contents, "extents")?;
            // Extents of a file count from its beginning.
            let at = |offset: u64| v.start.wrapping_sub(v.file_offset).wrapping_add(offset);
            let within = extents.iter().filter(|e| {
                e.addr.saturating_add(e.len) > v.file_offset && e.addr < v.file_offset + (v.end - v.start)
            });
            stored.extend(within.map(|e| (at(e.addr), at(e.addr.saturating_add(e.len)), e)));
        }
        stored.sort_unstable_by_key(|s| s.0);
        let backed = file.filter(|f| !is_object && v.file != NONE && f.path.len != 0);
        let rest = |start: u64| match backed {
            Some(file) => What::File { file, offset: v.file_offset.wrapping_add(start - v.start) },
            None => What::Zero,
        };
        let mut all = Vec::with_capacity(2 * stored.len() + 1);
        let mut at = v.start;
        for (start, end, extent) in stored {
            let (from, to) = (start.max(at), end.min(v.end));
            if from >= to {
                continue;
            }
            if from > at {
                all.push(Piece { start: at, end: from, what: rest(at) });
            }
            all.push(Piece {
                start: from,
                end: to,
                what: What::Stored { extent, skip: from.wrapping_sub(start) },
            });
            at = to;
        }
        if at < v.end {
            all.push(Piece { start: at, end: v.end, what: rest(at) });
        }
        Ok(all)
    }

    /// The bytes of a piece.
    ///
    /// # Errors
    /// When they are damaged, or in a file that is missing or has changed.
    pub fn read(&mut self, piece: &Piece<'a>) -> Result<Vec<u8>> {
        let len = (piece.end - piece.start) as usize;
        match piece.what {
            What::Zero => Ok(vec![0; len]),
            What::Stored { extent, skip } => {
                let known =
                    self.last.as_ref().is_some_and(|(addr, _)| *addr == std::ptr::from_ref(extent) as u64);
                if !known {
                    let bytes = self.file.contents(extent, &mut self.scratch)?.to_vec();
                    self.last = Some((std::ptr::from_ref(extent) as u64, bytes));
                }
                let bytes = self.last.as_ref().and_then(|(_, b)| b.get(skip as usize..skip as usize + len));
                Ok(bytes.context("an extent is shorter than it says")?.to_vec())
            }
            What::File { file, offset } => self.read_file(file, offset, len),
        }
    }

    fn read_file(&self, ident: &FileIdent, offset: u64, len: usize) -> Result<Vec<u8>> {
        let path = self.image.text(ident.path);
        let file =
            File::open(path).with_context(|| format!("these bytes are in {path}, not in the image"))?;
        let meta = file.metadata()?;
        let mtime = meta.mtime().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec());
        if (meta.len(), mtime) != (ident.size, ident.mtime_ns) {
            bail!("these bytes are in {path}, not in the image, and that file has changed");
        }
        let mut bytes = vec![0; len];
        let have = meta.len().saturating_sub(offset).min(len as u64) as usize;
        file.read_exact_at(&mut bytes[..have], offset)?;
        Ok(bytes)
    }

    /// The VMA at an address.
    pub fn vma(&self, addr: u64) -> Option<&'a Vma> {
        self.vmas.iter().find(|v| v.start <= addr && addr < v.end)
    }
}

impl Piece<'_> {
    /// Cut to at most `len` bytes; the rest.
    #[must_use]
    pub fn split(self, len: u64) -> (Self, Option<Self>) {
        let at = self.start.saturating_add(len).min(self.end);
        let rest = (at < self.end).then(|| self.from(at));
        (Self { end: at, ..self }, rest)
    }

    /// Without what lies before `at`.
    #[must_use]
    pub fn from(self, at: u64) -> Self {
        let gone = at - self.start;
        let what = match self.what {
            What::Stored { extent, skip } => What::Stored { extent, skip: skip + gone },
            What::Zero => What::Zero,
            What::File { file, offset } => What::File { file, offset: offset + gone },
        };
        Self { start: at, end: self.end, what }
    }
}

/// Calls `f` with what a piece holds, in chunks of whole pages.
pub fn in_chunks<'a>(piece: Piece<'a>, mut f: impl FnMut(Piece<'a>) -> Result<()>) -> Result<()> {
    const CHUNK: u64 = 256 * PAGE_SIZE;
    let mut rest = Some(piece);
    while let Some(now) = rest {
        let (first, after) = now.split(CHUNK);
        f(first)?;
        rest = after;
    }
    Ok(())
}
