//! POSIX message queues. Names have no slash here.

use super::{CPath, Fd, Result, fd, sys};
use linux_raw_sys::general::*;

/// Most messages, and size of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub messages: u64,
    pub size: u64,
}

/// `struct mq_attr`: flags, most messages, size of a message, messages now.
type Attributes = [u64; 8];

/// mq_open(2) of a queue that is there. Not with O_CLOEXEC, which would stay among the flags of the open file.
pub fn open(name: &[u8], flags: u32) -> Result<Fd> {
    let name = CPath::new(name)?;
    // SAFETY: the name is NUL-terminated and only read.
    unsafe { sys!(__NR_mq_open, name.as_ptr(), flags, 0, 0) }.map(|fd| Fd(fd as i32))
}

/// mq_open(2) of a new queue, for both, without waiting.
pub fn create(name: &[u8], limits: Limits) -> Result<Fd> {
    let name = CPath::new(name)?;
    let attributes: Attributes = [0, limits.messages, limits.size, 0, 0, 0, 0, 0];
    let flags = O_RDWR | O_NONBLOCK | O_CREAT | O_EXCL;
    // SAFETY: the name is NUL-terminated; both are only read.
    unsafe { sys!(__NR_mq_open, name.as_ptr(), flags, 0o600, attributes.as_ptr()) }.map(|fd| Fd(fd as i32))
}

pub fn unlink(name: &[u8]) -> Result<()> {
    let name = CPath::new(name)?;
    // SAFETY: the name is NUL-terminated and only read.
    unsafe { sys!(__NR_mq_unlink, name.as_ptr()) }.map(drop)
}

pub fn limits(queue: Fd) -> Result<Limits> {
    let mut now: Attributes = [0; 8];
    // SAFETY: the kernel writes one `struct mq_attr`.
    unsafe { sys!(__NR_mq_getsetattr, queue.0, 0, now.as_mut_ptr()) }?;
    Ok(Limits { messages: now[1], size: now[2] })
}

/// Whether nobody else has it open: only then is there a write lease to be had (fcntl(2), F_SETLEASE).
pub fn is_ours_alone(queue: Fd) -> bool {
    let alone = fd::fcntl(queue, F_SETLEASE, F_WRLCK as usize).is_ok();
    let _ = fd::fcntl(queue, F_SETLEASE, F_UNLCK as usize);
    alone
}

/// Sends without waiting (the queue is O_NONBLOCK).
pub fn send(queue: Fd, text: &[u8], priority: u32) -> Result<()> {
    // SAFETY: the text is only read; no timeout.
    unsafe { sys!(__NR_mq_timedsend, queue.0, text.as_ptr(), text.len(), priority, 0) }.map(drop)
}

/// Takes a message away, without waiting; `buf` is as long as the longest may be.
pub fn discard(queue: Fd, buf: &mut [u8]) -> Result<()> {
    // SAFETY: the kernel writes at most `buf.len()` bytes; neither priority nor timeout.
    unsafe { sys!(__NR_mq_timedreceive, queue.0, buf.as_mut_ptr(), buf.len(), 0, 0) }.map(drop)
}

/// mq_notify(2) with the value 0.
pub fn notify(queue: Fd, how: i32, signal: i32) -> Result<()> {
    // `struct sigevent`: value, signal, how.
    let mut event = [0u64; 8];
    event[1] = u64::from(signal as u32) | u64::from(how as u32) << 32;
    // SAFETY: 64 bytes that are only read.
    unsafe { sys!(__NR_mq_notify, queue.0, event.as_ptr()) }.map(drop)
}
