//! Descriptors' objects and System V IPC in words.

use crate::{names, sockets};
use ckpt_format::fd::{event, fanotify, inotify, mqueue, pidfd, pipe, regular, socket, tty};
use ckpt_format::*;

/// An object in words: kind and what tells it apart.
pub fn describe(image: &Image, object: &Object) -> (String, String) {
    let Some(kind) = ObjectKind::from_u32(object.kind) else {
        return (format!("kind {}", object.kind), String::new());
    };
    let detail = match kind {
        ObjectKind::File | ObjectKind::Memfd => image
            .payload::<regular::OpenFile>(object.payload)
            .and_then(|p| Image::get(image.files, p.file, "file"))
            .map(|f| format!("{} at {}", image.text(f.path), object.offset))
            .unwrap_or_default(),
        ObjectKind::OpenQueue => Image::get(image.objects, object.inner, "queue")
            .and_then(|queue| image.payload::<mqueue::MessageQueue>(queue.payload))
            .map(|q| format!("/{}, {} messages", image.text(q.name), q.priorities.len / 4))
            .unwrap_or_default(),
        ObjectKind::Pidfd => image
            .payload::<pidfd::Pidfd>(object.payload)
            .map(|p| if p.tid == 0 { "of a process that is gone".into() } else { format!("of {}", p.tid) })
            .unwrap_or_default(),
        ObjectKind::Inotify => image
            .payload::<inotify::Inotify>(object.payload)
            .map(|i| format!("{} watches", i.count))
            .unwrap_or_default(),
        ObjectKind::Fanotify => image
            .payload::<fanotify::Fanotify>(object.payload)
            .map(|f| format!("{} marks", f.count))
            .unwrap_or_default(),
        ObjectKind::PipeEnd => format!("pipe #{}", object.inner),
        ObjectKind::Pipe => image
            .payload::<pipe::Pipe>(object.payload)
            .map(|p| format!("{} bytes capacity", p.capacity))
            .unwrap_or_default(),
        ObjectKind::InetSocket | ObjectKind::PacketSocket | ObjectKind::NetlinkSocket => image
            .payload::<socket::InetSocket>(object.payload)
            .map(|s| sockets::inet(image, object, s))
            .unwrap_or_default(),
        ObjectKind::UnixSocket => image
            .payload::<socket::UnixSocket>(object.payload)
            .map(|s| format!("{} type {} state {}", image.text(s.name), s.kind, s.state))
            .unwrap_or_default(),
        ObjectKind::Tty => image
            .payload::<tty::Tty>(object.payload)
            .map(|p| format!("{} (the caller's terminal takes its place)", image.text(p.path)))
            .unwrap_or_default(),
        ObjectKind::Pty => image
            .payload::<tty::Pty>(object.payload)
            .map(|p| format!("{}, provided by the program", image.text(p.path)))
            .unwrap_or_default(),
        ObjectKind::PtyMaster | ObjectKind::PtySlave => format!("terminal #{}", object.inner),
        ObjectKind::Inherited => image
            .payload::<regular::Inherited>(object.payload)
            .map(|p| format!("the caller's fd {}; was {}", p.from_fd, image.text(p.was)))
            .unwrap_or_default(),
        ObjectKind::EventFd => image
            .payload::<event::EventFd>(object.payload)
            .map(|e| format!("at {}", e.count))
            .unwrap_or_default(),
        ObjectKind::TimerFd => image
            .payload::<event::TimerFd>(object.payload)
            .map(|t| match t.remaining_ns {
                0 => format!("of clock {}, not armed", t.clock),
                left => format!("of clock {}, in {left} ns, every {} ns", t.clock, t.interval_ns),
            })
            .unwrap_or_default(),
        ObjectKind::SignalFd => image
            .payload::<event::SignalFd>(object.payload)
            .map(|s| names::signals(s.mask).join(" "))
            .unwrap_or_default(),
        ObjectKind::Epoll => image
            .payload::<event::Epoll>(object.payload)
            .map(|e| format!("{} descriptors", e.count))
            .unwrap_or_default(),
        ObjectKind::MessageQueue => image
            .payload::<mqueue::MessageQueue>(object.payload)
            .map(|q| format!("/{}", image.text(q.name)))
            .unwrap_or_default(),
    };
    (format!("{kind:?}"), detail)
}

/// System V IPC.
pub fn ipc(image: &Image) -> Vec<String> {
    let perm =
        |p: &IpcPerm| format!("id {} key {:#010x} mode {:03o} uid {}", p.id, p.key, p.mode & 0o777, p.uid);
    let mut all = Vec::new();
    all.extend(image.shms.iter().map(|s| format!("shared memory {}, {} bytes", perm(&s.perm), s.size)));
    all.extend((0..).zip(image.sems).map(|(i, s)| {
        let undos = image.sem_undos.iter().filter(|u| u.set == i).count();
        format!("semaphores {}, {} of them, {undos} SEM_UNDO", perm(&s.perm), s.values.len / 2)
    }));
    let queue =
        |m: &SysvMsg| format!("message queue {}, {} bytes with headers", perm(&m.perm), m.messages.len);
    all.extend(image.msgs.iter().map(queue));
    all
}
