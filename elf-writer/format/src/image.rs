//! Reading an image: bounds-checked, checksummed views. Never panics on hostile input.

use crate::header::dir_flags;
use crate::*;
use zerocopy::FromBytes;

/// Why an image is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// Shorter than its header says (or than a header).
    Truncated { have: u64, need: u64 },
    /// Not an image: no header note.
    NotAnImage,
    /// Written by a newer dumper.
    Version(u32),
    /// A checksum does not match: [`NoteType`] as number.
    Checksum(u32),
    /// Records with fields that this reader does not know.
    Newer(u32),
    /// Records of an older writer, which [`Meta::parse`] does not take; `ckpt-reader` does.
    Older(u32),
    /// A critical note that this reader does not know.
    UnknownCritical(u32),
    /// A reference outside its table.
    Reference(&'static str),
    /// Compressed in a way that this reader does not know.
    Compression(u32),
}

impl core::fmt::Display for FormatError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Truncated { have, need } => {
                write!(f, "the image is truncated: {have} bytes, {need} expected")
            }
            Self::NotAnImage => f.write_str("not a ckpt image (no header note)"),
            Self::Version(v) => write!(
                f,
                "the image has format version {v}, this program knows {FORMAT_VERSION}: use a newer one"
            ),
            Self::Checksum(n) => write!(f, "the image is damaged: checksum of note {n:#x} does not match"),
            Self::Newer(n) => {
                write!(
                    f,
                    "the image needs a newer program: records of note {n:#x} have fields that are unknown"
                )
            }
            Self::Older(n) => {
                write!(f, "the image is of an older format (note {n:#x}); ckpt-restore can restore it")
            }
            Self::UnknownCritical(n) => {
                write!(f, "the image needs a newer program: critical note {n:#x} is unknown")
            }
            Self::Compression(method) => {
                write!(f, "the image needs a newer program: compression method {method} is unknown")
            }
            Self::Reference(what) => write!(f, "the image is damaged: bad reference to {what}"),
        }
    }
}

impl core::error::Error for FormatError {}

/// The metadata region of an image (contents of its `PT_NOTE`), header and directory verified.
#[derive(Clone, Copy)]
pub struct Meta<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    dir: &'a [DirEntry],
}

/// Known note types, for the "unknown critical" rule.
const KNOWN: core::ops::RangeInclusive<u32> = 0x100..=0x118;

impl<'a> Meta<'a> {
    /// Length of the ELF note header and padded owner name that precede each description.
    pub const NOTE_HEADER: usize = 20;
    /// Descriptions are 8-byte aligned, so the first note starts 4 bytes into the region.
    pub const FIRST_NOTE: usize = 4;

    /// Checks header, directory and (each table's) checksums.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let at = Self::FIRST_NOTE + Self::NOTE_HEADER;
        let need = (at + size_of::<Header>()) as u64;
        let body = bytes.get(at..).ok_or(FormatError::Truncated { have: bytes.len() as u64, need })?;
        let owner = &bytes[Self::FIRST_NOTE + 12..Self::FIRST_NOTE + 17];
        let n_type = &bytes[Self::FIRST_NOTE + 8..Self::FIRST_NOTE + 12];
        if owner != NOTE_OWNER || n_type != (NoteType::Header as u32).to_le_bytes() {
            return Err(FormatError::NotAnImage);
        }
        let (header, rest) = Header::ref_from_prefix(body).map_err(|_| FormatError::NotAnImage)?;
        if header.version != FORMAT_VERSION {
            return Err(FormatError::Version(header.version));
        }
        same_size(NoteType::Header, header.header_size, size_of::<Header>())?;
        let dir_bytes = (header.dir_count as usize)
            .checked_mul(size_of::<DirEntry>())
            .and_then(|n| rest.get(..n))
            .ok_or(FormatError::Checksum(NoteType::Header as u32))?;
        let dir = <[DirEntry]>::ref_from_bytes(dir_bytes)
            .map_err(|_| FormatError::Checksum(NoteType::Header as u32))?;
        if Self::header_checksum(header, dir_bytes) != header.checksum {
            return Err(FormatError::Checksum(NoteType::Header as u32));
        }
        if (bytes.len() as u64) < header.meta_len {
            return Err(FormatError::Truncated { have: bytes.len() as u64, need: header.meta_len });
        }
        let meta = Self { bytes, header, dir };
        meta.verify_tables()?;
        Ok(meta)
    }

    /// What [`Header::checksum`] must be.
    pub fn header_checksum(header: &Header, dir: &[u8]) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        let h = Header { checksum: 0, ..*header };
        hash.update(zerocopy::IntoBytes::as_bytes(&h));
        hash.update(dir);
        hash.digest()
    }

    fn verify_tables(&self) -> Result<(), FormatError> {
        for entry in self.dir {
            let known = KNOWN.contains(&entry.note);
            if !known && entry.flags & dir_flags::CRITICAL != 0 {
                return Err(FormatError::UnknownCritical(entry.note));
            }
            let bytes = self.desc(entry).ok_or(FormatError::Checksum(entry.note))?;
            if checksum(bytes) != entry.checksum {
                return Err(FormatError::Checksum(entry.note));
            }
        }
        Ok(())
    }

    fn desc(&self, entry: &DirEntry) -> Option<&'a [u8]> {
        let start = usize::try_from(entry.offset).ok()?;
        let end = start.checked_add(usize::try_from(entry.len).ok()?)?;
        self.bytes.get(start..end)
    }

    pub fn header(&self) -> &'a Header {
        self.header
    }

    pub fn directory(&self) -> &'a [DirEntry] {
        self.dir
    }

    /// Bytes of one note; `None` when it is absent.
    pub fn note(&self, note: NoteType) -> Option<&'a [u8]> {
        self.dir.iter().find(|e| e.note == note as u32).and_then(|e| self.desc(e))
    }

    /// Records of one table; an absent table is empty.
    pub fn table<T: Record>(&self, note: NoteType) -> Result<&'a [T], FormatError> {
        let Some(entry) = self.dir.iter().find(|e| e.note == note as u32) else { return Ok(&[]) };
        let bytes = self.desc(entry).ok_or(FormatError::Checksum(note as u32))?;
        same_size(note, entry.record_size, size_of::<T>())?;
        <[T]>::ref_from_bytes(bytes).map_err(|_| FormatError::Checksum(note as u32))
    }
}

/// Older and newer writers have records of other sizes.
fn same_size(note: NoteType, written: u32, own: usize) -> Result<(), FormatError> {
    match (written as usize).cmp(&own) {
        core::cmp::Ordering::Equal => Ok(()),
        core::cmp::Ordering::Less => Err(FormatError::Older(note as u32)),
        core::cmp::Ordering::Greater => Err(FormatError::Newer(note as u32)),
    }
}

/// Size of the records of a note as they are now; 1 for [`NoteType::Blobs`], `None` for what is unknown.
pub fn record_size(note: u32) -> Option<usize> {
    const SIZES: [(NoteType, usize); 25] = [
        (NoteType::Header, size_of::<Header>()),
        (NoteType::Tasks, size_of::<Task>()),
        (NoteType::Threads, size_of::<Thread>()),
        (NoteType::Mms, size_of::<Mm>()),
        (NoteType::Vmas, size_of::<Vma>()),
        (NoteType::Extents, size_of::<Extent>()),
        (NoteType::Files, size_of::<FileIdent>()),
        (NoteType::FdTables, size_of::<FdTable>()),
        (NoteType::Fds, size_of::<FdEntry>()),
        (NoteType::Objects, size_of::<Object>()),
        (NoteType::FsInfos, size_of::<FsInfo>()),
        (NoteType::Sighands, size_of::<Sighand>()),
        (NoteType::SigActions, size_of::<SigAction>()),
        (NoteType::PendingSignals, size_of::<PendingSignal>()),
        (NoteType::PosixTimers, size_of::<PosixTimer>()),
        (NoteType::Creds, size_of::<Creds>()),
        (NoteType::Locks, size_of::<Lock>()),
        (NoteType::Losses, size_of::<Loss>()),
        (NoteType::Blobs, 1),
        (NoteType::GuardRanges, size_of::<mm::GuardRange>()),
        (NoteType::SysvShms, size_of::<SysvShm>()),
        (NoteType::SysvSems, size_of::<SysvSem>()),
        (NoteType::SysvMsgs, size_of::<SysvMsg>()),
        (NoteType::SemUndos, size_of::<SemUndo>()),
        (NoteType::Compression, size_of::<Compression>()),
    ];
    SIZES.iter().find(|(n, _)| *n as u32 == note).map(|(_, size)| *size)
}

/// All tables of an image, with references resolved safely.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    pub meta: Meta<'a>,
    pub header: &'a Header,
    pub tasks: &'a [Task],
    pub threads: &'a [Thread],
    pub mms: &'a [Mm],
    pub vmas: &'a [Vma],
    pub extents: &'a [Extent],
    pub files: &'a [FileIdent],
    pub fd_tables: &'a [FdTable],
    pub fds: &'a [FdEntry],
    pub objects: &'a [Object],
    pub fs_infos: &'a [FsInfo],
    pub sighands: &'a [Sighand],
    pub sig_actions: &'a [SigAction],
    pub pending: &'a [PendingSignal],
    pub posix_timers: &'a [PosixTimer],
    pub creds: &'a [Creds],
    pub locks: &'a [Lock],
    pub losses: &'a [Loss],
    pub guards: &'a [mm::GuardRange],
    pub shms: &'a [SysvShm],
    pub sems: &'a [SysvSem],
    pub msgs: &'a [SysvMsg],
    pub sem_undos: &'a [SemUndo],
    /// Empty, or one record.
    pub compression: &'a [Compression],
    pub blobs: &'a [u8],
}

impl<'a> Image<'a> {
    /// Parses and verifies the metadata region.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let meta = Meta::parse(bytes)?;
        let compression = meta.table::<Compression>(NoteType::Compression)?;
        if let Some(other) = compression.iter().find(|c| c.method != content::METHOD_LZ4) {
            return Err(FormatError::Compression(other.method));
        }
        Ok(Self {
            header: meta.header(),
            tasks: meta.table(NoteType::Tasks)?,
            threads: meta.table(NoteType::Threads)?,
            mms: meta.table(NoteType::Mms)?,
            vmas: meta.table(NoteType::Vmas)?,
            extents: meta.table(NoteType::Extents)?,
            files: meta.table(NoteType::Files)?,
            fd_tables: meta.table(NoteType::FdTables)?,
            fds: meta.table(NoteType::Fds)?,
            objects: meta.table(NoteType::Objects)?,
            fs_infos: meta.table(NoteType::FsInfos)?,
            sighands: meta.table(NoteType::Sighands)?,
            sig_actions: meta.table(NoteType::SigActions)?,
            pending: meta.table(NoteType::PendingSignals)?,
            posix_timers: meta.table(NoteType::PosixTimers)?,
            creds: meta.table(NoteType::Creds)?,
            locks: meta.table(NoteType::Locks)?,
            losses: meta.table(NoteType::Losses)?,
            guards: meta.table(NoteType::GuardRanges)?,
            shms: meta.table(NoteType::SysvShms)?,
            sems: meta.table(NoteType::SysvSems)?,
            msgs: meta.table(NoteType::SysvMsgs)?,
            sem_undos: meta.table(NoteType::SemUndos)?,
            compression,
            blobs: meta.note(NoteType::Blobs).unwrap_or(&[]),
            meta,
        })
    }

    /// Bytes of a span.
    pub fn blob(&self, span: Span) -> Result<&'a [u8], FormatError> {
        let start = usize::try_from(span.offset).map_err(|_| FormatError::Reference("blob"))?;
        let len = usize::try_from(span.len).map_err(|_| FormatError::Reference("blob"))?;
        let end = start.checked_add(len).ok_or(FormatError::Reference("blob"))?;
        self.blobs.get(start..end).ok_or(FormatError::Reference("blob"))
    }

    /// A span as text; bytes that are not UTF-8 give "?".
    pub fn text(&self, span: Span) -> &'a str {
        self.blob(span).ok().and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("?")
    }

    /// The record at the start of a span.
    pub fn payload<T: Record>(&self, span: Span) -> Result<&'a T, FormatError> {
        T::ref_from_prefix(self.blob(span)?).map(|(t, _)| t).map_err(|_| FormatError::Reference("payload"))
    }

    /// Records that fill a span.
    pub fn records<T: Record>(&self, span: Span) -> Result<&'a [T], FormatError> {
        <[T]>::ref_from_bytes(self.blob(span)?).map_err(|_| FormatError::Reference("records"))
    }

    /// A range of a table.
    pub fn slice<T>(table: &'a [T], range: Range, what: &'static str) -> Result<&'a [T], FormatError> {
        let start = range.first as usize;
        let end = start.checked_add(range.count as usize).ok_or(FormatError::Reference(what))?;
        if range.count == 0 {
            return Ok(&[]);
        }
        table.get(start..end).ok_or(FormatError::Reference(what))
    }

    /// A record of a table.
    pub fn get<T>(table: &'a [T], index: u32, what: &'static str) -> Result<&'a T, FormatError> {
        table.get(index as usize).ok_or(FormatError::Reference(what))
    }
}
