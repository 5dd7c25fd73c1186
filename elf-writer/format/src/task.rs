//! Tasks (processes) and what they may share with each other.

use crate::{Itimer, Range, Span};

crate::records! {
    /// A process.
    pub struct Task[520] {
        /// Ids as the program sees them. A creator comes before those that it makes.
        pub pid: i32,
        pub ppid: i32,
        pub pgid: i32,
        pub sid: i32,
        /// [`task_flags`]. A zombie or helper has no threads, and NONE for everything shared.
        pub flags: u32,
        /// Signal sent to the parent at exit.
        pub exit_signal: i32,
        /// Stop signal when `task_flags::STOPPED`; wait status when `task_flags::ZOMBIE`.
        pub status: i32,
        pub personality: u32,
        /// Threads in the thread table; the first is the leader.
        pub threads: Range,
        /// Indices in the tables of shared things: tasks that have the same one share it (CLONE_VM,
        /// CLONE_FILES, CLONE_FS, CLONE_SIGHAND). Of those, the first in the table restores it.
        pub mm: u32,
        pub fd_table: u32,
        pub fs: u32,
        pub sighand: u32,
        /// Signals pending for the whole process, oldest first.
        pub pending: Range,
        pub posix_timers: Range,
        /// ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
        pub itimers: [Itimer; 3],
        /// `(soft, hard)` by RLIMIT_* number.
        pub rlimits: [[u64; 2]; 16],
        pub oom_score_adj: i32,
        /// Task that makes it (its parent, or a helper that leaves it to its parent); NONE for the root.
        pub creator: u32,
        /// Object of the controlling terminal, or NONE.
        pub ctty: u32,
        /// Foreground process group of the controlling terminal.
        pub tty_pgrp: i32,
        pub reserved2: [u64; 16],
    }

    /// Credentials of a thread.
    pub struct Creds[112] {
        /// Real, effective, saved, file-system.
        pub uid: [u32; 4],
        pub gid: [u32; 4],
        /// Supplementary groups, u32 each.
        pub groups: Span,
        pub cap_inheritable: u64,
        pub cap_permitted: u64,
        pub cap_effective: u64,
        pub cap_bounding: u64,
        pub cap_ambient: u64,
        pub securebits: u32,
        pub no_new_privs: u32,
        pub reserved: [u64; 2],
    }

    /// A descriptor table.
    pub struct FdTable[8] {
        /// Entries in the fd note, sorted by number.
        pub fds: Range,
    }

    /// CLONE_FS: working directory, root, umask.
    pub struct FsInfo[40] {
        pub cwd: Span,
        pub root: Span,
        pub umask: u32,
        pub reserved: u32,
    }

    /// CLONE_SIGHAND: handlers.
    pub struct Sighand[8] {
        /// 64 entries in the action note: signal 1 first.
        pub actions: Range,
    }
}

/// Bits of [`Task::flags`].
pub mod task_flags {
    pub const SESSION_LEADER: u32 = 1;
    pub const PGRP_LEADER: u32 = 2;
    /// In a group stop (SIGSTOP, SIGTSTP ...).
    pub const STOPPED: u32 = 4;
    pub const ZOMBIE: u32 = 8;
    /// prctl(PR_SET_CHILD_SUBREAPER).
    pub const CHILD_SUBREAPER: u32 = 16;
    pub const HAS_CTTY: u32 = 32;
    /// No process of the program: made so that others get a session, a process group or a parent that no
    /// living process can give them, and gone before the program runs on. Has no threads and no state.
    pub const HELPER: u32 = 64;
    /// Made before its creator calls setsid(2), so that it is in the session that the creator was in.
    pub const BEFORE_SETSID: u32 = 128;
    /// Its process group, or session, is that of whoever runs the image.
    pub const PGRP_OF_CALLER: u32 = 256;
    pub const SESSION_OF_CALLER: u32 = 512;
    /// With STOPPED: the parent has already been told (wait(2) with WUNTRACED has returned it).
    pub const STOP_REPORTED: u32 = 1024;
    /// A subreaper while the tree is made, so that what its helpers leave behind becomes its child.
    pub const ADOPTS: u32 = 2048;
    /// With HAS_CTTY: the terminal is a pseudo-terminal of the image.
    pub const CTTY_INSIDE: u32 = 4096;
}
