//! System V shared memory, semaphores, message queues.

use super::{Errno, Result, sys};
use linux_raw_sys::general::*;

/// `sys/ipc.h`, `sys/shm.h`, `sys/sem.h`, `sys/msg.h`.
const IPC_CREAT: u32 = 0o1000;
const IPC_EXCL: u32 = 0o2000;
const IPC_RMID: u32 = 0;
const IPC_SET: u32 = 1;
const IPC_STAT: u32 = 2;
const IPC_NOWAIT: u32 = 0o4000;
const SHM_LOCK: u32 = 11;
const SHM_STAT: u32 = 13;
const SHM_HUGETLB: u32 = 0o4000;
const SHM_RDONLY: u32 = 0o10000;
const GETPID: u32 = 11;
const GETNCNT: u32 = 14;
const GETZCNT: u32 = 15;
const SETALL: u32 = 17;
const SEM_STAT: u32 = 18;
const MSG_STAT: u32 = 11;
pub const SEM_UNDO: u32 = 0x1000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Shm,
    Sem,
    Msg,
}

/// The record of an object: `shmid64_ds`, `semid64_ds` or `msqid64_ds` (`asm-generic/*buf.h`).
#[derive(Clone, Copy)]
pub struct Record {
    words: [u64; 16],
}

impl Record {
    fn small(&self, offset: usize) -> u32 {
        (self.words[offset / 8] >> (offset % 8 * 8)) as u32
    }

    fn set_small(&mut self, offset: usize, value: u32) {
        let shift = offset % 8 * 8;
        let word = &mut self.words[offset / 8];
        *word = *word & !(0xffff_ffff << shift) | u64::from(value) << shift;
    }

    pub fn key(&self) -> i32 {
        self.small(0) as i32
    }

    /// Owner, group, creator, its group, mode.
    pub fn rights(&self) -> [u32; 5] {
        [self.small(4), self.small(8), self.small(12), self.small(16), self.small(20)]
    }

    pub fn set_rights(&mut self, uid: u32, gid: u32, mode: u32) {
        self.set_small(4, uid);
        self.set_small(8, gid);
        self.set_small(20, mode);
    }

    /// Bytes of a segment, or number of semaphores; 0 for a queue.
    pub fn size(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Shm => self.words[6],
            Kind::Sem => self.words[10],
            Kind::Msg => 0,
        }
    }

    /// How often a segment is attached.
    pub fn attached(&self) -> u64 {
        self.words[11]
    }

    /// Who created or used it: of a segment creator and last user, of a queue last sender and receiver.
    pub fn pids(&self, kind: Kind) -> [i32; 2] {
        let at = if kind == Kind::Shm { 80 } else { 96 };
        if kind == Kind::Sem { [0; 2] } else { [self.small(at) as i32, self.small(at + 4) as i32] }
    }

    /// Messages in a queue.
    pub fn messages(&self) -> u64 {
        self.words[10]
    }

    pub fn qbytes(&self) -> u64 {
        self.words[11]
    }

    pub fn set_qbytes(&mut self, bytes: u64) {
        self.words[11] = bytes;
    }
}

fn control(kind: Kind, id: i32, command: u32, pointer: *mut u64) -> Result<usize> {
    // SAFETY: the callers pass a `Record`, which is longer than any of the kernel's records, or null with
    // a command that takes none.
    unsafe {
        match kind {
            Kind::Shm => sys!(__NR_shmctl, id, command, pointer),
            Kind::Sem => sys!(__NR_semctl, id, 0, command, pointer),
            Kind::Msg => sys!(__NR_msgctl, id, command, pointer),
        }
    }
}

pub fn stat(kind: Kind, id: i32) -> Result<Record> {
    let mut record = Record { words: [0; 16] };
    control(kind, id, IPC_STAT, record.words.as_mut_ptr()).map(|_| record)
}

/// The id of the object in a slot of the kernel's table.
pub fn at_index(kind: Kind, index: i32) -> Result<i32> {
    let mut record = Record { words: [0; 16] };
    let command = match kind {
        Kind::Shm => SHM_STAT,
        Kind::Sem => SEM_STAT,
        Kind::Msg => MSG_STAT,
    };
    control(kind, index, command, record.words.as_mut_ptr()).map(|id| id as i32)
}

/// IPC_SET: owner, group, permissions, and the size of a queue.
pub fn set(kind: Kind, id: i32, record: &Record) -> Result<()> {
    let mut record = *record;
    control(kind, id, IPC_SET, record.words.as_mut_ptr()).map(drop)
}

pub fn remove(kind: Kind, id: i32) -> Result<()> {
    control(kind, id, IPC_RMID, core::ptr::null_mut()).map(drop)
}

/// The id of the object with a key.
pub fn find(kind: Kind, key: i32) -> Result<i32> {
    get(kind, key, 0, 0)
}

/// A new object; `huge` is log2 of the size of a segment's huge pages, or 0.
pub fn create(kind: Kind, key: i32, size: u64, mode: u32, huge: u32) -> Result<i32> {
    let huge = if huge == 0 { 0 } else { SHM_HUGETLB | huge << MAP_HUGE_SHIFT };
    get(kind, key, size, IPC_CREAT | IPC_EXCL | mode | huge)
}

fn get(kind: Kind, key: i32, size: u64, flags: u32) -> Result<i32> {
    // SAFETY: numbers only.
    let id = unsafe {
        match kind {
            Kind::Shm => sys!(__NR_shmget, key, size, flags),
            Kind::Sem => sys!(__NR_semget, key, size, flags),
            Kind::Msg => sys!(__NR_msgget, key, flags),
        }
    };
    id.map(|id| id as i32)
}

/// Whether a segment may have contents: its time of the last detach.
pub fn was_used(id: i32) -> bool {
    stat(Kind::Shm, id).is_ok_and(|r| r.words[8] != 0)
}

/// shmat(2) where the kernel likes.
pub fn attach(id: i32, read_only: bool) -> Result<usize> {
    // SAFETY: maps into free address space only.
    unsafe { sys!(__NR_shmat, id, 0, if read_only { SHM_RDONLY } else { 0 }) }
}

/// # Safety
/// Nothing refers to the memory any more.
pub unsafe fn detach(addr: usize) -> Result<()> {
    // SAFETY: the caller's.
    unsafe { sys!(__NR_shmdt, addr) }.map(drop)
}

pub fn lock_segment(id: i32) -> Result<()> {
    control(Kind::Shm, id, SHM_LOCK, core::ptr::null_mut()).map(drop)
}

/// Sets all values; there must be as many as semaphores.
pub fn set_values(id: i32, values: &[u16]) -> Result<()> {
    if stat(Kind::Sem, id)?.size(Kind::Sem) != values.len() as u64 {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the kernel reads one u16 for each semaphore of the set, which are that many.
    unsafe { sys!(__NR_semctl, id, 0, SETALL, values.as_ptr()) }.map(drop)
}

/// Who operated on a semaphore last.
pub fn last_pid(id: i32, number: u32) -> i32 {
    // SAFETY: numbers only.
    unsafe { sys!(__NR_semctl, id, number, GETPID, 0) }.unwrap_or(0) as i32
}

/// Whether anybody waits for a semaphore.
pub fn has_waiters(id: i32, number: u32) -> bool {
    // SAFETY: numbers only.
    let count = |what| unsafe { sys!(__NR_semctl, id, number, what, 0) }.unwrap_or(0);
    count(GETNCNT) + count(GETZCNT) > 0
}

/// `struct sembuf`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct SemOp {
    pub number: u16,
    pub change: i16,
    pub flags: i16,
}

/// semop(2), all or nothing, without waiting.
pub fn operate(id: i32, ops: &mut [SemOp]) -> Result<()> {
    for op in &mut *ops {
        op.flags |= IPC_NOWAIT as i16;
    }
    // SAFETY: the kernel reads as many records as it is told.
    unsafe { sys!(__NR_semop, id, ops.as_ptr(), ops.len()) }.map(drop)
}

/// Sends a message: its type as a u64 in front of its text.
pub fn send(id: i32, message: &[u8]) -> Result<()> {
    let len = message.len().checked_sub(8).ok_or(Errno::EINVAL)?;
    // SAFETY: the kernel reads 8 bytes and `len` more.
    unsafe { sys!(__NR_msgsnd, id, message.as_ptr(), len, IPC_NOWAIT) }.map(drop)
}

/// Takes the oldest message away; of long ones only the beginning is copied.
pub fn discard(id: i32) -> Result<()> {
    const MSG_NOERROR: u32 = 0o10000;
    let mut message = [0u64; 2];
    // SAFETY: the kernel writes the type and at most 8 bytes more.
    unsafe { sys!(__NR_msgrcv, id, message.as_mut_ptr(), 8, 0, IPC_NOWAIT | MSG_NOERROR) }.map(drop)
}
