//! System calls that the target runs for us, and its memory.

use super::RemoteAddr;
use super::gadget::Gadgets;
use anyhow::{Context, Result};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// One system call: its number and arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub number: i64,
    pub args: [u64; 6],
}

impl Call {
    /// No call: makes a copy of the process; see [`super::copy`].
    pub const COPY: Self = Self { number: super::parachute::COPY, args: [0; 6] };

    /// A call with up to six arguments; missing ones are 0.
    #[must_use]
    pub fn new(number: i64, args: &[u64]) -> Self {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        Self { number, args: all }
    }
}

/// Memory in the target that calls may use for their arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scratch {
    pub addr: RemoteAddr,
    /// Length in bytes.
    pub len: u64,
}

/// Where a call is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Site {
    /// A `syscall` instruction of the program. Should we die during the call, the thread goes on
    /// behind that instruction with wrong registers.
    Bare(RemoteAddr),
    /// The program's code, with a way back on the thread's stack, which is in this mapping.
    Stack(Gadgets, Range<u64>),
    /// Our own code, with a way back; see [`super::parachute`]. `quiet` are signals that the process ignores.
    Parachute { code: RemoteAddr, frame: RemoteAddr, quiet: u64 },
}

/// `/proc/PID/mem`: works whatever the protection of the pages.
#[derive(Debug)]
pub struct RemoteMemory {
    pid: i32,
    file: File,
}

impl RemoteMemory {
    /// That of a process or of any of its threads.
    ///
    /// # Errors
    /// When we may not trace the process, or it has exited.
    pub fn open(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/mem");
        let file = File::options().read(true).write(true).open(&path);
        Ok(Self { pid, file: file.with_context(|| format!("opening {path}"))? })
    }

    /// # Errors
    /// When not all of the bytes can be read.
    pub fn read(&self, addr: RemoteAddr, buf: &mut [u8]) -> Result<()> {
        let len = buf.len();
        self.file
            .read_exact_at(buf, addr.0)
            .with_context(|| format!("reading {len} bytes at {addr} of PID {}", self.pid))
    }

    /// A little-endian word, if it can be read.
    #[must_use]
    pub fn word(&self, addr: RemoteAddr) -> Option<u64> {
        let mut word = [0; 8];
        self.file.read_exact_at(&mut word, addr.0).ok()?;
        Some(u64::from_le_bytes(word))
    }

    /// # Errors
    /// When not all of the bytes can be written.
    pub fn write(&self, addr: RemoteAddr, bytes: &[u8]) -> Result<()> {
        let len = bytes.len();
        self.file
            .write_all_at(bytes, addr.0)
            .with_context(|| format!("writing {len} bytes at {addr} of PID {}", self.pid))
    }
}
