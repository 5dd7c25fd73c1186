//! What is told of an image: the one definition behind the words, the JSON and the comparison. Addresses and
//! registers are hexadecimal strings, as JSON numbers lose precision above 2^53; sizes and times are numbers.

use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// Version of this schema: it grows when a field changes its meaning or goes away, not when one is added.
pub const SCHEMA: u32 = 1;

/// An image.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// Version of this schema.
    pub schema: u32,
    pub image: ImageInfo,
    /// Processes; a parent comes before its children.
    pub tasks: Vec<TaskInfo>,
    /// Open file descriptions and what lies below them; descriptors refer to them by index.
    pub objects: Vec<ObjectInfo>,
    pub locks: Vec<LockInfo>,
    /// System V IPC, each in words.
    pub ipc: Vec<String>,
    /// What the image does not hold, by the user's choice.
    pub losses: Vec<LossInfo>,
}

/// When, where, by what.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ImageInfo {
    pub uuid: String,
    pub format: u32,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Bytes of populated memory that exist nowhere else.
    pub stored_bytes: u64,
    pub program: String,
    pub command: String,
    /// Time of the dump, UTC.
    pub dumped: String,
    /// The same in nanoseconds since the epoch; CLOCK_MONOTONIC and CLOCK_BOOTTIME at that time.
    pub time_realtime_ns: u64,
    pub time_monotonic_ns: u64,
    pub time_boottime_ns: u64,
    /// Version of ckpt-dump.
    pub dumper: String,
    pub host: String,
    /// Release of the kernel.
    pub kernel: String,
    pub boot_id: String,
    pub cpu_vendor: String,
    /// Instruction sets that must be there where it runs.
    pub cpu_features: Vec<String>,
    /// Contents are compressed (LZ4): bytes before and after.
    pub compressed: Option<(u64, u64)>,
    /// It can restore itself (else ckpt-restore is needed).
    pub restorer: bool,
    /// Bytes of programs and libraries are in the image.
    pub embedded: bool,
    /// All of the program's own IPC namespace is in the image.
    pub own_ipc_namespace: bool,
    /// Where the restorer lives while it works.
    pub stub_start: String,
    pub stub_end: String,
}

/// A process.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TaskInfo {
    pub pid: i32,
    pub ppid: i32,
    pub pgid: i32,
    pub sid: i32,
    /// Process that makes it at the restore, if that is not its parent.
    pub made_by: Option<i32>,
    /// Name of its first thread; empty for zombies.
    pub name: String,
    /// `zombie`, `stopped`, `subreaper`, `helper` (no process of the program) ...
    pub state: Vec<String>,
    /// Status that wait(2) gives, of a zombie.
    pub wait_status: Option<i32>,
    pub threads: Vec<ThreadInfo>,
    /// Shared with the task of that pid.
    pub memory_shared_with: Option<i32>,
    pub memory: Option<MemoryInfo>,
    pub cwd: String,
    pub root: String,
    pub umask: u32,
    pub fds: Vec<FdInfo>,
    /// Signals with a handler or ignored: name to `ignored` or the handler's address.
    pub handlers: BTreeMap<String, String>,
    /// Waiting for the process as a whole.
    pub pending: Vec<String>,
    pub timers: Vec<TimerInfo>,
    /// Limits that are not unlimited: name to (soft, hard).
    pub limits: BTreeMap<String, (u64, u64)>,
}

/// A thread.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ThreadInfo {
    pub tid: i32,
    pub name: String,
    /// The system call that it goes on with.
    pub system_call: Option<String>,
    /// General registers.
    pub registers: BTreeMap<String, String>,
    /// Bytes of extended state (x87, SSE, AVX ...).
    pub xstate_bytes: u64,
    pub blocked: Vec<String>,
    pub pending: Vec<String>,
    /// Scheduling policy (SCHED_*), nice value, real-time priority.
    pub policy: u32,
    pub nice: i32,
    pub priority: u32,
    /// 0 none, 1 strict, 2 filters.
    pub seccomp: u32,
    /// Real, effective, saved, file-system.
    pub uid: [u32; 4],
    pub gid: [u32; 4],
    pub capabilities_effective: String,
}

/// An address space.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MemoryInfo {
    pub executable: String,
    pub mapped_bytes: u64,
    /// Bytes in the image that exist nowhere else; bytes of files in the image.
    pub stored_bytes: u64,
    pub embedded_bytes: u64,
    pub brk_start: String,
    pub brk: String,
    pub vmas: Vec<VmaInfo>,
}

/// A VMA.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VmaInfo {
    pub start: String,
    pub end: String,
    /// As in /proc/PID/maps.
    pub protection: String,
    pub kind: String,
    /// `growsdown`, `locked`, `dontfork` ...
    pub flags: Vec<String>,
    pub offset: u64,
    /// Path of its file, or its name (PR_SET_VMA_ANON_NAME).
    pub name: String,
    pub stored_bytes: u64,
    pub embedded_bytes: u64,
}

/// A descriptor.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FdInfo {
    pub fd: i32,
    /// Index in `objects`.
    pub object: u32,
    pub cloexec: bool,
}

/// What is behind descriptors.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ObjectInfo {
    pub index: u32,
    pub kind: String,
    /// In words.
    pub detail: String,
    /// F_GETFL.
    pub open_flags: u32,
    pub offset: u64,
    /// Bytes of records of what waits in it to be read.
    pub queue_bytes: u64,
}

/// A lock of a file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LockInfo {
    pub kind: String,
    pub exclusive: bool,
    pub start: u64,
    /// 0: to the end.
    pub len: u64,
    pub object: u32,
    pub pid: i32,
}

/// A timer.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TimerInfo {
    /// `ITIMER_REAL` ..., or `timer N` of timer_create(2).
    pub timer: String,
    /// Until it expires; 0: disarmed.
    pub remaining_ns: u64,
    pub interval_ns: u64,
    /// What it does then, in words.
    pub notifies: String,
}

/// Something that is not in the image.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LossInfo {
    pub pid: i32,
    /// Name of `--allow`.
    pub kind: String,
    pub text: String,
}
