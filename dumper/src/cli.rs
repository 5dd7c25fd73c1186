//! The command line.

use crate::caller::Caller;
use crate::target::Target;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Writes a running process, and all processes below it, into one executable file that goes on from there.
///
/// The whole tree is stopped at one instant. It needs no preparation: no preloaded library, no relinking, no root for one's own
/// processes. It is stopped while its state is read and runs on afterwards, unharmed, unless --kill
/// or --leave-stopped say otherwise. Run the file to let the program go on: `./saved.ckpt`
/// (`./saved.ckpt --help` tells what is saved in it).
#[derive(Debug, Parser)]
#[command(
    name = "ckpt-dump",
    version,
    override_usage = "ckpt-dump [OPTIONS] <PID> -o <FILE>\n       ckpt-dump [OPTIONS] --name <NAME>|--pidfile <FILE> -o <FILE>\n       ckpt-dump [OPTIONS] <PID> --check",
    after_help = "Examples:\n  \
        ckpt-dump 4242 -o saved.ckpt           save it, let it run on\n  \
        ckpt-dump 4242 -o saved.ckpt --kill    save it, then end it\n  \
        ckpt-dump 4242 --check                 only tell what could not be saved\n  \
        ckpt-dump 4242 -o job.ckpt --every 10m --keep 3     ... until it ends: job.ckpt, job.ckpt.1, job.ckpt.2\n  \
        ckpt-dump 4242 -o - | ssh host 'cat > x.ckpt; chmod +x x.ckpt; ./x.ckpt'",
    after_long_help = long_help()
)]
pub struct Cli {
    /// Process to save, with its children and theirs
    #[arg(value_parser = clap::value_parser!(i32).range(1..), group = "target", required_unless_present_any = ["name", "pidfile"])]
    pub pid: Option<i32>,

    /// Save the process of this name (as ps(1) shows it, or the last part of its command): there must be one
    /// only, besides those below it
    #[arg(long, value_name = "NAME", group = "target")]
    pub name: Option<String>,

    /// Save the process whose id is in this file
    #[arg(long, value_name = "FILE", group = "target")]
    pub pidfile: Option<PathBuf>,

    /// The image to write (replaced if it exists; mode 0700, as it holds the process's secrets). `-`: to
    /// standard output, complete, after it was made in $TMPDIR (or /tmp)
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["check", "output_fd"])]
    pub output: Option<PathBuf>,

    /// Kill the processes (SIGKILL) once the image is complete and synced
    #[arg(long, conflicts_with_all = ["leave_stopped", "check"])]
    pub kill: bool,

    /// Leave the processes stopped (as by SIGSTOP) afterwards
    #[arg(long, conflicts_with = "check")]
    pub leave_stopped: bool,

    /// Freeze this cgroup (version 2) while the processes are being stopped: all of them stop at once, however many
    /// there are. One that is frozen already is frozen again afterwards
    #[arg(long, value_name = "DIR")]
    pub freeze_cgroup: Option<PathBuf>,

    /// Stop the processes only while their memory is copied (copy-on-write, as by fork), and write the image
    /// from the copy
    #[arg(long)]
    pub snapshot: bool,

    /// Compress the image (LZ4): smaller, but takes longer to write, and cannot be restored by --memory map.
    /// Implies --dedup
    #[arg(long)]
    pub compress: bool,

    /// Store runs of 16 or more equal pages (64 KiB) once, whichever processes they are of
    #[arg(long)]
    pub dedup: bool,

    /// An earlier image of the program: blocks of what is still equal are shared with it, where the file system
    /// can (XFS, Btrfs; both in one). The new image needs nothing of it afterwards, and may replace it. If it was
    /// made with --track, what has not been written to since is not read; without --track, tracking ends then. Of
    /// compressed images, or with --compress, only that is taken. What has changed since may still be found in the
    /// file of the new image
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    pub parent: Option<PathBuf>,

    /// Let the kernel note which memory the program writes to from now on: the next dump, with this image as its
    /// --parent, then reads that only. A process of ours stays until that dump (or until it is killed: then the
    /// next dump reads everything). With --every, --on-signal the last image is the parent of the next
    #[arg(long, conflicts_with = "check")]
    pub track: bool,

    /// Dump again and again, so often (30s, 10m, 1h30m), until the process ends or ckpt-dump is told to (SIGINT,
    /// SIGTERM). A dump that fails is tried again the next time, unless it is the first
    #[arg(long, value_name = "TIME", value_parser = interval, conflicts_with_all = ["check"])]
    pub every: Option<Duration>,

    /// Dump whenever this signal (USR1, TERM ...) is sent to ckpt-dump, which waits for it. With --kill or
    /// --leave-stopped that dump is the last. Repeat it for more signals; with --every for both
    #[arg(long, value_name = "SIGNAL", value_parser = signal, conflicts_with_all = ["check"])]
    pub on_signal: Vec<i32>,

    /// Keep so many images: FILE is the newest, FILE.1 the one before, and so on
    #[arg(long, value_name = "NUMBER", default_value_t = 1, hide_default_value = true,
        value_parser = clap::value_parser!(u32).range(1..=10_000), conflicts_with = "check")]
    pub keep: u32,

    /// Wait until the image is safe on the disk (as it always is with --kill, or when it replaces a file),
    /// not only complete
    #[arg(long)]
    pub sync: bool,

    /// Write nothing; list everything that would stand in the way, or be lost
    #[arg(long)]
    pub check: bool,

    /// Do not store the contents of program and library files: a smaller image that needs the very
    /// same files where it runs
    #[arg(long)]
    pub no_embed: bool,

    /// Leave out the restorer: an image that is some 350 KiB smaller, for many small ones, which only ckpt-restore
    /// can restore. Executed without it, such an image says so
    #[arg(long, conflicts_with = "check")]
    pub no_stub: bool,

    /// Dump although this kind of state is lost; may be repeated (see --help for the kinds)
    #[arg(long, value_name = "KIND", value_parser = allow_kind)]
    pub allow: Vec<String>,

    /// Look through this directory, and all below it, for what the program watches with inotify, where
    /// that is not found otherwise; may be repeated
    #[arg(long, value_name = "DIR")]
    pub search: Vec<PathBuf>,

    /// TCP connections to the outside: go on with them (needs CAP_NET_ADMIN, at the dump and at the restore),
    /// let the program see a reset, or refuse. Default: go on where permitted, else refuse
    #[arg(long, value_name = "HOW")]
    pub tcp: Option<Tcp>,

    /// With --kill: what the other ends of such connections send is dropped silently, rather than answered by
    /// a reset, until a restore on this machine takes over, for at most so long
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub tcp_hold: u64,

    /// For libckpt, whose caller dumps itself: the thread TID of the process waits in read(FD) for the end of
    /// this program, whose standard output is the other end. In the image that call has returned, and the
    /// descriptor is closed
    #[arg(long, value_name = "TID:FD", hide = true, value_parser = caller, conflicts_with_all = ["every", "on_signal", "check"])]
    pub caller: Option<Caller>,

    /// For libckpt: a descriptor of the process that is not in the image, nor any other of the same open file
    #[arg(long, value_name = "FD", hide = true, requires = "caller")]
    pub leave_out_fd: Vec<i32>,

    /// For libckpt: the identity that the image gets
    #[arg(long, value_name = "UUID", hide = true, value_parser = uuid)]
    pub uuid: Option<[u8; 16]>,

    /// For libckpt: an open file of this program that becomes the image
    #[arg(long, value_name = "FD", hide = true, conflicts_with_all = ["output", "check", "parent"])]
    pub output_fd: Option<i32>,

    /// Print the result as JSON on stdout
    #[arg(long)]
    pub json: bool,

    /// Tell what is being done; twice for details, and how long each step took; three times for all that was seen
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,

    /// Append everything that is done and seen, as with -vvv, and errors, with times, to this file
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

impl Cli {
    /// What clap cannot see: that no option needs another kind of output, or time, than is given.
    ///
    /// # Errors
    /// As clap's.
    pub fn check(&self) -> Result<(), clap::Error> {
        let conflict = |text: &str| Cli::command().error(ErrorKind::ArgumentConflict, text);
        if self.to_stdout() && (self.repeats() || self.keep > 1) {
            return Err(conflict("-o - is for one image: --every, --on-signal and --keep need a file"));
        }
        if self.every.is_some() && self.on_signal.is_empty() && (self.kill || self.leave_stopped) {
            return Err(conflict(
                "with --every the process runs on; --kill and --leave-stopped are for the dumps that --on-signal asks for",
            ));
        }
        if self.track && self.kill && !self.repeats() {
            return Err(conflict("--track is for the next dump; with --kill there is none"));
        }
        Ok(())
    }

    /// The image goes to standard output.
    #[must_use]
    pub fn to_stdout(&self) -> bool {
        self.output.as_deref() == Some(Path::new("-"))
    }

    /// Not one dump, at once.
    #[must_use]
    pub fn repeats(&self) -> bool {
        self.every.is_some() || !self.on_signal.is_empty()
    }

    /// The process that is meant.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        match (self.pid, &self.name, &self.pidfile) {
            (Some(pid), ..) => Target::Pid(pid),
            (_, Some(name), _) => Target::Name(name),
            // One of them is required.
            (.., file) => Target::File(file.as_deref().unwrap_or(Path::new(""))),
        }
    }
}

/// --tcp
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Tcp {
    Repair,
    Reset,
    Refuse,
}

fn caller(text: &str) -> Result<Caller, String> {
    let (tid, fd) = text.split_once(':').ok_or("TID:FD is expected")?;
    let number = |text: &str| text.parse::<i32>().map_err(|e| e.to_string());
    Ok(Caller { tid: number(tid)?, fd: number(fd)?, leave_out: Vec::new() })
}

fn uuid(text: &str) -> Result<[u8; 16], String> {
    crate::collect::host::parse_uuid(text).ok_or_else(|| "32 hexadecimal digits are expected".into())
}

fn allow_kind(text: &str) -> Result<String, String> {
    let kinds = crate::plan::ALLOW_KINDS;
    if kinds.iter().any(|(kind, _)| *kind == text) {
        return Ok(text.to_owned());
    }
    let known: Vec<_> = kinds.iter().map(|(kind, _)| *kind).collect();
    Err(format!("the kinds are: {}", known.join(", ")))
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|e| format!("{e} (examples: 30s, 10m, 1h30m)"))?;
    if time < Duration::from_secs(1) { Err("at least 1s".into()) } else { Ok(time) }
}

fn signal(text: &str) -> Result<i32, String> {
    let name = text.to_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    let signal = text.parse().ok().and_then(|n: i32| Signal::try_from(n).ok()).or_else(|| name.parse().ok());
    match signal {
        None => Err("not a signal; `kill -l` lists them".into()),
        Some(Signal::SIGKILL | Signal::SIGSTOP | Signal::SIGCHLD) => Err("cannot be waited for".into()),
        Some(signal) => Ok(signal as i32),
    }
}

fn long_help() -> String {
    let mut text = String::from("Kinds of loss that --allow accepts:\n");
    for (kind, loss) in crate::plan::ALLOW_KINDS {
        text.push_str(&format!("  {kind:<16} {loss}\n"));
    }
    text.push_str(
        "\nWith --every or --on-signal the exit status is 0 when the process has ended, or ckpt-dump was told to, and the\n\
         last dump was good; 3 when it has ended before any dump.\n\
         \nExit status:\n  \
         0  done\n  \
         1  an error not listed here, or interrupted by a signal\n  \
         2  wrong usage\n  \
         3  no such process (or --name fits several), or it ended during the dump\n  \
         4  not permitted to trace it\n  \
         5  refused: it has state that cannot be saved; every obstacle is listed with its remedy\n  \
         6  the image cannot be written\n  \
         7  cannot be dumped at all: kernel thread, zombie, already traced\n\
         \n\
         Whatever the error, the process runs on and nothing is left under the name of the image.\n\
         \n\
         Examples:\n  \
         ckpt-dump 4242 -o saved.ckpt           save it, let it run on\n  \
         ckpt-dump 4242 -o saved.ckpt --kill    save it, then end it\n  \
         ckpt-dump 4242 --check                 only tell what could not be saved\n  \
         ckpt-dump 4242 -o job.ckpt --every 10m --keep 3     ... until it ends: job.ckpt, job.ckpt.1, job.ckpt.2\n  \
         ckpt-dump 4242 -o - | ssh host 'cat > x.ckpt; chmod +x x.ckpt; ./x.ckpt'",
    );
    text
}
