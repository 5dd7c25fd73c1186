//! POSIX message queues.

use crate::Span;

crate::records! {
    /// An open queue. Descriptions of the same queue have the same `inner` object, which holds this record
    /// and its messages (`Object::queue` of that one); no descriptor refers to it directly.
    pub struct MessageQueue[64] {
        /// Name without the slash.
        pub name: Span,
        pub max_messages: u64,
        pub message_size: u64,
        /// Priority (u32) of each message.
        pub priorities: Span,
        /// `st_mode`, owner, group.
        pub mode: u32,
        pub uid: u32,
        pub gid: u32,
        /// [`queue_flags`].
        pub flags: u32,
    }

    /// A notification that a process waits for (mq_notify(3)): payload of a queue's description.
    pub struct QueueNotice[16] {
        /// Process; 0 for none.
        pub pid: i32,
        /// SIGEV_SIGNAL or SIGEV_NONE.
        pub how: i32,
        pub signal: i32,
        pub reserved: u32,
    }
}

/// Bits of [`MessageQueue::flags`].
pub mod queue_flags {
    /// It has no name any more.
    pub const UNLINKED: u32 = 1;
}
