//! The whole file: stream the contents, then the metadata after them, the headers last.

use crate::buffers::Room;
use crate::elf::{
    self, PF_R, PF_W, PF_X, PT_GNU_STACK, PT_LOAD, PT_NOTE, SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHT_NOBITS,
    SHT_NOTE, SHT_PROGBITS, Section, Segment,
};
use crate::layout::{self, HEADER_LEN, MAX_PHDRS, Needs, Places, Run};
use crate::notes::Metadata;
use crate::plan::{ContentSource, Plan};
use crate::sections::{memory_sections, segment_flags};
use crate::stream::{self, Progress, Streamed};
use crate::stub::{Stub, StubSegment};
use crate::{Tables, WriteError, notes};
use ckpt_format::header::header_flags;
use ckpt_format::{EI_PAD_MAGIC, Extent, Mm, PAGE_SIZE, Range, extent_flags};
use ckpt_reader::core_notes::core_notes;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use std::fs::{File, Permissions};
use std::io::{self, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Length of the image in bytes.
    pub image_size: u64,
    /// Bytes of memory, and contents of objects, that exist nowhere else.
    pub stored_bytes: u64,
    /// Bytes embedded from files.
    pub embedded_bytes: u64,
    /// What of all that was compressed, before and after.
    pub compressed_bytes: [u64; 2],
    /// Bytes that were found in the image already, by their contents.
    pub duplicate_bytes: u64,
    /// Bytes that are shared with the parent, if the file system can.
    pub inherited_bytes: Option<u64>,
    /// Bytes that were taken from the parent without being read.
    pub unread_bytes: u64,
    pub extents: usize,
    /// PT_LOAD segments of the program's memory.
    pub loads: usize,
}

/// A complete image that has no name yet. Dropping it leaves nothing behind.
pub struct PendingImage {
    file: Option<File>,
    path: PathBuf,
    /// Where the file system has no O_TMPFILE: the temporary name.
    temporary: Option<PathBuf>,
    summary: Summary,
    /// What it holds is on the disk.
    synced: bool,
    room: Option<Room>,
}

/// Writes everything to an unnamed file beside `path`. The target need not stay stopped after this
/// returns; call [`PendingImage::commit`] then.
///
/// # Errors
/// See [`WriteError`]. Nothing is left behind.
pub fn write_image(
    plan: Plan,
    stub: &Stub,
    source: &mut dyn ContentSource,
    path: &Path,
    progress: &mut Progress<'_>,
) -> Result<PendingImage, WriteError> {
    PendingImage::create(path)?.fill(plan, stub, source, progress)
}

fn check(plan: &Plan) -> Result<(), WriteError> {
    let t = &plan.tables;
    if plan.sources.len() != t.extents.len() {
        let (have, want) = (plan.sources.len(), t.extents.len());
        return Err(WriteError::Plan(format!("{have} sources for {want} extents")));
    }
    let of_vmas = t.vmas.iter().flat_map(|v| [v.dirty, v.embedded]);
    let mut ranges = of_vmas.chain(t.files.iter().map(|f| f.contents));
    if ranges.any(|r| r.count > 0 && r.indices().end > t.extents.len()) {
        return Err(WriteError::Plan("a range of extents outside their table".into()));
    }
    if t.tasks.get(plan.header.root_task as usize).is_none_or(|task| task.mm as usize >= t.mms.len()) {
        return Err(WriteError::Plan("no root task, or it has no address space".into()));
    }
    Ok(())
}

fn place(plan: &Plan, stub: &Stub) -> Result<Places, WriteError> {
    let (hole, len) = (plan.header.hole_addr, plan.header.hole_len);
    let meta_max = notes::upper_bound(&plan.tables);
    let places = Places::new(hole, stub.len(), meta_max, Needs::from(&plan.tables));
    if !hole.is_multiple_of(PAGE_SIZE) || hole == 0 || places.end > hole + len {
        let need = places.end - hole;
        return Err(WriteError::Plan(format!("the hole at {hole:#x} has {len} bytes, {need} are needed")));
    }
    Ok(places)
}

/// Every range of the plan that refers to extents.
fn extent_ranges(t: &mut Tables) -> Vec<&mut Range> {
    let vmas = t.vmas.iter_mut().flat_map(|v| [&mut v.dirty, &mut v.embedded]);
    let files = t.files.iter_mut().map(|f| &mut f.contents);
    vmas.chain(files).collect()
}

/// An error of the last steps, before the path is known.
enum FinishError {
    Io(io::Error),
    Plan(String),
}

impl FinishError {
    fn at(self, path: &Path) -> WriteError {
        match self {
            Self::Io(source) => WriteError::Output { what: "cannot write", path: path.into(), source },
            Self::Plan(what) => WriteError::Plan(what),
        }
    }
}

/// Metadata, section headers, stub and ELF header, once the extents are known.
fn finish(
    mut plan: Plan,
    stub: &Stub,
    places: &Places,
    streamed: Streamed,
    write: impl Fn(&[u8], u64) -> io::Result<()>,
) -> Result<Summary, FinishError> {
    let extents = &streamed.extents;
    // Its tables may be as large as ours.
    plan.parent = None;
    for range in extent_ranges(&mut plan.tables) {
        let r = range.indices();
        let (first, end) = (streamed.first[r.start.min(streamed.first.len() - 1)], streamed.first[r.end]);
        *range = if range.count == 0 { Range::default() } else { Range { first, count: end - first } };
    }
    let t = &plan.tables;
    let header = &mut plan.header;
    let mm = t.mms[t.tasks[header.root_task as usize].mm as usize];

    let standard = core_notes(&t.view(), header.root_task, header.command);
    let meta = Metadata::new(t, extents, streamed.compression.as_slice(), &standard);
    if meta.len() > places.meta_max {
        let (len, max) = (meta.len(), places.meta_max);
        return Err(FinishError::Plan(format!("{len} bytes of metadata, room for {max}")));
    }
    let meta_offset = streamed.end.next_multiple_of(PAGE_SIZE);
    let meta_len = meta.len();
    let (segments, runs, loads) = segments(t, &mm, extents, stub, places, meta_offset, meta_len);
    let sections = sections(t, &mm, &runs, stub, places, meta_offset, meta_len);
    let tail_at = (meta_offset + meta_len).next_multiple_of(8);
    let (tail, shoff, shnum) = elf::sections(tail_at, &sections);

    let sum = |flag: u32| -> u64 {
        extents.iter().filter(|e| e.flags & extent_flags::EMBEDDED_FILE == flag).map(|e| e.len).sum()
    };
    let summary = Summary {
        image_size: tail_at + tail.len() as u64,
        stored_bytes: sum(0) - streamed.shared[0],
        embedded_bytes: sum(extent_flags::EMBEDDED_FILE) - streamed.shared[1],
        compressed_bytes: streamed.compression.map_or([0; 2], |c| [c.block_bytes, c.stored_bytes]),
        duplicate_bytes: streamed.duplicates,
        inherited_bytes: streamed.inherited,
        unread_bytes: streamed.unread,
        extents: extents.len(),
        loads,
    };
    header.image_size = summary.image_size;
    header.stored_bytes = summary.stored_bytes;
    header.page_size = PAGE_SIZE as u32;
    if !stub.is_restorer() {
        header.flags |= header_flags::NO_STUB;
    }
    header.meta_offset = meta_offset;
    header.meta_addr = places.meta;
    let hole_len = header.hole_len;
    let first_free_fd = t.fds.iter().map(|f| f.fd + 1).max().unwrap_or(0).max(3) as u64;
    let config = places.config(stub, hole_len, meta_len, first_free_fd);

    let put = |bytes: &[u8], at| write(bytes, at).map_err(FinishError::Io);
    put(&meta.finish(*header), meta_offset)?;
    put(&tail, tail_at)?;
    put(&stub.relocated(places.stub, &config), HEADER_LEN)?;
    put(&elf::header(EI_PAD_MAGIC, stub.entry(places.stub), &segments, shoff, shnum), 0)?;
    Ok(summary)
}

/// Program headers, all runs, and how many of them are PT_LOADs.
fn segments(
    t: &Tables,
    mm: &Mm,
    extents: &[Extent],
    stub: &Stub,
    places: &Places,
    meta_offset: u64,
    meta_len: u64,
) -> (Vec<Segment>, Vec<Run>, usize) {
    let mut out = own_segments(stub, places, meta_offset, meta_len);
    let first = ckpt_format::Meta::FIRST_NOTE as u64;
    let note = Segment {
        kind: PT_NOTE,
        align: 4,
        ..load(PF_R, meta_offset + first, places.meta + first, meta_len - first)
    };
    let stack = Segment { kind: PT_GNU_STACK, flags: PF_R | PF_W, align: 16, ..Default::default() };
    out.extend([note, stack]);

    let runs = layout::runs(t, mm, extents);
    let loads = layout::choose_loads(t, &runs, MAX_PHDRS - out.len());
    for run in &loads {
        out.push(load(segment_flags(t.vmas[run.vma].prot), run.file_offset, run.addr, run.len));
    }
    (out, runs, loads.len())
}

fn load(flags: u32, offset: u64, addr: u64, len: u64) -> Segment {
    Segment { kind: PT_LOAD, flags, offset, addr, filesz: len, memsz: len, align: PAGE_SIZE }
}

/// What the stub needs: itself, the metadata, its work area.
pub(crate) fn own_segments(stub: &Stub, places: &Places, meta_offset: u64, meta_len: u64) -> Vec<Segment> {
    // Text first: only the first PT_LOAD is placed without replacing what is there.
    let (text, rest): (Vec<StubSegment>, Vec<StubSegment>) =
        stub.segments().iter().copied().partition(|s| s.flags & PF_X != 0);
    let own = text.into_iter().chain(rest);
    let mut out: Vec<Segment> =
        own.map(|s| load(s.flags, HEADER_LEN + s.start, places.stub + s.start, s.end - s.start)).collect();
    out.push(load(PF_R, meta_offset, places.meta, meta_len));
    out.push(Segment { filesz: 0, ..load(PF_R | PF_W, 0, places.work, places.work_len) });
    out
}

fn sections(
    t: &Tables,
    mm: &Mm,
    runs: &[Run],
    stub: &Stub,
    places: &Places,
    meta_offset: u64,
    meta_len: u64,
) -> Vec<Section> {
    let alloc = SHF_ALLOC;
    let mut out = Vec::new();
    for s in stub.segments() {
        let (kind, flags) = match s.flags {
            f if f & PF_X != 0 => ("text", alloc | SHF_EXECINSTR),
            f if f & PF_W != 0 => ("data", alloc | SHF_WRITE),
            _ => ("rodata", alloc),
        };
        let plain = format!(".ckpt.{kind}");
        let taken = out.iter().any(|other: &Section| other.name == plain);
        out.push(Section {
            name: if taken { format!("{plain}.{:x}", s.start) } else { plain },
            kind: SHT_PROGBITS,
            flags,
            addr: places.stub + s.start,
            offset: HEADER_LEN + s.start,
            size: s.end - s.start,
            align: PAGE_SIZE,
        });
    }
    let first = ckpt_format::Meta::FIRST_NOTE as u64;
    out.push(Section {
        name: ".note.ckpt".into(),
        kind: SHT_NOTE,
        flags: alloc,
        addr: places.meta + first,
        offset: meta_offset + first,
        size: meta_len - first,
        align: 4,
    });
    out.push(Section {
        name: ".ckpt.work".into(),
        kind: SHT_NOBITS,
        flags: alloc | SHF_WRITE,
        addr: places.work,
        offset: 0,
        size: places.work_len,
        align: PAGE_SIZE,
    });
    out.extend(memory_sections(t, mm, runs));
    out
}

impl PendingImage {
    /// Creates the unnamed file. Worth doing before anything else: most of what can go wrong with the
    /// output goes wrong here.
    ///
    /// # Errors
    /// [`WriteError::Output`].
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let fail = |what, source| WriteError::Output { what, path: path.into(), source };
        if path.is_dir() {
            return Err(fail("cannot write", io::ErrorKind::IsADirectory.into()));
        }
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let unnamed = File::options()
            .read(true)
            .write(true)
            .mode(0o700)
            .custom_flags(OFlag::O_TMPFILE.bits())
            .open(dir);
        let (file, temporary) = match unnamed {
            Ok(file) => (file, None),
            // No O_TMPFILE in this file system (EOPNOTSUPP), or an older one that ignores it (EISDIR).
            Err(e)
                if matches!(
                    Errno::from_raw(e.raw_os_error().unwrap_or(0)),
                    Errno::EOPNOTSUPP | Errno::EISDIR
                ) =>
            {
                let name = temporary_name(path);
                let file = File::options().read(true).write(true).create_new(true).mode(0o700).open(&name);
                (file.map_err(|e| fail("cannot create a temporary file beside", e))?, Some(name))
            }
            Err(e) => return Err(fail("cannot create a temporary file beside", e)),
        };
        let pending = Self {
            file: Some(file),
            path: path.into(),
            temporary,
            summary: Summary::default(),
            synced: false,
            room: None,
        };
        // Whatever the umask is: the image must be executable, and only by its owner.
        let mode = Permissions::from_mode(0o700);
        if let Some(file) = &pending.file {
            file.set_permissions(mode).map_err(|e| fail("cannot set the mode of", e))?;
        }
        Ok(pending)
    }

    /// An image that is the open file to which the link `path` in /proc/self/fd leads, and is never named.
    ///
    /// # Errors
    /// [`WriteError::Output`].
    pub fn nameless(path: &Path) -> Result<Self, WriteError> {
        let fail = |source| WriteError::Output { what: "cannot write", path: path.into(), source };
        let file = File::options().read(true).write(true).truncate(true).open(path).map_err(fail)?;
        let summary = Summary::default();
        Ok(Self { file: Some(file), path: path.into(), temporary: None, summary, synced: false, room: None })
    }

    /// The file that is being made.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Makes room for so many bytes of contents, before anything is stopped; see [`Room::new`].
    ///
    /// # Errors
    /// [`WriteError::Output`].
    pub fn make_room(&mut self, bytes: u64) -> Result<(), WriteError> {
        self.room = Some(no_memory(&self.path, Room::new(bytes))?);
        Ok(())
    }

    /// Writes everything; see [`write_image`].
    ///
    /// # Errors
    /// See [`WriteError`]. Nothing is left behind.
    pub fn fill(
        mut self,
        plan: Plan,
        stub: &Stub,
        source: &mut dyn ContentSource,
        progress: &mut Progress<'_>,
    ) -> Result<Self, WriteError> {
        check(&plan)?;
        let path = &self.path;
        let file = self.file.as_ref().ok_or_else(|| WriteError::Plan("no file".into()))?;
        let start = HEADER_LEN + stub.len();
        let places = place(&plan, stub)?;
        let mut room = match self.room.take() {
            Some(room) => room,
            None => no_memory(path, Room::new(0))?,
        };
        let streamed = stream::stream(&plan, source, file, path, start, &mut room, progress)?;
        let summary = finish(plan, stub, &places, streamed, |bytes, at| file.write_all_at(bytes, at))
            .map_err(|e| e.at(path))?;
        self.summary = summary;
        Ok(self)
    }

    /// The complete file, from its beginning.
    ///
    /// # Errors
    /// [`WriteError::Output`].
    pub fn reader(&self) -> Result<File, WriteError> {
        let fail = |source| WriteError::Output { what: "cannot read", path: self.path.clone(), source };
        let file = self.file.as_ref().ok_or_else(|| WriteError::Plan("no file".into()))?;
        let mut file = file.try_clone().map_err(fail)?;
        file.rewind().map_err(fail)?;
        Ok(file)
    }

    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// Makes the contents safe on the disk, still without a name; [`PendingImage::commit`] will do the same
    /// for the name.
    ///
    /// # Errors
    /// [`WriteError::Output`].
    pub fn sync(&mut self) -> Result<(), WriteError> {
        let fail = |source| WriteError::Output { what: "cannot sync", path: self.path.clone(), source };
        self.synced = true;
        self.file.as_ref().map_or(Ok(()), |file| file.sync_all().map_err(fail))
    }

    /// Gives the image its name, replacing what had that name.
    ///
    /// # Errors
    /// [`WriteError::Output`]; nothing is left behind, what had the name keeps it.
    pub fn commit(mut self) -> Result<Summary, WriteError> {
        let path = self.path.clone();
        let fail = |what, source| WriteError::Output { what, path: path.clone(), source };
        let Some(file) = self.file.take() else { return Ok(self.summary) };
        if self.temporary.is_none() {
            let name = temporary_name(&path);
            let link = format!("/proc/self/fd/{}", file.as_raw_fd());
            let at = nix::fcntl::AT_FDCWD;
            nix::unistd::linkat(at, Path::new(&link), at, &name, AtFlags::AT_SYMLINK_FOLLOW)
                .map_err(|e| fail("cannot name the image", e.into()))?;
            self.temporary = Some(name);
        }
        // Closed before it can be found: executing a file that is open for writing is ETXTBSY.
        drop(file);
        if let Some(name) = &self.temporary {
            std::fs::rename(name, &path).map_err(|e| fail("cannot rename the finished image to", e))?;
        }
        self.temporary = None;
        // The name must survive a crash as well; not every file system can sync a directory.
        if self.synced
            && let Some(dir) = path.parent()
            && let Ok(dir) = File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })
        {
            let _ = dir.sync_all();
        }
        Ok(self.summary)
    }
}

fn no_memory(path: &Path, room: io::Result<Room>) -> Result<Room, WriteError> {
    room.map_err(|source| WriteError::Output { what: "no memory to write", path: path.into(), source })
}

impl Drop for PendingImage {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary {
            // Nothing more can be done about a file that cannot be removed.
            let _ = std::fs::remove_file(name);
        }
    }
}

/// A name beside `path` that nobody else uses.
fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}
