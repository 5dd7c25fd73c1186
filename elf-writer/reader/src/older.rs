//! Images of older writers: records have grown since, at their ends, and what they lacked is zero. Their metadata are
//! rewritten as a writer of today would have them; contents are where they were.

use ckpt_format::{
    DirEntry, FORMAT_VERSION, FormatError, Header, Meta, NOTE_OWNER, NoteType, checksum, record_size,
};
use std::ops::Range;
use zerocopy::{FromBytes, IntoBytes};

/// The header record in a region.
const HEADER_AT: usize = Meta::FIRST_NOTE + Meta::NOTE_HEADER;
/// What the header has in common in all versions: up to its checksum.
const FIXED: usize = 24;
/// Where that is.
const CHECKSUM: Range<usize> = 16..24;

/// The metadata region with records of today's sizes; `None` if they are that already, or if it is something that
/// [`Meta::parse`] will refuse.
///
/// # Errors
/// When what is there is damaged, or newer.
pub fn upgrade(region: &[u8]) -> Result<Option<Vec<u64>>, FormatError> {
    let Some(old) = Old::read(region)? else { return Ok(None) };
    old.verify()?;
    let dir_len = old.dir.len() * size_of::<DirEntry>();
    let mut out = vec![0; HEADER_AT + size_of::<Header>() + dir_len];
    out[..HEADER_AT].copy_from_slice(&region[..HEADER_AT]);
    let mut dir = Vec::new();
    for entry in &old.dir {
        let table = grown(entry, old.table(entry)?)?;
        out.resize(out.len().next_multiple_of(8), 0);
        dir.push(DirEntry {
            offset: out.len() as u64,
            len: table.len() as u64,
            checksum: checksum(&table),
            record_size: record_size(entry.note).map_or(entry.record_size, |n| n as u32),
            ..*entry
        });
        out.extend_from_slice(&table);
    }
    let mut header = Header::default();
    header.as_mut_bytes()[..old.header.len()].copy_from_slice(old.header);
    header.header_size = size_of::<Header>() as u32;
    header.meta_len = out.len() as u64;
    header.checksum = Meta::header_checksum(&header, dir.as_bytes());
    let dir_at = HEADER_AT + size_of::<Header>();
    out[HEADER_AT..dir_at].copy_from_slice(header.as_bytes());
    out[dir_at..dir_at + dir_len].copy_from_slice(dir.as_bytes());
    let mut words = vec![0u64; out.len().div_ceil(8)];
    words.as_mut_bytes()[..out.len()].copy_from_slice(&out);
    Ok(Some(words))
}

/// The parts of a region whose records may be shorter than today's.
struct Old<'a> {
    region: &'a [u8],
    header: &'a [u8],
    dir_bytes: &'a [u8],
    dir: Vec<DirEntry>,
}

impl<'a> Old<'a> {
    fn read(region: &'a [u8]) -> Result<Option<Self>, FormatError> {
        let Some(body) = region.get(HEADER_AT..) else { return Ok(None) };
        let word = |at: usize| {
            body.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes).unwrap_or_default()
        };
        let note = &region[Meta::FIRST_NOTE + 8..HEADER_AT - 3];
        let expected = [&(NoteType::Header as u32).to_le_bytes()[..], NOTE_OWNER].concat();
        if note != expected || word(0) != FORMAT_VERSION {
            return Ok(None);
        }
        let damaged = FormatError::Checksum(NoteType::Header as u32);
        let (size, count) = (word(4) as usize, word(8) as usize);
        if size > size_of::<Header>() {
            return Err(FormatError::Newer(NoteType::Header as u32));
        }
        let header =
            body.get(..size).filter(|h| h.len() >= FIXED && size.is_multiple_of(8)).ok_or(damaged)?;
        let dir_len = count.checked_mul(size_of::<DirEntry>()).ok_or(damaged)?;
        let dir_bytes = body[size..].get(..dir_len).ok_or(damaged)?;
        let entries = dir_bytes.chunks_exact(size_of::<DirEntry>());
        let dir: Vec<DirEntry> = entries.filter_map(|e| DirEntry::read_from_bytes(e).ok()).collect();
        let is_old = |e: &DirEntry| record_size(e.note).is_some_and(|now| (e.record_size as usize) < now);
        let old = size < size_of::<Header>() || dir.iter().any(is_old);
        Ok(old.then_some(Self { region, header, dir_bytes, dir }))
    }

    fn table(&self, entry: &DirEntry) -> Result<&'a [u8], FormatError> {
        let start = usize::try_from(entry.offset).ok();
        let range = start.and_then(|s| Some(s..s.checked_add(usize::try_from(entry.len).ok()?)?));
        range.and_then(|r| self.region.get(r)).ok_or(FormatError::Checksum(entry.note))
    }

    /// All checksums, as they were written.
    fn verify(&self) -> Result<(), FormatError> {
        let mut header = self.header.to_vec();
        let (saved, zero) = (header[CHECKSUM].to_vec(), [0; 8]);
        header[CHECKSUM].copy_from_slice(&zero);
        header.extend_from_slice(self.dir_bytes);
        if checksum(&header).to_le_bytes()[..] != saved[..] {
            return Err(FormatError::Checksum(NoteType::Header as u32));
        }
        for entry in &self.dir {
            if checksum(self.table(entry)?) != entry.checksum {
                return Err(FormatError::Checksum(entry.note));
            }
        }
        Ok(())
    }
}

/// The records of a table, each with zeros behind it.
fn grown(entry: &DirEntry, table: &[u8]) -> Result<Vec<u8>, FormatError> {
    let (size, Some(now)) = (entry.record_size as usize, record_size(entry.note)) else {
        return Ok(table.to_vec());
    };
    if size > now {
        return Err(FormatError::Newer(entry.note));
    }
    if size == 0 || !table.len().is_multiple_of(size) {
        return Err(FormatError::Checksum(entry.note));
    }
    let mut out = Vec::with_capacity(table.len() / size * now);
    for record in table.chunks_exact(size) {
        out.extend_from_slice(record);
        out.resize(out.len() + now - size, 0);
    }
    Ok(out)
}
