//! Messages to whoever ran the image, and the error type. No allocation: a message is formatted
//! into a buffer on the stack and written with one write(2).

use crate::sys::{Errno, Fd, fd, process};
use ckpt_format::{EXIT_RESTORE_FAILED, FormatError};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use linux_raw_sys::general::{CLOCK_REALTIME, O_APPEND, O_CREAT, O_NOCTTY, O_WRONLY};

/// Where messages go: standard error, later a duplicate of it out of the program's way.
static MESSAGES: AtomicI32 = AtomicI32::new(2);
/// The file of --log; -1 for none.
static LOG: AtomicI32 = AtomicI32::new(-1);
static VERBOSE: AtomicBool = AtomicBool::new(false);
/// When the command line was read, in ns of CLOCK_REALTIME: others may be set back by a time namespace.
static BEGAN: AtomicU64 = AtomicU64::new(0);

/// Sends messages to another descriptor; -1 drops them.
pub fn set_descriptor(fd: i32) {
    MESSAGES.store(fd, Ordering::Relaxed);
}

pub fn set_log(fd: Fd) {
    LOG.store(fd.0, Ordering::Relaxed);
}

/// The descriptor of the log.
pub fn log() -> Option<Fd> {
    Some(Fd(LOG.load(Ordering::Relaxed))).filter(|fd| fd.0 >= 0)
}

/// Nothing is said any more: the descriptors are closed.
pub fn end() {
    set_descriptor(-1);
    set_log(Fd(-1));
}

/// What messages need, in ascending order.
pub fn descriptors() -> impl Iterator<Item = u32> {
    let mut both = [MESSAGES.load(Ordering::Relaxed), LOG.load(Ordering::Relaxed)];
    both.sort_unstable();
    both.into_iter().filter_map(|fd| u32::try_from(fd).ok())
}

/// The command line has been read.
pub fn begin(verbose: bool) {
    VERBOSE.store(verbose, Ordering::Relaxed);
    BEGAN.store(process::clock_ns(CLOCK_REALTIME), Ordering::Relaxed);
}

/// --log: everything is said there, too. What an earlier run wrote stays.
pub fn open_log(path: &'static [u8]) -> Result<()> {
    let fd = fd::open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY, 0o600)
        .map_err(|e| Error::os("--log: cannot open")(e).path(path))?;
    set_log(fd);
    Ok(())
}

fn since_began_us() -> u64 {
    process::clock_ns(CLOCK_REALTIME).saturating_sub(BEGAN.load(Ordering::Relaxed)) / 1000
}

/// Under --verbose: how long it took until here.
pub fn passed(what: &str) {
    if VERBOSE.load(Ordering::Relaxed) {
        let us = since_began_us();
        print(Fd(descriptor()), format_args!("ckpt: {:6}.{:03} ms: {what}\n", us / 1000, us % 1000));
    }
    detail(format_args!("{what}"));
}

/// A line of the log, with the time since the start and the process.
pub fn detail(args: fmt::Arguments<'_>) {
    if let Some(log) = log() {
        let us = since_began_us();
        print(log, format_args!("{:6}.{:03} ms {}: {args}\n", us / 1000, us % 1000, process::getpid()));
    }
}

struct Buffer {
    fd: Fd,
    bytes: [u8; 512],
    len: usize,
}

impl Buffer {
    fn new(fd: Fd) -> Self {
        Self { fd, bytes: [0; 512], len: 0 }
    }

    fn flush(&mut self) {
        let _ = fd::write_all(self.fd, &self.bytes[..self.len]);
        self.len = 0;
    }
}

impl Write for Buffer {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            if self.len == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// Prints to a descriptor.
pub fn print(fd: Fd, args: fmt::Arguments<'_>) {
    let mut out = Buffer::new(fd);
    let _ = out.write_fmt(args);
    out.flush();
}

fn descriptor() -> i32 {
    MESSAGES.load(Ordering::Relaxed)
}

/// One line "ckpt: ..." on standard error.
pub fn say(args: fmt::Arguments<'_>) {
    print(Fd(descriptor()), format_args!("ckpt: {args}\n"));
    detail(args);
}

/// As [`say`], under --verbose only.
pub fn note(args: fmt::Arguments<'_>) {
    if VERBOSE.load(Ordering::Relaxed) {
        say(args);
    } else {
        detail(args);
    }
}

/// What an attempt was made on.
#[derive(Clone, Copy)]
pub enum On {
    Nothing,
    Bytes(&'static [u8]),
    Pid(i32),
    /// A process with its name.
    Process(i32, &'static [u8]),
    Fd(i32),
    /// A descriptor, and of which process it was.
    FdOf(i32, i32),
    /// A descriptor and the path of its file.
    FdPath(i32, &'static [u8]),
    /// As `FdPath`, of the process with this id.
    FdPathOf(i32, &'static [u8], i32),
    Number(u64),
    /// Id of an object, and a process that has to do with it (0 for none), with its name.
    Held(i32, i32, &'static [u8]),
    /// Start and end of a mapping.
    Range(u64, u64),
    /// CPU features: bits of [`ckpt_format::cpu::WORDS`].
    Features([u32; ckpt_format::cpu::WORDS.len()]),
}

#[derive(Clone, Copy)]
enum Why {
    Unsaid,
    Errno(Errno),
    Format(FormatError),
}

/// Why the program cannot be restored: what was attempted, on what, the errno, the remedy.
#[derive(Clone, Copy)]
pub struct Error {
    what: &'static str,
    on: On,
    why: Why,
    remedy: &'static str,
}

pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    /// A sentence without a cause of the kernel's.
    pub const fn new(what: &'static str) -> Self {
        Self { what, on: On::Nothing, why: Why::Unsaid, remedy: "" }
    }

    /// For `map_err`: `what` failed with the errno.
    pub fn os(what: &'static str) -> impl Fn(Errno) -> Self {
        move |e| Self { what, on: On::Nothing, why: Why::Errno(e), remedy: "" }
    }

    #[must_use]
    pub const fn on(mut self, on: On) -> Self {
        self.on = on;
        self
    }

    #[must_use]
    pub const fn path(self, path: &'static [u8]) -> Self {
        self.on(On::Bytes(path))
    }

    #[must_use]
    pub const fn fd(self, fd: i32) -> Self {
        self.on(On::Fd(fd))
    }

    #[must_use]
    pub const fn remedy(mut self, remedy: &'static str) -> Self {
        self.remedy = remedy;
        self
    }
}

impl From<FormatError> for Error {
    fn from(e: FormatError) -> Self {
        let remedy = match e {
            FormatError::Reference(_) | FormatError::Checksum(_) | FormatError::Truncated { .. } => {
                "copy or dump it again"
            }
            _ => "",
        };
        Self { what: "", on: On::Nothing, why: Why::Format(e), remedy }
    }
}

/// Bytes as text, with what is not printable escaped.
pub struct Printable<'a>(pub &'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
            }
            for b in chunk.invalid() {
                write!(f, "\\x{b:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Nothing => Ok(()),
            Self::Bytes(b) => write!(f, " {}", Printable(b)),
            Self::Pid(p) => write!(f, " {p}"),
            Self::Process(p, b"") => write!(f, " {p}"),
            Self::Process(p, name) => write!(f, " {p} ({})", Printable(name)),
            Self::Fd(n) => write!(f, " (fd {n})"),
            Self::FdOf(n, pid) => write!(f, " (fd {n} of process {pid})"),
            Self::FdPath(n, path) => write!(f, " fd {n} ({})", Printable(path)),
            Self::FdPathOf(n, path, pid) => write!(f, " fd {n} of process {pid} ({})", Printable(path)),
            Self::Number(n) => write!(f, " {n}"),
            Self::Held(id, pid, _) if pid <= 0 => write!(f, " {id}"),
            Self::Held(id, pid, name) => write!(f, " {id}, of process {pid} ({})", Printable(name)),
            Self::Range(a, b) => write!(f, " {a:#x}-{b:#x}"),
            Self::Features(words) => ckpt_format::cpu::FEATURES
                .iter()
                .filter(|(word, bit, _)| words[usize::from(*word)] & 1 << bit != 0)
                .try_for_each(|(_, _, name)| write!(f, " {name}")),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.what, self.on)?;
        match self.why {
            Why::Unsaid => {}
            Why::Errno(e) => write!(f, ": {e}")?,
            Why::Format(e) => write!(f, "{e}")?,
        }
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Ends a failed restore: the message, status 125, and nothing left (see `tracer` for who notices).
pub fn fail(error: Error) -> ! {
    say(format_args!("{error}"));
    process::exit_group(EXIT_RESTORE_FAILED)
}
