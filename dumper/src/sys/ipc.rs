//! Questions about System V IPC objects. None of them changes anything. The answers are the kernel's own
//! structures, as bytes, whoever asked: this process or the one that is being dumped.

/// `ipc_perm` and the rest of `shmid64_ds`, `semid64_ds` and `msqid64_ds` (`asm-generic/*buf.h`): offsets.
pub mod at {
    pub const KEY: usize = 0;
    pub const UID: usize = 4;
    pub const GID: usize = 8;
    pub const CUID: usize = 12;
    pub const CGID: usize = 16;
    pub const MODE: usize = 20;
    pub const SHM_SIZE: usize = 48;
    pub const SHM_TIMES: [usize; 3] = [56, 64, 72];
    pub const SHM_PIDS: [usize; 2] = [80, 84];
    pub const SHM_ATTACHED: usize = 88;
    pub const SEM_TIMES: [usize; 2] = [48, 64];
    pub const SEM_COUNT: usize = 80;
    pub const MSG_TIMES: [usize; 3] = [48, 56, 64];
    pub const MSG_BYTES: usize = 72;
    pub const MSG_COUNT: usize = 80;
    pub const MSG_QBYTES: usize = 88;
    pub const MSG_PIDS: [usize; 2] = [96, 100];
    /// `semopm` in `struct seminfo`.
    pub const SEM_MOST_OPS: usize = 20;
}

/// Which kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Shm,
    Sem,
    Msg,
}

/// A system call that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Highest index in use, and limits: SHM_INFO ...
    Info(Kind),
    /// The object at an index: its id, and its record: SHM_STAT ...
    Index(Kind, i32),
    /// The record of an object: IPC_STAT.
    Stat(Kind, i32),
    /// All values of so many semaphores, u16 each: GETALL.
    Values(i32, usize),
    /// Who operated on a semaphore last: GETPID.
    Pid(i32, u32),
    /// The message at an index, at most so many bytes behind its type: MSG_COPY.
    Message(i32, u64, usize),
}

const MSG_COPY: u64 = 0o40000;
const SHM_STAT: i32 = 13;
const SHM_INFO: i32 = 14;

impl Question {
    /// Bytes that the kernel may write.
    #[must_use]
    pub fn room(&self) -> usize {
        match *self {
            Self::Values(_, count) => count * 2,
            Self::Message(_, _, room) => 8 + room,
            _ => 128,
        }
    }

    /// System call number and arguments, with the place for the answer.
    #[must_use]
    pub fn call(&self, buf: u64) -> (i64, [u64; 5]) {
        let control = |kind: Kind, id: i32, [shm, sem, msg]: [i32; 3]| match kind {
            Kind::Shm => (libc::SYS_shmctl, [id as u64, shm as u64, buf, 0, 0]),
            Kind::Sem => (libc::SYS_semctl, [id as u64, 0, sem as u64, buf, 0]),
            Kind::Msg => (libc::SYS_msgctl, [id as u64, msg as u64, buf, 0, 0]),
        };
        match *self {
            Self::Info(kind) => control(kind, 0, [SHM_INFO, libc::SEM_INFO, libc::MSG_INFO]),
            Self::Index(kind, index) => control(kind, index, [SHM_STAT, libc::SEM_STAT, libc::MSG_STAT]),
            Self::Stat(kind, id) => control(kind, id, [libc::IPC_STAT; 3]),
            Self::Values(id, _) => (libc::SYS_semctl, [id as u64, 0, libc::GETALL as u64, buf, 0]),
            Self::Pid(id, number) => {
                (libc::SYS_semctl, [id as u64, u64::from(number), libc::GETPID as u64, 0, 0])
            }
            Self::Message(id, index, room) => {
                (libc::SYS_msgrcv, [id as u64, buf, room as u64, index, MSG_COPY | libc::IPC_NOWAIT as u64])
            }
        }
    }

    /// Asks as this process: the result (-errno), and the bytes.
    #[must_use]
    pub fn ask(&self) -> (i64, Vec<u8>) {
        let mut buf = vec![0u8; self.room()];
        let (number, a) = self.call(buf.as_mut_ptr() as u64);
        // SAFETY: for each of these commands the kernel reads and writes at most `room()` bytes at the
        // pointer: GETALL two for each semaphore of a set, whose number never changes; msgrcv the type and
        // as many bytes as it was told; the records are at most 120 bytes.
        let result = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4]) };
        if result < 0 {
            let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            return (-i64::from(errno), buf);
        }
        (result, buf)
    }
}
