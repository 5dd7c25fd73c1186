//! System V shared memory, semaphores and message queues.

use crate::Span;

crate::records! {
    /// What the three kinds have in common: `struct ipc_perm`.
    pub struct IpcPerm[32] {
        pub id: i32,
        /// IPC_PRIVATE (0) where nobody finds it by key (any more).
        pub key: i32,
        /// Permissions; of shared memory also SHM_DEST and SHM_LOCKED (`sys/shm.h`).
        pub mode: u32,
        pub uid: u32,
        pub gid: u32,
        pub cuid: u32,
        pub cgid: u32,
        pub reserved: u32,
    }

    /// A shared memory segment.
    pub struct SysvShm[48] {
        pub perm: IpcPerm,
        /// In bytes, as it was asked for.
        pub size: u64,
        /// Index in the file table: its contents (`file_flags::SYSV_SHM`), for all who attach it.
        pub file: u32,
        /// log2 of the page size of SHM_HUGETLB memory, else 0.
        pub hugetlb_shift: u32,
    }

    /// A set of semaphores.
    pub struct SysvSem[64] {
        pub perm: IpcPerm,
        /// One u16 for each semaphore.
        pub values: Span,
        /// One i32 for each: the process that operated on it last (GETPID).
        pub pids: Span,
    }

    /// A message queue.
    pub struct SysvMsg[56] {
        pub perm: IpcPerm,
        /// Most bytes in it.
        pub qbytes: u64,
        /// Oldest first: [`SysvMessage`]s, each followed by its text padded to a multiple of 8.
        pub messages: Span,
    }

    /// One message of a [`SysvMsg`].
    pub struct SysvMessage[16] {
        pub kind: i64,
        pub len: u64,
    }

    /// What the end of a process gives back to a semaphore (SEM_UNDO).
    pub struct SemUndo[16] {
        /// The process.
        pub pid: i32,
        /// Index in the table of [`SysvSem`].
        pub set: u32,
        pub number: u32,
        pub adjustment: i32,
    }
}

/// Bits of [`IpcPerm::mode`] besides permissions.
pub mod shm_mode {
    /// Removed (IPC_RMID) while attached: gone when the last process detaches it.
    pub const DEST: u32 = 0o1000;
    /// shmctl(SHM_LOCK).
    pub const LOCKED: u32 = 0o2000;
}
