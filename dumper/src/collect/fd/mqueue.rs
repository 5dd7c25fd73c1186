//! POSIX message queues, through a description of our own: the target's stays as it is.

use super::outside::Outside;
use super::{Context, Detail, Probe, path_of};
use crate::sys::mqueue;
use anyhow::{Context as _, Result, anyhow};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;

/// `MQUEUE_MAGIC` (`ipc/mqueue.c`).
pub const FILE_SYSTEM: i64 = 0x1980_0202;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueFacts {
    /// Without the slash.
    pub name: Vec<u8>,
    pub max_messages: u64,
    pub message_size: u64,
    /// Priorities and texts, in the order of mq_receive(3).
    pub messages: Vec<(u32, Vec<u8>)>,
    pub notice: Option<Notice>,
    /// Others that have it open.
    pub outside: Vec<Outside>,
    /// Why the messages are not known.
    pub unknown: Option<String>,
}

/// mq_notify(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// As we see it; 0 for one that we cannot see.
    pub pid: i32,
    pub how: i32,
    pub signal: i32,
}

pub fn collect(_: &mut Context<'_>, probe: &Probe) -> Result<Detail> {
    let path = probe.fd_path();
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let mut queue =
        File::options().read(true).write(true).custom_flags(flags).open(&path).with_context(|| {
            format!("opening the message queue {} for reading and writing", probe.link_text())
        })?;
    let attributes = mqueue::attributes(queue.as_fd()).context("mq_getattr")?;
    let mut text = String::new();
    queue.read_to_string(&mut text).context("reading the state of the queue")?;
    let notice = notice(&text).ok_or_else(|| anyhow!("the state of the queue is not understood: {text}"))?;
    // Opened by name, or below a directory where the file system is mounted.
    let name = path_of(&probe.link).file_name().unwrap_or_default().as_bytes();
    let mut facts = QueueFacts {
        name: name.to_vec(),
        max_messages: attributes[1] as u64,
        message_size: attributes[2] as u64,
        notice,
        ..QueueFacts::default()
    };
    match attributes[3] {
        0 => {}
        // A message that comes into an empty queue would use it up.
        _ if notice.is_some() => {
            facts.unknown = Some("has messages, and a process that waits for a notification".into());
        }
        _ => facts.messages = mqueue::look(queue.as_fd(), &attributes).context("looking at its messages")?,
    }
    Ok(Detail::MessageQueue(facts))
}

/// "QSIZE:129 NOTIFY:0 SIGNO:10 NOTIFY_PID:8260", padded; process 0 is none.
#[allow(clippy::option_option)]
fn notice(text: &str) -> Option<Option<Notice>> {
    let number = |key: &str| -> Option<i32> {
        text.split_whitespace().find_map(|part| part.strip_prefix(key)?.strip_prefix(':')?.parse().ok())
    };
    let (pid, how, signal) = (number("NOTIFY_PID")?, number("NOTIFY")?, number("SIGNO")?);
    Some((pid != 0).then_some(Notice { pid, how, signal }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_of_a_queue() {
        let text = "QSIZE:5          NOTIFY:0     SIGNO:10    NOTIFY_PID:225269\n";
        assert_eq!(notice(text), Some(Some(Notice { pid: 225_269, how: 0, signal: 10 })));
        assert_eq!(notice("QSIZE:5          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n"), Some(None));
        assert_eq!(notice("QSIZE:5\n"), None);
    }
}
