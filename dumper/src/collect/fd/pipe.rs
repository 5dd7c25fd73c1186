//! Pipes and FIFOs.

use super::outside::Outside;
use super::{Context, Detail, Probe};
use crate::sys;
use anyhow::{Context as _, Result, ensure};
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd};

/// One end (or both, O_RDWR) of a pipe. What belongs to the pipe as a whole is in each end's facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipeFacts {
    /// F_GETPIPE_SZ, in bytes.
    pub capacity: u32,
    /// A FIFO that has a name, rather than pipe(2).
    pub named: bool,
    /// No process has the opposite end open (of a read end: no writer, of a write end: no reader).
    pub other_end_closed: bool,
    /// The reading end of a FIFO, not hung up: nobody has ever had it open for writing.
    pub no_writer_yet: bool,
    /// Who has the opposite end, when that is outside.
    pub outside: Vec<Outside>,
    /// What waits in it; only in a read end's facts.
    pub data: Option<PipeData>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipeData {
    /// Packets (O_DIRECT), or one run of bytes.
    pub messages: Vec<Vec<u8>>,
}

pub fn collect(cx: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    let ours = cx.duplicate(probe)?;
    let capacity = sys::fd::fcntl_get(ours.as_fd(), libc::F_GETPIPE_SZ)
        .with_context(|| format!("fd {}: F_GETPIPE_SZ", probe.fd))? as u32;
    let mode = probe.info.flags as i32 & libc::O_ACCMODE;
    let events = sys::fd::poll_now(ours.as_fd(), 0)?;
    let other_end_closed = match mode {
        libc::O_RDONLY => events & libc::POLLHUP != 0,
        libc::O_WRONLY => events & libc::POLLERR != 0,
        _ => false,
    };
    let data = match mode {
        libc::O_WRONLY => None,
        // The target's own end: opening another would make the pipe's other state change.
        _ => Some(data(ours.as_fd(), capacity).with_context(|| format!("fd {}: pipe contents", probe.fd))?),
    };
    let named = !probe.link.starts_with(b"pipe:[");
    let empty = data.as_ref().is_some_and(|d: &PipeData| d.messages.is_empty());
    let no_writer_yet =
        named && mode == libc::O_RDONLY && empty && !other_end_closed && !has_writer(ours.as_fd())?;
    Ok(Detail::Pipe(PipeFacts {
        capacity,
        named,
        other_end_closed,
        no_writer_yet,
        outside: Vec::new(),
        data,
    }))
}

/// Whether anybody has an empty pipe open for writing: tee(2) then says that it would have to wait.
fn has_writer(from: BorrowedFd<'_>) -> Result<bool> {
    let (_reader, writer) = sys::fd::pipe()?;
    Ok(sys::fd::tee_would_wait(from, writer.as_fd())?)
}

fn data(from: BorrowedFd<'_>, capacity: u32) -> Result<PipeData> {
    let waiting = sys::fd::readable_bytes(from)?;
    if waiting == 0 {
        return Ok(PipeData::default());
    }
    let (reader, writer) = sys::fd::pipe()?;
    // Made larger only where needed: the kernel limits what an ordinary user's pipes take together
    // (pipe-user-pages-soft), and the target's count, too.
    let (reader, writer) = match sys::fd::tee(from, writer.as_fd(), capacity as usize)? {
        n if n == waiting => (reader, writer),
        _ => {
            let (reader, writer) = sys::fd::pipe()?;
            sys::fd::set_pipe_size(writer.as_fd(), capacity as i32)
                .with_context(|| format!("a pipe of {capacity} bytes, to copy what waits there"))?;
            let n = sys::fd::tee(from, writer.as_fd(), capacity as usize)?;
            ensure!(n == waiting, "only {n} of {waiting} bytes could be copied");
            (reader, writer)
        }
    };
    drop(writer);
    let mut reader = std::fs::File::from(reader);
    let mut messages = Vec::new();
    // read(2) ends at the end of a packet; in a byte stream it returns all there is.
    let mut buf = vec![0; capacity as usize];
    loop {
        match reader.read(&mut buf)? {
            0 => break,
            n => messages.push(buf[..n].to_vec()),
        }
    }
    Ok(PipeData { messages })
}
