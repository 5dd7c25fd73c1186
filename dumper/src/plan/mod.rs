//! Decisions: [`Facts`] -> records of the image, or a list of what stands in the way. Pure: no pid
//! is looked up, no file read here.

pub mod fd;
pub mod hole;
pub mod memory;
pub mod seccomp;
pub mod sysv;
pub mod task;
pub mod threads;
pub mod tree;

use crate::collect::Facts;
use crate::error::Obstacle;
use ckpt_format::*;
use elf_writer::stub::Stub;
use elf_writer::{Plan, Source, Tables};
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use zerocopy::IntoBytes;

/// What the user decided.
#[derive(Clone, Debug)]
pub struct Options {
    /// Store the contents of file-backed private mappings.
    pub embed: bool,
    /// Kinds of loss that were allowed (`--allow KIND`).
    pub allow: BTreeSet<String>,
    /// Directories to look for files in of which only the inode is known (`--search DIR`).
    pub search: Vec<PathBuf>,
    pub tcp: TcpPolicy,
}

/// What becomes of TCP connections to the outside (`--tcp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcpPolicy {
    /// They go on where that is permitted, else they are refused.
    #[default]
    Auto,
    /// They go on by TCP_REPAIR.
    Repair,
    /// The program sees a reset.
    Reset,
    Refuse,
}

impl Options {
    /// Whether connections to the outside are to be looked into.
    #[must_use]
    pub fn repairs_tcp(&self) -> bool {
        match self.tcp {
            TcpPolicy::Auto => !self.resets_tcp(),
            policy => policy == TcpPolicy::Repair,
        }
    }

    /// Whether connections that cannot go on come back as reset.
    #[must_use]
    pub fn resets_tcp(&self) -> bool {
        self.tcp == TcpPolicy::Reset || self.allow.contains("tcp-established")
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { embed: true, allow: BTreeSet::new(), search: Vec::new(), tcp: TcpPolicy::Auto }
    }
}

/// Kinds that `--allow` knows, with what each gives up.
pub const ALLOW_KINDS: &[(&str, &str)] = &[
    ("children", "child processes stay outside the image; wait() for them fails with ECHILD after restore"),
    ("tcp-established", "as `--tcp reset`: TCP connections to the outside come back as reset"),
    ("unix-outside", "unix sockets connected to other processes find the other end closed"),
    ("pipe-outside", "pipes and FIFOs to other processes find the other end closed"),
    ("shared-outside", "memory and message queues shared with other processes become the program's own"),
    (
        "socket-data",
        "what waits in a UDP, raw, packet or netlink socket is dropped, or arrives anew, where it cannot be \
         restored as it was",
    ),
    ("pty-data", "what waits to be read in a pseudo-terminal that the program provides is dropped"),
    ("pty-outside", "terminals that the program provides for processes outside the image are hung up"),
    ("aio", "requests of AIO contexts (io_submit(2)) that are in flight, of which nothing can be told"),
    ("inotify-events", "inotify events that wait to be read; the program is told so (IN_Q_OVERFLOW)"),
    ("pidfd-outside", "pidfds of processes outside the image become those of processes that have ended"),
    ("mq-notify", "the notification of a POSIX message queue comes with the value 0"),
    ("landlock", "the program goes on without its Landlock sandbox"),
    ("keyrings", "keys in thread and process keyrings are gone"),
    ("device", "unknown devices are opened again by path, without the state that they had"),
    ("hardlink", "a deleted name of a file that lives on elsewhere becomes a file of its own"),
    (
        "namespaces",
        "the program goes on in the network, time, host name, user and mount namespaces of its caller",
    ),
];

/// Accumulates the tables of an image.
#[derive(Debug, Default)]
pub struct Builder {
    pub options: Options,
    pub tables: Tables,
    /// `sources[i]` belongs to `tables.extents[i]`.
    pub sources: Vec<Source>,
    /// `hole_addr`, `hole_len` and so on are set by those who know them.
    pub header: Header,
    pub obstacles: Vec<Obstacle>,
    /// See [`Plan::ancestors`], [`Plan::earlier`], [`Plan::spaces`].
    pub ancestors: HashMap<i32, i32>,
    pub earlier: HashMap<u32, u32>,
    pub spaces: HashMap<i32, u32>,
    blob_index: HashMap<Vec<u8>, Span>,
    file_index: HashMap<FileKey, u32>,
    creds_index: HashMap<Vec<u8>, u32>,
}

/// What makes two references to a file the same file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileKey {
    pub dev: u64,
    pub ino: u64,
    pub path: Vec<u8>,
    pub flags: u32,
}

impl FileKey {
    /// A file that is found again by its path.
    #[must_use]
    pub fn named(dev: u64, ino: u64, path: &[u8]) -> Self {
        Self { dev, ino, path: path.to_vec(), flags: 0 }
    }

    /// A file without a name (deleted, memfd, anonymous shared memory): one record, with the contents
    /// stored by whoever makes it, for all descriptors and mappings.
    #[must_use]
    pub fn unnamed(dev: u64, ino: u64) -> Self {
        Self { dev, ino, path: Vec::new(), flags: file::file_flags::DELETED }
    }
}

impl Builder {
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// Stores bytes (8-byte aligned); equal bytes are stored once. An empty slice is the empty span.
    pub fn blob(&mut self, bytes: &[u8]) -> Span {
        if bytes.is_empty() {
            return Span::default();
        }
        if let Some(span) = self.blob_index.get(bytes) {
            return *span;
        }
        let blobs = &mut self.tables.blobs;
        blobs.resize(blobs.len().next_multiple_of(8), 0);
        let span = Span { offset: blobs.len() as u64, len: bytes.len() as u64 };
        blobs.extend_from_slice(bytes);
        self.blob_index.insert(bytes.to_vec(), span);
        span
    }

    /// Stores a payload record.
    pub fn payload<T: Record>(&mut self, record: &T) -> Span {
        self.blob(record.as_bytes())
    }

    /// Index of a file in the file table, added when it is new. `make` builds the record (it gets
    /// the builder for its path blob); later callers get the first one's record, whose `flags` and
    /// `contents` they may still extend through `tables.files`.
    pub fn file(&mut self, key: FileKey, make: impl FnOnce(&mut Self) -> FileIdent) -> u32 {
        if let Some(index) = self.file_index.get(&key) {
            return *index;
        }
        let record = make(self);
        let index = self.tables.files.len() as u32;
        self.tables.files.push(record);
        self.file_index.insert(key, index);
        index
    }

    /// Adds stored bytes that are to be copied from `source`, split at the multiples of
    /// [`content::MAX_EXTENT`]. `addr` as in [`Extent::addr`]. Callers make a [`Range`] of the
    /// extents they added one after the other: `let first = b.extent_mark(); ...; b.extents_since(first)`.
    pub fn extent(&mut self, addr: u64, len: u64, flags: u32, source: &Source) {
        let mut done = 0;
        while done < len {
            let part = (len - done).min(content::MAX_EXTENT - (addr + done) % content::MAX_EXTENT);
            self.tables.extents.push(Extent { addr: addr + done, len: part, flags, ..Extent::default() });
            self.sources.push(source.part(done, part));
            done += part;
        }
    }

    /// Where the next extent will be.
    #[must_use]
    pub fn extent_mark(&self) -> u32 {
        self.tables.extents.len() as u32
    }

    /// Extents added since `first`.
    #[must_use]
    pub fn extents_since(&self, first: u32) -> Range {
        Range { first, count: self.extent_mark() - first }
    }

    /// Index of a credentials record, added when it is new.
    pub fn creds(&mut self, record: Creds) -> u32 {
        let key = record.as_bytes().to_vec();
        if let Some(index) = self.creds_index.get(&key) {
            return *index;
        }
        let index = self.tables.creds.len() as u32;
        self.tables.creds.push(record);
        self.creds_index.insert(key, index);
        index
    }

    /// Adds records to a table.
    pub fn append<T: Copy>(table: &mut Vec<T>, records: &[T]) -> Range {
        let first = table.len() as u32;
        table.extend_from_slice(records);
        Range { first, count: records.len() as u32 }
    }

    /// Adds queued signals.
    pub fn pending(&mut self, signals: &[PendingSignal]) -> Range {
        Self::append(&mut self.tables.pending, signals)
    }

    /// A payload record that was stored before.
    #[must_use]
    pub fn payload_of<T: Record>(&self, span: Span) -> Option<T> {
        let bytes = self.tables.blobs.get(span.offset as usize..)?;
        T::read_from_prefix(bytes).ok().map(|(record, _)| record)
    }

    /// Notes something that cannot be saved. The plan goes on, so that all are found at once.
    pub fn refuse(&mut self, pid: i32, what: impl Into<String>, remedy: impl Into<String>) {
        self.obstacles.push(Obstacle::new(pid, what, remedy));
    }

    /// Something that can be left out if the user allowed `kind` (one of [`ALLOW_KINDS`]): a loss
    /// that the image records, else an obstacle whose remedy names the option.
    pub fn loss(&mut self, kind: &'static str, pid: i32, text: impl Into<String>) {
        let text = text.into();
        if self.allows(kind) {
            let kind = self.blob(kind.as_bytes());
            let text = self.blob(text.as_bytes());
            self.tables.losses.push(Loss { kind, text, pid, reserved: 0 });
        } else {
            self.refuse(pid, text, format!("`--allow {kind}` dumps without it"));
            if let Some(obstacle) = self.obstacles.last_mut() {
                obstacle.allow = Some(kind.to_owned());
            }
        }
    }

    /// Whether the user accepted a kind of loss.
    #[must_use]
    pub fn allows(&self, kind: &str) -> bool {
        self.options.allow.contains(kind) || kind == "tcp-established" && self.options.resets_tcp()
    }

    /// Something that is not saved, and need not be for the program to go on as it might have:
    /// recorded in the image, without asking.
    pub fn note(&mut self, kind: &str, pid: i32, text: &str) {
        let (kind, text) = (self.blob(kind.as_bytes()), self.blob(text.as_bytes()));
        self.tables.losses.push(Loss { kind, text, pid, reserved: 0 });
    }

    /// The finished plan, or everything that stands in the way.
    ///
    /// # Errors
    /// The obstacles, in the order in which they were found.
    pub fn finish(self) -> Result<Plan, Vec<Obstacle>> {
        if !self.obstacles.is_empty() {
            return Err(self.obstacles);
        }
        Ok(Plan {
            header: self.header,
            tables: self.tables,
            sources: self.sources,
            ancestors: self.ancestors,
            earlier: self.earlier,
            spaces: self.spaces,
            verify: false,
            shares: false,
            urgent: Vec::new(),
            compress: false,
            track: false,
            on_writer: None,
            dedup: false,
            parent: None,
        })
    }
}

/// Takes every decision.
///
/// # Errors
/// All obstacles.
pub fn plan(facts: &Facts, stub: &Stub, options: Options) -> Result<Plan, Vec<Obstacle>> {
    let mut builder = Builder::new(options);
    builder.obstacles.extend(facts.obstacles.iter().cloned());
    header(&mut builder, facts);
    if facts.partial {
        fd::plan(&mut builder, facts);
        return builder.finish();
    }
    // Descriptors first: they store the whole of a file without a name, mappings only what they show.
    let fd_tables = fd::plan(&mut builder, facts);
    sysv::plan(&mut builder, facts);
    task::plan_all(&mut builder, facts, &fd_tables);
    // Last: its size depends on that of all tables.
    if let (Err(why), Some(task)) = (hole::plan(&mut builder, facts, stub), facts.tasks.first()) {
        builder.refuse(task.pid, format!("memory: {why}"), "let it unmap something");
    }
    builder.finish()
}

fn header(builder: &mut Builder, facts: &Facts) {
    let host = &facts.host;
    let process = facts.tasks.first().map(|t| &t.process);
    let text = |builder: &mut Builder, text: &str| builder.blob(text.as_bytes());
    let header = Header {
        flags: if builder.options.embed { header::header_flags::EMBEDDED } else { 0 },
        uuid: host.uuid,
        boot_id: host.boot_id,
        time_realtime: host.time_realtime,
        time_monotonic: host.time_monotonic,
        time_boottime: host.time_boottime,
        root_task: 0,
        page_size: PAGE_SIZE as u32,
        cpu: facts.cpu.features,
        host: text(builder, &host.hostname),
        kernel: text(builder, &host.kernel),
        program: text(builder, process.map_or("", |p| &p.name)),
        command: text(builder, process.map_or("", |p| &p.command)),
        dumper: text(builder, env!("CARGO_PKG_VERSION")),
        ..builder.header
    };
    builder.header = header;
}
