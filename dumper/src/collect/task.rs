//! What belongs to the whole process and not to memory, descriptors or signals.

/// `/proc/PID/stat`, `status`, `limits` ... and prctl(2) values.
#[derive(Clone, Debug, Default)]
pub struct ProcessFacts {
    pub ppid: i32,
    pub pgid: i32,
    pub sid: i32,
    /// Controlling terminal, as `/proc/PID/stat` encodes it (`new_encode_dev`); 0 for none.
    pub tty_nr: u32,
    /// Foreground process group of that terminal, -1 for none.
    pub tty_pgrp: i32,
    pub exit_signal: i32,
    pub personality: u32,
    pub umask: u32,
    pub cwd: Vec<u8>,
    pub root: Vec<u8>,
    /// `(soft, hard)` by RLIMIT_* number.
    pub rlimits: [[u64; 2]; 16],
    pub oom_score_adj: i32,
    pub child_subreaper: bool,
    /// PR_GET_DUMPABLE.
    pub dumpable: u32,
    pub thp_disable: bool,
    /// Signal that stopped the process, when it was in a group stop.
    pub stopped_by: Option<i32>,
    /// Living children, pid and name.
    pub children: Vec<(i32, String)>,
    /// `comm` of the leader, and the arguments separated by spaces.
    pub name: String,
    pub command: String,
    /// Fields of `struct prctl_mm_map`, from `/proc/PID/stat`; `brk` by an injected brk(0).
    pub mm: MmFields,
}

/// Start and end addresses of the parts of an address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MmFields {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
}
