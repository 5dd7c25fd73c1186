//! Threads: CPU state and what the kernel keeps per thread.

use crate::{Range, Span};

crate::records! {
    /// General registers as `struct user_regs_struct` (x86-64), after the dump's corrections: an
    /// interrupted system call has `orig_rax` >= 0 and `rax` = -ERESTART*, so that the kernel that
    /// resumes the thread decides between restart and EINTR as it would have.
    pub struct Regs[216] {
        pub r15: u64, pub r14: u64, pub r13: u64, pub r12: u64, pub rbp: u64, pub rbx: u64,
        pub r11: u64, pub r10: u64, pub r9: u64, pub r8: u64, pub rax: u64, pub rcx: u64,
        pub rdx: u64, pub rsi: u64, pub rdi: u64, pub orig_rax: u64, pub rip: u64, pub cs: u64,
        pub eflags: u64, pub rsp: u64, pub ss: u64, pub fs_base: u64, pub gs_base: u64,
        pub ds: u64, pub es: u64, pub fs: u64, pub gs: u64,
    }

    pub struct Thread[504] {
        pub tid: i32,
        /// Index of its task.
        pub task: u32,
        /// PR_SET_NAME, NUL padded.
        pub name: [u8; 16],
        pub regs: Regs,
        /// Extended state as NT_X86_XSTATE shows it (uncompacted XSAVE area).
        pub xstate: Span,
        /// Blocked signals.
        pub sigmask: u64,
        /// sigaltstack(2): base, flags, size.
        pub altstack_sp: u64,
        pub altstack_flags: u64,
        pub altstack_size: u64,
        /// set_robust_list(2).
        pub robust_list: u64,
        pub robust_list_len: u64,
        /// set_tid_address(2) / CLONE_CHILD_CLEARTID.
        pub tid_address: u64,
        /// Address at which libc caches this thread's id (glibc, musl), or 0 where none was found.
        pub tid_cache: u64,
        /// rseq(2) registration; address 0 for none.
        pub rseq_addr: u64,
        pub rseq_len: u32,
        pub rseq_sig: u32,
        /// sched_getattr(2).
        pub sched_policy: u32,
        pub sched_nice: i32,
        pub sched_priority: u32,
        pub sched_util_min: u32,
        pub sched_util_max: u32,
        pub ioprio: u32,
        pub sched_flags: u64,
        pub sched_runtime: u64,
        pub sched_deadline: u64,
        pub sched_period: u64,
        /// CPU mask, as sched_getaffinity(2).
        pub affinity: Span,
        pub timer_slack_ns: u64,
        pub pdeathsig: u32,
        /// Index in the credentials table.
        pub creds: u32,
        /// Signals pending for this thread, oldest first.
        pub pending: Range,
        /// [`thread_flags`].
        pub flags: u32,
        /// prctl(PR_GET_SECCOMP): 0, 1 (strict), 2 (filters).
        pub seccomp_mode: u32,
        /// [`SeccompFilter`]s that it installs, oldest first.
        pub seccomp_filters: Span,
        pub reserved2: [u64; 6],
    }

    /// A filter of seccomp(2).
    pub struct SeccompFilter[32] {
        /// `struct sock_filter`s.
        pub program: Span,
        /// SECCOMP_FILTER_FLAG_LOG; SECCOMP_FILTER_FLAG_TSYNC: for all threads of the process.
        pub flags: u32,
        pub reserved: u32,
        pub reserved2: u64,
    }
}

/// Bits of [`Thread::flags`].
pub mod thread_flags {
    /// Number of the interrupted system call is in `regs.orig_rax`.
    pub const IN_SYSCALL: u32 = 1;
    /// `tid_cache` follows glibc's layout / musl's.
    pub const LIBC_GLIBC: u32 = 2;
    pub const LIBC_MUSL: u32 = 4;
    /// The affinity mask allowed every CPU that was online at the dump.
    pub const AFFINITY_ALL: u32 = 8;
}
