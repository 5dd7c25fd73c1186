//! Descriptors, and the kernel objects behind them. One file per kind.
//!
//! An [`Object`] is an open file description or something below it that several descriptions share
//! (a pipe's buffer, a socket's peer). A descriptor is an [`FdEntry`] that names an object. The
//! payload of an object is the record of its kind, in the blob note.

pub mod event;
pub mod fanotify;
pub mod inotify;
pub mod mqueue;
pub mod options;
pub mod pidfd;
pub mod pipe;
pub mod regular;
pub mod socket;
pub mod tcp;
pub mod tty;

use crate::Span;

crate::records! {
    /// One descriptor.
    pub struct FdEntry[16] {
        pub fd: i32,
        /// Index in the object table.
        pub object: u32,
        /// FD_CLOEXEC.
        pub cloexec: u32,
        pub reserved: u32,
    }

    /// A kernel object that descriptors refer to.
    pub struct Object[72] {
        /// [`ObjectKind`].
        pub kind: u32,
        /// [`object_flags`].
        pub flags: u32,
        /// F_GETFL.
        pub open_flags: u32,
        /// F_GETOWN_EX: type and id; F_GETSIG.
        pub owner_type: i32,
        pub owner: i32,
        pub signal: i32,
        /// Read/write offset.
        pub offset: u64,
        /// Record of its kind.
        pub payload: Span,
        /// What waits in it to be read, oldest first: [`Message`]s, each followed by its objects and its
        /// bytes, both padded to a multiple of 8.
        pub queue: Span,
        /// The object below this one, if its kind says so, else NONE.
        pub inner: u32,
        pub reserved: u32,
    }

    /// One message of a queue. A byte stream is a single one, or several where descriptors came along.
    pub struct Message[16] {
        /// Length in bytes; may be 0.
        pub len: u32,
        /// Descriptors that it carries (SCM_RIGHTS): so many objects (u32) follow.
        pub fds: u32,
        /// Datagram socket that sent it, whose name the receiver sees; else NONE.
        pub from: u32,
        pub reserved: u32,
    }

    /// flock(2), POSIX and OFD locks.
    pub struct Lock[40] {
        /// [`lock_kind`].
        pub kind: u32,
        /// F_RDLCK, F_WRLCK.
        pub mode: u32,
        pub start: u64,
        /// 0 is "to the end".
        pub len: u64,
        pub object: u32,
        /// Owner of a POSIX lock.
        pub pid: i32,
        pub reserved: u64,
    }
}

/// [`Lock::kind`].
pub mod lock_kind {
    pub const FLOCK: u32 = 1;
    pub const POSIX: u32 = 2;
    pub const OFD: u32 = 3;
    /// F_SETLEASE.
    pub const LEASE: u32 = 4;
}

/// Bits of [`Object::flags`].
pub mod object_flags {
    /// Comes from whoever runs the image (descriptors 0 to 2, unless `--fd` says otherwise).
    pub const INHERITED: u32 = 1;
    /// A terminal that was opened as `/dev/tty`.
    pub const DEV_TTY: u32 = 2;
    /// The reading end of a FIFO that nobody has ever written to: no hang-up (POLLHUP) until somebody did.
    pub const NO_WRITER_YET: u32 = 4;
}

/// [`Object::kind`]. Values are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ObjectKind {
    /// Regular file, directory, device node: anything reopened by path, or recreated when it had
    /// been deleted. [`regular::OpenFile`].
    File = 1,
    /// One end of a pipe or FIFO (or both, when O_RDWR). `inner` is the pipe.
    PipeEnd = 2,
    /// The buffer of a pipe or FIFO; no descriptor refers to it directly. [`pipe::Pipe`].
    Pipe = 3,
    /// [`event::EventFd`].
    EventFd = 4,
    /// [`event::TimerFd`].
    TimerFd = 5,
    /// [`event::SignalFd`].
    SignalFd = 6,
    /// [`event::Epoll`] followed by its targets.
    Epoll = 7,
    /// [`socket::InetSocket`].
    InetSocket = 8,
    /// [`socket::UnixSocket`].
    UnixSocket = 9,
    /// [`tty::Tty`].
    Tty = 10,
    /// memfd_create(2), anonymous shared memory files. [`regular::OpenFile`] with a MEMFD file.
    Memfd = 11,
    /// Stands for a descriptor of the caller. [`regular::Inherited`].
    Inherited = 12,
    /// A pseudo-terminal; no descriptor refers to it directly. Its `queue` is what the slave has not read
    /// yet. [`tty::Pty`].
    Pty = 14,
    /// Its ends. `inner` is the [`ObjectKind::Pty`]. No payload. The master's `queue` is what it has not
    /// read yet.
    PtyMaster = 15,
    PtySlave = 16,
    /// One open description of a POSIX message queue; `inner` is the queue. [`mqueue::QueueNotice`].
    OpenQueue = 17,
    /// The queue; no descriptor refers to it directly. [`mqueue::MessageQueue`].
    MessageQueue = 18,
    /// [`pidfd::Pidfd`].
    Pidfd = 40,
    /// [`inotify::Inotify`] followed by its watches.
    Inotify = 41,
    /// [`fanotify::Fanotify`] followed by its marks.
    Fanotify = 42,
    /// [`socket::InetSocket`], with addresses of these families.
    PacketSocket = 50,
    NetlinkSocket = 51,
}

impl ObjectKind {
    pub fn from_u32(v: u32) -> Option<Self> {
        use ObjectKind::*;
        [
            File,
            PipeEnd,
            Pipe,
            EventFd,
            TimerFd,
            SignalFd,
            Epoll,
            InetSocket,
            UnixSocket,
            Tty,
            Memfd,
            Inherited,
            Pty,
            PtyMaster,
            PtySlave,
            OpenQueue,
            MessageQueue,
            Pidfd,
            Inotify,
            Fanotify,
            PacketSocket,
            NetlinkSocket,
        ]
        .into_iter()
        .find(|k| *k as u32 == v)
    }
}
