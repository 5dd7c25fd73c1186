//! CPU state of threads and what the kernel keeps per thread.

use super::CredsFacts;

/// One thread.
#[derive(Clone, Debug, Default)]
pub struct ThreadFacts {
    pub tid: i32,
    pub name: [u8; 16],
    /// As the kernel shows them at the stop.
    pub regs: ckpt_format::Regs,
    pub xstate: Vec<u8>,
    pub sigmask: u64,
    pub altstack_sp: u64,
    pub altstack_flags: u64,
    pub altstack_size: u64,
    pub robust_list: u64,
    pub robust_list_len: u64,
    pub tid_address: u64,
    /// Address at which libc caches the thread id, and whose layout it is.
    pub tid_cache: Option<(u64, Libc)>,
    pub rseq: Rseq,
    pub sched: Sched,
    pub ioprio: u32,
    pub affinity: Vec<u8>,
    /// The mask allows every CPU that is online.
    pub affinity_all: bool,
    pub timer_slack_ns: u64,
    pub pdeathsig: u32,
    pub creds: CredsFacts,
    /// Oldest first.
    pub pending: Vec<ckpt_format::PendingSignal>,
}

/// C library whose thread control block was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libc {
    Glibc,
    Musl,
}

/// rseq(2) registration; address 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rseq {
    pub addr: u64,
    pub len: u32,
    pub sig: u32,
    /// Where the thread must go on when it stands inside a critical section.
    pub abort_ip: Option<u64>,
}

/// sched_getattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sched {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    pub util_min: u32,
    pub util_max: u32,
}
