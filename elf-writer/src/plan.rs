//! What the writer is given: every table of the image, and where the stored bytes come from.

use crate::alias::Owner;
use ckpt_format::*;
use ckpt_reader::core_notes::View;
use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

/// All tables, as they will be in the image. `extents` are the *planned* extents: of any length, in
/// the order of the ranges that refer to them. The writer cuts them (at [`content::MAX_EXTENT`], and
/// where pages of zeros are left out), fills in `file_offset` and `checksum`, and adjusts every
/// [`Range`] that refers to them. Everything else is final.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    pub tasks: Vec<Task>,
    pub threads: Vec<Thread>,
    pub mms: Vec<Mm>,
    pub vmas: Vec<Vma>,
    pub extents: Vec<Extent>,
    pub files: Vec<FileIdent>,
    pub fd_tables: Vec<FdTable>,
    pub fds: Vec<FdEntry>,
    pub objects: Vec<Object>,
    pub fs_infos: Vec<FsInfo>,
    pub sighands: Vec<Sighand>,
    pub sig_actions: Vec<SigAction>,
    pub pending: Vec<PendingSignal>,
    pub posix_timers: Vec<PosixTimer>,
    pub creds: Vec<Creds>,
    pub locks: Vec<Lock>,
    pub losses: Vec<Loss>,
    pub guards: Vec<mm::GuardRange>,
    pub shms: Vec<SysvShm>,
    pub sems: Vec<SysvSem>,
    pub msgs: Vec<SysvMsg>,
    pub sem_undos: Vec<SemUndo>,
    pub blobs: Vec<u8>,
}

impl Tables {
    /// What a core file's notes are made from.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View {
            tasks: &self.tasks,
            threads: &self.threads,
            mms: &self.mms,
            vmas: &self.vmas,
            files: &self.files,
            creds: &self.creds,
            blobs: &self.blobs,
        }
    }
}

/// [`Extent::flags`] of a planned extent only: pages that hold nothing but zeros need not be stored,
/// because what lies there at restore is zero anyway. Never set in an image.
pub const DROP_ZERO: u32 = 1 << 31;

/// [`Extent::flags`] of a planned extent only: what [`Plan::parent`] has at these addresses is still the same. Its
/// bytes are taken without being read; where it has none, they are read. Never set in an image.
pub const UNCHANGED: u32 = 1 << 30;

/// Everything that the writer needs besides the stub.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Host, clocks, CPU, spans. Version, directory, sizes, addresses and checksum are the writer's.
    /// `hole_addr` and `hole_len` say where the stub may be; see [`crate::layout::hole_size`].
    pub header: Header,
    pub tables: Tables,
    /// `sources[i]` is where the bytes of `tables.extents[i]` come from.
    pub sources: Vec<Source>,
    /// For a process the one that it may still share pages with copy-on-write: both as in
    /// [`Source::Memory`]. Its memory must come before in the tables. Equal pages are stored once.
    pub ancestors: HashMap<i32, i32>,
    /// `urgent[i]`: the bytes of `tables.extents[i]` are read before others; none, if it is empty.
    pub urgent: Vec<bool>,
    /// Compress the contents.
    pub compress: bool,
    /// Store runs of equal pages once.
    pub dedup: bool,
    /// Writes are tracked from now on: a later image will take from this one what has not changed.
    pub track: bool,
    /// An earlier image, with which equal contents are shared where the file system can; if it is compressed, only
    /// [`UNCHANGED`] ones.
    pub parent: Option<Arc<ckpt_reader::ImageFile>>,
    /// The file system can let both share blocks.
    pub shares: bool,
    /// For address spaces that have [`UNCHANGED`] extents: which of the parent's each was.
    pub earlier: HashMap<u32, u32>,
    /// Which address space each process has, as in [`Source::Memory`].
    pub spaces: HashMap<i32, u32>,
    /// What each thread does that writes, before it begins.
    pub on_writer: Option<fn()>,
    /// Verify what is taken from the parent unread, when all else has been read: otherwise only its checksums
    /// are taken, too.
    pub verify: bool,
}

impl Plan {
    /// Whose bytes those of an extent are, so that they can be known again, and the address or offset
    /// of the first. Of files only what is embedded: contents of nameless ones are stored once anyway.
    pub(crate) fn owner(&self, extent: usize) -> Option<(Owner, u64)> {
        match self.sources.get(extent)? {
            Source::Memory { pid, addr } => Some((Owner::Memory(*pid), *addr)),
            Source::File { key, offset } => Some((Owner::File(*key), *offset)),
            Source::Bytes(_) => None,
        }
    }
}

/// Where the bytes of one extent are when the image is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Memory of the stopped process.
    Memory { pid: i32, addr: u64 },
    /// A file that the dumper has open; `key` is the dumper's own, `offset` in bytes.
    File { key: u32, offset: u64 },
    /// Bytes observed by a collector.
    Bytes(Vec<u8>),
}

impl Source {
    /// `len` bytes of this source, starting `skip` bytes into it.
    #[must_use]
    pub fn part(&self, skip: u64, len: u64) -> Self {
        match self {
            Self::Memory { pid, addr } => Self::Memory { pid: *pid, addr: addr + skip },
            Self::File { key, offset } => Self::File { key: *key, offset: offset + skip },
            Self::Bytes(bytes) => Self::Bytes(bytes[skip as usize..(skip + len) as usize].to_vec()),
        }
    }
}

/// A part of a planned extent that is wanted now.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    pub source: &'a Source,
    /// Where to start, in bytes from the start of the source.
    pub skip: u64,
    pub len: usize,
}

/// How far reading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// All of [`Plan::urgent`].
    Urgent,
    All,
}

/// Reads the bytes of extents; implemented by the dumper (process_vm_readv, pread).
pub trait ContentSource {
    /// Fills `buf` from `source`, starting `skip` bytes into it.
    ///
    /// # Errors
    /// When the bytes cannot be read; the image is then abandoned.
    fn read(&mut self, source: &Source, skip: u64, buf: &mut [u8]) -> std::io::Result<()>;

    /// Called once for each stage, in order, as soon as it is reached; what was read may be on its way to the
    /// file still.
    ///
    /// # Errors
    /// The image is then abandoned.
    fn reached(&mut self, _stage: Stage) -> std::io::Result<()> {
        Ok(())
    }

    /// Lets `to` share `len` bytes with `from` (FICLONERANGE); all in whole blocks.
    ///
    /// # Errors
    /// When the file system cannot.
    fn share(&mut self, _from: &File, _at: u64, _to: &File, _to_at: u64, _len: u64) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Fills `buf` with the pieces, one after the other. Worth overriding where one system call can
    /// read many pieces.
    ///
    /// # Errors
    /// As [`ContentSource::read`].
    fn read_pieces(&mut self, pieces: &[Piece<'_>], buf: &mut [u8]) -> std::io::Result<()> {
        let mut rest = buf;
        for piece in pieces {
            let (now, later) = rest.split_at_mut(piece.len);
            self.read(piece.source, piece.skip, now)?;
            rest = later;
        }
        Ok(())
    }
}
