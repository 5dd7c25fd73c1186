//! POSIX message queues: one object for the queue, one for each description of it.

use super::{Planner, Sent, queue};
use crate::collect::fd::Description;
use crate::collect::fd::mqueue::QueueFacts;
use crate::collect::fd::outside::in_words;
use ckpt_format::fd::mqueue::{MessageQueue, QueueNotice, queue_flags};
use ckpt_format::{NONE, Object, ObjectKind};
use zerocopy::IntoBytes;

pub fn open(p: &mut Planner<'_>, d: &Description, facts: &QueueFacts) -> Option<Object> {
    if let Some(why) = &facts.unknown {
        let what = format!("{} (message queue): it {why}", p.name(d));
        p.refuse(d, what, "let the program receive the messages, or end the notification, before the dump");
        return None;
    }
    let inner = match p.queues.get(&(d.stat.dev, d.stat.ino)) {
        Some(known) => *known,
        None => {
            if !facts.outside.is_empty() {
                let by = in_words(&facts.outside);
                let text = format!("{} (message queue): shared with {by}", p.name(d));
                p.loss("shared-outside", d, text);
            }
            let made = the_queue(p, d, facts);
            p.queues.insert((d.stat.dev, d.stat.ino), made);
            made
        }
    };
    let notice = notice(p, d, facts);
    let payload = p.b.payload(&notice);
    Some(Object { kind: ObjectKind::OpenQueue as u32, payload, inner, ..Object::default() })
}

fn the_queue(p: &mut Planner<'_>, d: &Description, facts: &QueueFacts) -> u32 {
    let priorities: Vec<u32> = facts.messages.iter().map(|(priority, _)| *priority).collect();
    let record = MessageQueue {
        name: p.b.blob(&facts.name),
        max_messages: facts.max_messages,
        message_size: facts.message_size,
        priorities: p.b.blob(priorities.as_bytes()),
        mode: d.stat.mode,
        uid: d.stat.uid,
        gid: d.stat.gid,
        flags: if d.stat.nlink == 0 { queue_flags::UNLINKED } else { 0 },
    };
    let payload = p.b.payload(&record);
    let queue = queue(p.b, facts.messages.iter().map(|(_, text)| Sent::plain(text)));
    p.add(Object { kind: ObjectKind::MessageQueue as u32, payload, queue, inner: NONE, ..Object::default() })
}

/// Who waits for a notification, if that is a process of the image.
fn notice(p: &mut Planner<'_>, d: &Description, facts: &QueueFacts) -> QueueNotice {
    let none = QueueNotice::default();
    let Some(notice) = facts.notice else { return none };
    let Some(task) = p.tasks.iter().find(|t| t.pid == notice.pid) else { return none };
    let name = p.name(d);
    match notice.how {
        libc::SIGEV_NONE => {}
        libc::SIGEV_SIGNAL => {
            let text =
                format!("{name} (message queue): the value that comes with its notification (mq_notify)");
            p.loss("mq-notify", d, text);
        }
        _ => {
            let what = format!("{name} (message queue): a notification by a thread (SIGEV_THREAD)");
            p.refuse(d, what, "end the notification before the dump (mq_notify with NULL)");
        }
    }
    QueueNotice { pid: task.process.own_pid, how: notice.how, signal: notice.signal, reserved: 0 }
}
