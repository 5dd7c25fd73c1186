//! One dump from beginning to end.

use crate::caller::Caller;
use crate::collect::fd::repair::Wish;
use crate::collect::{self, Facts, proc};
use crate::contents::Contents;
use crate::error::{Failure, Obstacle};
use crate::freezer::Freezer;
use crate::narrate::narrate;
use crate::plan::{self, Options};
use crate::ptrace::{Fate, FrozenTree};
use crate::snapshot::{self, Snapshot};
use crate::sys::tcp::Hold;
use crate::sys::{share, signals};
use crate::track::Tracker;
use crate::{failpoint, farewell, keep, preflight, report};
use anyhow::{Context, Result, anyhow};
use ckpt_reader::ImageFile;
use elf_writer::stub::Stub;
use elf_writer::{PendingImage, Plan, Stage, WriteError};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What to do.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub pid: i32,
    /// `None`: only check.
    pub output: Option<Output<'a>>,
    pub fate: Fate,
    /// Freeze this cgroup while the processes are being stopped.
    pub freeze_cgroup: Option<&'a Path>,
    /// The image is safe on the disk before this ends. So it always is before anything is killed.
    pub sync: bool,
    /// Let the processes run on as soon as there is a copy of their memory.
    pub snapshot: bool,
    /// Compress the contents of the image.
    pub compress: bool,
    /// Store runs of equal pages once.
    pub dedup: bool,
    /// Leave out the restorer.
    pub no_stub: bool,
    /// An earlier image of it, with which the new one shares what is equal.
    pub parent: Option<&'a Path>,
    /// Let the kernel track writes from now on, until the next dump.
    pub track: bool,
    pub options: Options,
    /// How many images of that name there are afterwards, at most.
    pub keep: u32,
    /// The process is dumped for itself.
    pub caller: Option<&'a Caller>,
    /// The identity of the image, if it is known before.
    pub uuid: Option<[u8; 16]>,
    /// How long TCP connections to the outside are held after the end of the processes.
    pub tcp_hold: Duration,
}

/// Where the image goes.
#[derive(Clone, Copy, Debug)]
pub enum Output<'a> {
    File(&'a Path),
    /// Standard output, as a whole when it is complete: it is not written from beginning to end.
    Stdout,
    /// An open file of ours, without a name.
    Descriptor(i32),
}

impl Output<'_> {
    /// Where it is made; a file without name goes beside this one.
    fn place(&self) -> PathBuf {
        match self {
            Self::File(path) => (*path).into(),
            Self::Stdout => std::env::temp_dir().join("ckpt-image"),
            Self::Descriptor(fd) => format!("/proc/self/fd/{fd}").into(),
        }
    }
}

/// What was done.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Outcome {
    pub pid: i32,
    pub program: String,
    pub image: Option<String>,
    pub tasks: usize,
    pub threads: usize,
    pub vmas: usize,
    pub descriptors: usize,
    /// Length of the image, bytes that exist nowhere else, bytes embedded from files.
    pub image_bytes: u64,
    pub stored_bytes: u64,
    pub embedded_bytes: u64,
    /// With --compress: bytes that were compressed, and what became of them.
    pub compressible_bytes: u64,
    pub compressed_bytes: u64,
    /// With --dedup: bytes that were found in the image already.
    pub duplicate_bytes: u64,
    /// With --parent: bytes whose blocks are shared with it; null where the file system cannot.
    pub inherited_bytes: Option<u64>,
    /// Bytes that came from the parent without being read, as nobody had written to them; and in how many address
    /// spaces that was known, or not.
    pub unread_bytes: u64,
    /// With --parent: this image or that one is compressed, so that nothing else was taken from it.
    pub only_unread: bool,
    pub tracked_since_parent: usize,
    pub not_tracked_since_parent: usize,
    /// With --track: in how many address spaces writes are tracked from now on, and why not in others.
    pub tracked: usize,
    pub not_tracked: Vec<String>,
    /// How long the process was stopped (until it was killed), and the whole dump.
    #[serde(serialize_with = "seconds", rename = "pause_seconds")]
    pub pause: Duration,
    #[serde(serialize_with = "seconds", rename = "total_seconds")]
    pub total: Duration,
    /// State that is not in the image, with the `--allow` kind that accepted it.
    pub losses: Vec<Loss>,
}

/// One accepted loss.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Loss {
    pub pid: i32,
    pub kind: String,
    pub text: String,
}

fn seconds<S: serde::Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(d.as_secs_f64())
}

/// Why there is no image.
#[derive(Debug)]
pub enum Refusal {
    /// See [`crate::error::exit_code`].
    Error(anyhow::Error),
    /// Exit status 5.
    Obstacles(Vec<Obstacle>),
}

impl<E: Into<anyhow::Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// Called with bytes done and bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Dumps a process. Whatever the result, the process goes on unharmed, unless all went well and
/// [`Request::fate`] is another; nothing partial is left on disk. [`signals::block`] must have been
/// called by this thread.
///
/// # Errors
/// See [`Refusal`].
pub fn dump(request: &Request<'_>, progress: Progress<'_>) -> Result<Outcome, Refusal> {
    report::lap("started");
    let result = dump_it(request, progress);
    report::laps();
    result.map_err(|refusal| match refusal {
        // Whatever failed first, it failed because of that.
        Refusal::Error(error)
            if error.downcast_ref::<Failure>().is_none() && preflight::is_gone(request.pid) =>
        {
            Refusal::Error(Failure::Vanished(request.pid).into())
        }
        other => other,
    })
}

fn dump_it(request: &Request<'_>, progress: Progress<'_>) -> Result<Outcome, Refusal> {
    let started = Instant::now();
    let name = preflight::check(request.pid, request.freeze_cgroup.is_some())?;
    // First: what stays is a copy of us.
    let mut tracker = Tracker::new(request.track, request.pid)?;
    let mut image = request.output.map(create).transpose()?;
    if let Some(image) = &mut image {
        image.make_room(preflight::own_memory(request.pid)).map_err(|e| output_error(Path::new(""), e))?;
    }
    let parent = request.parent.map(open_parent).transpose()?;
    tracker.parent = parent.as_ref().map(|p| p.image().map(|image| image.header.uuid)).transpose()?;
    let shares = parent.as_ref().zip(image.as_ref()).is_some_and(|(parent, image)| can_share(parent, image));
    failpoint::hit("after-open")?;
    let stub = Stub::built_in().context("preparing the restorer")?;
    // Before anything is stopped, where it may be needed: it takes milliseconds.
    let traced = preflight::has_children(request.pid).then(preflight::traced);
    let whole = !request.options.allow.contains("children");
    report::lap("prepared");

    if let Some(caller) = request.caller {
        caller.await_call(request.pid)?;
    }
    let freezer = request.freeze_cgroup.map(|dir| Freezer::freeze(dir, request.pid)).transpose()?;
    let mut frozen = FrozenTree::freeze(request.pid, whole, freezer)?;
    report::lap("threads prepared");
    report::info(|| {
        let (live, threads, zombies) = (frozen.live.len(), frozen.thread_count(), frozen.zombies.len());
        format!(
            "PID {} ({name}): {live} processes, {threads} threads stopped, {zombies} zombies",
            request.pid
        )
    });
    let connections = Wish {
        look: request.options.repairs_tcp(),
        hold: Some(request.tcp_hold).filter(|_| image.is_some() && request.fate == Fate::Kill),
        ..Wish::default()
    };
    let leave_out = request.caller.map(Caller::leaves_out).transpose()?.unwrap_or_default();
    let mut facts =
        collect::collect(&mut frozen, &request.options.search, connections, &leave_out, &mut tracker)?;
    if let Some(caller) = request.caller {
        caller.answer(&mut facts)?;
    }
    facts.host.uuid = request.uuid.unwrap_or(facts.host.uuid);
    if facts.tasks.is_empty() || facts.tasks.iter().any(|t| t.process.waits_for_somebody) {
        let traced = traced.unwrap_or_else(preflight::traced);
        for member in &frozen.live {
            facts.obstacles.extend(preflight::tracees(member.pid(), &member.tids(), &traced));
        }
    }
    if request.snapshot {
        facts.obstacles.extend(snapshot::obstacles(&facts));
    }
    report::lap("observed: System V IPC");
    failpoint::hit("after-collect")?;
    stop_requested()?;
    let mut plan = plan::plan(&facts, &stub, request.options.clone()).map_err(|obstacles| {
        narrate(&facts);
        refusal(obstacles, &frozen)
    })?;
    plan.compress = request.compress;
    plan.dedup = request.dedup;
    plan.track = request.track;
    plan.on_writer = Some(crate::sys::thread::make_way);
    (plan.parent, plan.shares) = (parent, shares);
    // What is killed has no other copy.
    plan.verify = request.fate == Fate::Kill;
    let (image_id, spaces) = (plan.header.uuid, std::mem::take(&mut plan.spaces));
    report::lap("planned");
    failpoint::hit("after-plan")?;
    let mut outcome = outcome(request, &facts, &plan);

    let Some(image) = image else {
        outcome.pause = frozen.end(Fate::Run)?;
        outcome.total = started.elapsed();
        return Ok(outcome);
    };
    report::info(|| format!("plan: {} VMAs, {} extents", outcome.vmas, plan.tables.extents.len()));
    let copy = match request.snapshot {
        true => Some(snapshot::take(&mut frozen, &facts, &mut plan).context("--snapshot")?),
        false => None,
    };
    report::lap("copied (--snapshot)");
    // Those that are to end otherwise than by running on must not do so before the image is complete.
    let early = if copy.is_some() { Stage::Urgent } else { Stage::All };
    let early = (request.fate == Fate::Run).then_some(early);
    let mut stopped = Stopped { frozen: Some(frozen), pause: Ok(Duration::ZERO) };
    // There is room for it nevertheless: who restores the image needs that.
    let stub = if request.no_stub { Stub::notice() } else { stub };
    let written = write(image, plan, &stub, &facts, progress, |stage| {
        if early == Some(stage) { stopped.run_on() } else { Ok(()) }
    });
    let Stopped { frozen, pause } = stopped;
    outcome.pause = pause?;
    let image = written?;
    report::lap("image written");
    // The processes run on by now, unless they are to end.
    narrate(&facts);
    copy.map_or(Ok(()), Snapshot::end)?;
    failpoint::hit("after-write")?;
    stop_requested()?;

    // A process that is to be killed stays stopped until its image is safe: it must not do anything
    // that the image does not know. Others need not wait for the disk.
    let summary = if request.fate == Fate::Kill
        && let Some(frozen) = frozen
    {
        let summary = commit(image, request, true)?;
        let outside = farewell::silence(&mut facts)?;
        let inside = farewell::hold(&frozen, &facts);
        outcome.pause = frozen.end(Fate::Kill)?;
        farewell::reset(inside);
        outside.into_iter().for_each(Hold::finish);
        summary
    } else {
        if let Some(frozen) = frozen {
            outcome.pause = frozen.end(request.fate)?;
        }
        commit(image, request, request.sync)?
    };
    report::lap("image named");
    outcome.image_bytes = summary.image_size;
    outcome.stored_bytes = summary.stored_bytes;
    outcome.embedded_bytes = summary.embedded_bytes;
    [outcome.compressible_bytes, outcome.compressed_bytes] = summary.compressed_bytes;
    outcome.duplicate_bytes = summary.duplicate_bytes;
    outcome.inherited_bytes = summary.inherited_bytes;
    outcome.unread_bytes = summary.unread_bytes;
    (outcome.tracked_since_parent, outcome.not_tracked_since_parent) = (tracker.known, tracker.unknown);
    outcome.not_tracked = std::mem::take(&mut tracker.troubles);
    match tracker.commit(image_id, &spaces) {
        Ok(tracked) => outcome.tracked = tracked,
        Err(e) => outcome.not_tracked.push(format!("{e:#}")),
    }
    outcome.total = started.elapsed();
    Ok(outcome)
}

/// The processes, until they run on, and how long they were stopped then.
struct Stopped {
    frozen: Option<FrozenTree>,
    pause: Result<Duration>,
}

impl Stopped {
    fn run_on(&mut self) -> io::Result<()> {
        if let Some(frozen) = self.frozen.take() {
            report::lap("contents read");
            self.pause = frozen.end(Fate::Run);
            report::lap("processes run on");
            failpoint::hit("running").map_err(io::Error::other)?;
        }
        if self.pause.is_err() { Err(io::Error::other("a process ended")) } else { Ok(()) }
    }
}

/// With the names of the processes, which are still stopped: unless one was killed meanwhile, of which /proc tells little.
fn refusal(mut obstacles: Vec<Obstacle>, frozen: &FrozenTree) -> Refusal {
    let killed = |o: &&Obstacle| frozen.live.iter().any(|f| f.pid() == o.pid) && preflight::is_gone(o.pid);
    if let Some(o) = obstacles.iter().find(killed) {
        return Refusal::Error(Failure::Vanished(o.pid).into());
    }
    obstacles.iter_mut().for_each(|o| o.name = proc::name(o.pid));
    Refusal::Obstacles(obstacles)
}

/// The image named by --parent: any image will do, as its bytes are compared.
fn open_parent(path: &Path) -> Result<Arc<ImageFile>> {
    let named = || format!("--parent {}", path.display());
    Ok(Arc::new(ImageFile::open(path).with_context(named)?))
}

fn is_compressed(image: &ImageFile) -> bool {
    image.image().is_ok_and(|image| !image.compression.is_empty())
}

/// Whether the file system can let both share blocks: tried with the place of the header, which is written last.
/// It may have to wait for the disk.
fn can_share(parent: &ImageFile, image: &PendingImage) -> bool {
    let shared = |file| share::clone_range(parent.file(), 0, file, 0, ckpt_format::PAGE_SIZE);
    image.file().is_some_and(|file| shared(file).is_ok())
}

fn create(output: Output<'_>) -> Result<PendingImage> {
    let path = output.place();
    let image = match output {
        Output::Descriptor(_) => PendingImage::nameless(&path),
        Output::File(_) | Output::Stdout => PendingImage::create(&path),
    };
    image.map_err(|e| output_error(&path, e))
}

fn write(
    image: PendingImage,
    plan: Plan,
    stub: &Stub,
    facts: &Facts,
    progress: Progress<'_>,
    reached: impl FnMut(Stage) -> io::Result<()>,
) -> Result<PendingImage> {
    let task = facts.tasks.first().context("no task")?;
    let mut contents = Contents::new(facts.fds.files.clone(), facts.mapped_files.clone()).at_stages(reached);
    let total: u64 = plan.tables.extents.iter().map(|e| e.len).sum();
    let mut failed = None;
    let mut on_progress = |done: u64| {
        progress(done, total);
        let checks = [stop_requested(), if done > 0 { failpoint::hit("mid-write") } else { Ok(()) }];
        match checks.into_iter().find_map(Result::err) {
            Some(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
            None => ControlFlow::Continue(()),
        }
    };
    let written = image.fill(plan, stub, &mut contents, &mut on_progress);
    match (written, failed) {
        (Err(WriteError::Interrupted), Some(error)) => Err(error),
        (Err(WriteError::Content { what, source }), _) if source.raw_os_error() == Some(libc::ESRCH) => {
            Err(anyhow!(Failure::Vanished(task.pid)).context(what))
        }
        (Err(error), _) => Err(output_error(Path::new(""), error)),
        (Ok(image), _) => Ok(image),
    }
}

fn commit(mut image: PendingImage, request: &Request<'_>, sync: bool) -> Result<elf_writer::Summary> {
    let path = request.output.map_or_else(PathBuf::new, |o| o.place());
    let failed = |e| output_error(&path, e);
    if let Some(Output::Stdout) = request.output {
        failpoint::hit("before-rename")?;
        return stream_out(&image).map(|()| image.summary());
    }
    if let Some(Output::Descriptor(_)) = request.output {
        return Ok(image.summary());
    }
    failpoint::hit("before-sync")?;
    // An image that is replaced may be the only good one until the new one is on the disk.
    if sync || path.exists() {
        image.sync().map_err(failed)?;
    }
    failpoint::hit("before-rename")?;
    keep::age(&path, request.keep)?;
    image.commit().map_err(failed)
}

/// The complete image to standard output.
fn stream_out(image: &PendingImage) -> Result<()> {
    let from = image.reader().map_err(|e| output_error(Path::new("-"), e))?;
    let mut out = std::io::stdout().lock();
    let failed = |e: io::Error| Failure::Output {
        path: "standard output".into(),
        cause: e.to_string(),
        remedy: "the process runs on; whoever reads must read all of it".into(),
    };
    // In pieces, so that a signal is noticed between them.
    const PIECE: u64 = 1 << 20;
    while io::copy(&mut (&from).take(PIECE), &mut out).map_err(failed)? > 0 {
        stop_requested()?;
    }
    Ok(out.flush().map_err(failed)?)
}

/// Gives errors of the output file their exit status and a remedy.
fn output_error(path: &Path, error: WriteError) -> anyhow::Error {
    let WriteError::Output { what, path: named, source } = error else {
        return anyhow!(error).context(format!("writing the image {}", path.display()));
    };
    let remedy = match source.raw_os_error() {
        Some(libc::ENOSPC) => "make room, or choose another place with -o; --no-embed makes it smaller",
        Some(libc::EDQUOT) => "your quota is exhausted: choose another place with -o",
        Some(libc::EACCES | libc::EPERM) => "choose a directory that you may write with -o",
        Some(libc::EROFS) => "the file system is read-only: choose another place with -o",
        Some(libc::ENOENT) => "its directory does not exist: create it, or choose another with -o",
        Some(libc::ENOTDIR) => "a part of the path is not a directory: choose another with -o",
        Some(libc::EFBIG) => "the file size limit (ulimit -f) is too small, or the file system's",
        _ => "choose another place with -o",
    };
    Failure::Output {
        path: format!("{}", named.display()),
        cause: if what == "cannot write" { source.to_string() } else { format!("{what}: {source}") },
        remedy: remedy.into(),
    }
    .into()
}

fn stop_requested() -> Result<()> {
    signals::stop_request().map_or(Ok(()), |signal| Err(Failure::Interrupted(signal).into()))
}

fn outcome(request: &Request<'_>, facts: &Facts, plan: &Plan) -> Outcome {
    let t = &plan.tables;
    let text = |span: ckpt_format::Span| {
        let bytes = t.blobs.get(span.offset as usize..(span.offset + span.len) as usize);
        String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
    };
    Outcome {
        pid: request.pid,
        program: facts.tasks.first().map(|t| t.process.name.clone()).unwrap_or_default(),
        image: request.output.map(|output| match output {
            Output::File(path) => path.display().to_string(),
            Output::Stdout => "standard output".into(),
            Output::Descriptor(fd) => format!("descriptor {fd}"),
        }),
        tasks: t.tasks.iter().filter(|t| t.flags & ckpt_format::task::task_flags::HELPER == 0).count(),
        threads: t.threads.len(),
        vmas: t.vmas.len(),
        descriptors: t.fds.len(),
        image_bytes: 0,
        stored_bytes: 0,
        embedded_bytes: 0,
        compressible_bytes: 0,
        compressed_bytes: 0,
        duplicate_bytes: 0,
        inherited_bytes: None,
        unread_bytes: 0,
        only_unread: plan.parent.as_ref().is_some_and(|p| plan.compress || is_compressed(p)),
        tracked_since_parent: 0,
        not_tracked_since_parent: 0,
        tracked: 0,
        not_tracked: Vec::new(),
        pause: Duration::ZERO,
        total: Duration::ZERO,
        losses: t
            .losses
            .iter()
            .map(|l| Loss { pid: l.pid, kind: text(l.kind), text: text(l.text) })
            .collect(),
    }
}
