//! The metadata region: our notes, then the standard ones.
//!
//! A reader views the tables in place, so every description of ours is 8-byte aligned although ELF
//! aligns notes to 4: the region's first note starts 4 bytes in, and each description is padded so
//! that the next note starts at 4 modulo 8 again.

use crate::layout::pages_up;
use crate::plan::{DROP_ZERO, Tables, UNCHANGED};
use crate::stub::as_bytes;
use ckpt_format::header::dir_flags;
use ckpt_format::*;
use ckpt_reader::core_notes::StandardNote;
use zerocopy::IntoBytes;

/// Offset of the header record in the region.
const HEADER_AT: usize = Meta::FIRST_NOTE + Meta::NOTE_HEADER;

/// The serialized region, but for the header record, which [`Metadata::finish`] fills in.
pub struct Metadata {
    bytes: Vec<u8>,
    dir: Vec<DirEntry>,
}

/// Every table but the extents: type, bytes, record size.
fn tables(t: &Tables) -> [(NoteType, &[u8], usize); 22] {
    fn of<T: Record>(note: NoteType, table: &[T]) -> (NoteType, &[u8], usize) {
        (note, table.as_bytes(), size_of::<T>())
    }
    [
        of(NoteType::Tasks, &t.tasks),
        of(NoteType::Threads, &t.threads),
        of(NoteType::Mms, &t.mms),
        of(NoteType::Vmas, &t.vmas),
        of(NoteType::Files, &t.files),
        of(NoteType::FdTables, &t.fd_tables),
        of(NoteType::Fds, &t.fds),
        of(NoteType::Objects, &t.objects),
        of(NoteType::FsInfos, &t.fs_infos),
        of(NoteType::Sighands, &t.sighands),
        of(NoteType::SigActions, &t.sig_actions),
        of(NoteType::PendingSignals, &t.pending),
        of(NoteType::PosixTimers, &t.posix_timers),
        of(NoteType::Creds, &t.creds),
        of(NoteType::Locks, &t.locks),
        of(NoteType::Losses, &t.losses),
        of(NoteType::GuardRanges, &t.guards),
        of(NoteType::SysvShms, &t.shms),
        of(NoteType::SysvSems, &t.sems),
        of(NoteType::SysvMsgs, &t.msgs),
        of(NoteType::SemUndos, &t.sem_undos),
        (NoteType::Blobs, &t.blobs, 1),
    ]
}

impl Metadata {
    /// Serializes all tables, with these extents.
    pub fn new(
        t: &Tables,
        extents: &[Extent],
        compression: &[Compression],
        standard: &[StandardNote],
    ) -> Self {
        let more = [
            (NoteType::Extents, extents.as_bytes(), size_of::<Extent>()),
            (NoteType::Compression, compression.as_bytes(), size_of::<Compression>()),
        ];
        let present: Vec<_> =
            tables(t).into_iter().chain(more).filter(|(_, bytes, _)| !bytes.is_empty()).collect();
        let header_len = size_of::<Header>() + present.len() * size_of::<DirEntry>();

        let len: usize = present.iter().map(|(_, bytes, _)| bytes.len() + 64).sum();
        let mut bytes =
            Vec::with_capacity(len + header_len + standard.iter().map(|n| n.desc.len() + 64).sum::<usize>());
        bytes.resize(Meta::FIRST_NOTE, 0);
        own_note(&mut bytes, NoteType::Header, &vec![0; header_len]);
        let mut dir = Vec::new();
        for (note, desc, record) in present {
            let offset = own_note(&mut bytes, note, desc);
            dir.push(DirEntry {
                note: note as u32,
                flags: if note == NoteType::Losses { 0 } else { dir_flags::CRITICAL },
                offset: offset as u64,
                len: desc.len() as u64,
                checksum: checksum(desc),
                record_size: record as u32,
                reserved: 0,
            });
        }
        for note in standard {
            note_header(&mut bytes, note.owner, note.kind, note.desc.len());
            bytes.extend_from_slice(&note.desc);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        Self { bytes, dir }
    }

    /// Length of the region in bytes.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Never: there is always a header.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Puts header and directory in place; the header's own fields about itself are filled in here.
    pub fn finish(mut self, mut header: Header) -> Vec<u8> {
        header.version = FORMAT_VERSION;
        header.header_size = size_of::<Header>() as u32;
        header.dir_count = self.dir.len() as u32;
        header.meta_len = self.len();
        header.checksum = Meta::header_checksum(&header, self.dir.as_bytes());
        let dir_at = HEADER_AT + size_of::<Header>();
        self.bytes[HEADER_AT..dir_at].copy_from_slice(as_bytes(&header));
        let dir = self.dir.as_bytes();
        self.bytes[dir_at..dir_at + dir.len()].copy_from_slice(dir);
        self.bytes
    }
}

fn note_header(out: &mut Vec<u8>, owner: &[u8], kind: u32, len: usize) {
    out.extend_from_slice(&(owner.len() as u32).to_le_bytes());
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(owner);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Appends a note of ours and returns the offset of its description.
fn own_note(out: &mut Vec<u8>, note: NoteType, desc: &[u8]) -> usize {
    let padded = desc.len().next_multiple_of(8) + 4;
    note_header(out, NOTE_OWNER, note as u32, padded);
    let at = out.len();
    debug_assert!(at.is_multiple_of(8));
    out.extend_from_slice(desc);
    out.resize(at + padded, 0);
    at
}

/// No image's metadata for these tables is longer than this, whatever the contents turn out to be.
pub fn upper_bound(t: &Tables) -> u64 {
    let table_bytes: usize = tables(t).iter().map(|(_, bytes, _)| bytes.len() + 64).sum();
    let extents: u64 = t.extents.iter().map(|e| max_extents(e, t.mms.len() > 1)).sum();
    // Standard notes: registers and extended state of each thread (blobs are shared where they are
    // equal, notes are not), NT_FILE with all the paths.
    let threads: u64 = t.threads.iter().map(|thread| thread.xstate.len + 1024).sum();
    let standard = 4096 + threads + 2 * t.blobs.len() as u64 + t.vmas.len() as u64 * 64;
    let paths: u64 =
        t.vmas.iter().filter_map(|v| t.files.get(v.file as usize)).map(|file| file.path.len + 1).sum();
    let header = (size_of::<Header>() + 32 * size_of::<DirEntry>() + size_of::<Compression>() + 64) as u64;
    pages_up(header + table_bytes as u64 + extents * size_of::<Extent>() as u64 + standard + paths)
}

/// How many extents of the image one planned extent may become; `shared`: pages may be another's.
fn max_extents(planned: &Extent, shared: bool) -> u64 {
    let pages = planned.len.div_ceil(PAGE_SIZE);
    // Cut at buffer boundaries; with zeros left out, every other page may be an extent of its own.
    // So may runs of pages that are in the image already, with what is between them.
    let runs = 2 * (pages / crate::dedup::SHORTEST as u64);
    let cuts = planned.len.div_ceil(crate::stream::TRACKED_EXTENT) + 1 + runs;
    if shared || planned.flags & UNCHANGED != 0 {
        // Every page may be in another place than its neighbours.
        return pages + cuts;
    }
    if planned.flags & DROP_ZERO != 0 { pages.div_ceil(2) + cuts } else { cuts }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tables {
        Tables {
            tasks: vec![Task { pid: 7, ..Default::default() }],
            threads: vec![Thread { tid: 7, ..Default::default() }; 3],
            mms: vec![Mm::default()],
            blobs: b"a path\0\0".to_vec(),
            losses: vec![Loss::default()],
            ..Default::default()
        }
    }

    #[test]
    fn tables_read_back() {
        let extents = [Extent { addr: 0x1000, len: 4096, ..Default::default() }];
        let odd = StandardNote { owner: b"LINUX\0", kind: 0x202, desc: vec![1; 13] };
        let meta = Metadata::new(&sample(), &extents, &[], &[odd]);
        let header = Header { host: Span { offset: 0, len: 6 }, ..Default::default() };
        let bytes = meta.finish(header);
        // As when mapped: page-aligned.
        let mut aligned = vec![0u64; bytes.len().div_ceil(8)];
        aligned.as_mut_bytes()[..bytes.len()].copy_from_slice(&bytes);
        let image = Image::parse(&aligned.as_bytes()[..bytes.len()]).unwrap();
        assert_eq!(image.tasks[0].pid, 7);
        assert_eq!((image.threads.len(), image.extents[0].addr), (3, 0x1000));
        assert_eq!(image.text(image.header.host), "a path");
        assert_eq!(image.header.meta_len, bytes.len() as u64);
        assert!(bytes.len() as u64 <= upper_bound(&sample()));

        // A thousand threads that share one blob.
        let mut many = sample();
        many.blobs.resize(8192, 1);
        many.threads = vec![Thread { xstate: Span { offset: 0, len: 8192 }, ..Default::default() }; 1000];
        many.tasks[0].threads = Range { first: 0, count: 1000 };
        let notes = ckpt_reader::core_notes::core_notes(&many.view(), 0, Span::default());
        let bytes = Metadata::new(&many, &[], &[], &notes).finish(Header::default());
        assert!(bytes.len() as u64 <= upper_bound(&many));
    }

    #[test]
    fn every_flipped_bit_of_a_table_is_noticed() {
        let bytes = Metadata::new(&sample(), &[], &[Compression::default()], &[]).finish(Header::default());
        let mut aligned = vec![0u64; bytes.len().div_ceil(8)];
        let mut undetected = 0;
        for i in 0..bytes.len() {
            aligned.as_mut_bytes()[..bytes.len()].copy_from_slice(&bytes);
            aligned.as_mut_bytes()[i] ^= 0x10;
            undetected += usize::from(Image::parse(&aligned.as_bytes()[..bytes.len()]).is_ok());
        }
        // What is not covered: the alignment gap, and note headers and padding, which nobody reads.
        assert!(undetected <= 4 + 9 * (Meta::NOTE_HEADER + 12), "{undetected} undetected");
    }
}
