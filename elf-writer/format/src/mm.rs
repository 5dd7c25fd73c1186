//! Address spaces and their VMAs.

use crate::{Range, Span};

crate::records! {
    /// An address space (shared by all threads of a task, and by CLONE_VM tasks).
    pub struct Mm[184] {
        /// VMAs in the VMA table, sorted by address.
        pub vmas: Range,
        /// Guard ranges in the guard table (MADV_GUARD_INSTALL).
        pub guards: Range,
        /// As `struct prctl_mm_map` (prctl(2), PR_SET_MM_MAP).
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
        /// `/proc/PID/auxv`.
        pub auxv: Span,
        /// Executable, index in the file table.
        pub exe: u32,
        /// PR_GET_DUMPABLE.
        pub dumpable: u32,
        /// [`mm_flags`].
        pub flags: u32,
        /// `/proc/PID/coredump_filter`.
        pub coredump_filter: u32,
        /// Address and length of the vDSO's code, and of the mappings ([vvar] ...) that belong to it.
        pub vdso_addr: u64,
        pub vdso_len: u64,
        pub vvar_addr: u64,
        pub vvar_len: u64,
        /// The vDSO's code (an ELF shared object), for a kernel that has another one.
        pub vdso_code: Span,
    }

    /// One VMA.
    pub struct Vma[88] {
        pub start: u64,
        pub end: u64,
        /// Offset in the file or shared object, in bytes (`vm_pgoff`); for anonymous memory 0.
        pub file_offset: u64,
        /// PROT_READ | PROT_WRITE | PROT_EXEC.
        pub prot: u32,
        /// [`VmaKind`].
        pub kind: u32,
        /// [`vma_flags`].
        pub flags: u64,
        /// File table index for every kind but `Anonymous`.
        pub file: u32,
        /// log2 of the page size for hugetlb VMAs, else 0.
        pub hugetlb_shift: u32,
        /// PR_SET_VMA_ANON_NAME; empty for none.
        pub name: Span,
        /// Extents (addresses) that differ from what the mapping shows when fresh: always laid over.
        pub dirty: Range,
        /// Extents (addresses) embedding the file's own bytes, without those under `dirty`: used only
        /// where the file is missing or different. Of shared mappings only for those never writable.
        pub embedded: Range,
        /// Protection key of the VMA (PKRU), 0 by default.
        pub pkey: u32,
        pub reserved: u32,
    }

    /// Pages that fault by MADV_GUARD_INSTALL (madvise(2), Linux 6.13).
    pub struct GuardRange[16] {
        pub start: u64,
        pub len: u64,
    }
}

/// Bits of [`Mm::flags`].
pub mod mm_flags {
    /// prctl(PR_SET_THP_DISABLE).
    pub const THP_DISABLE: u32 = 1;
    /// mlockall(MCL_FUTURE) [`| MCL_ONFAULT`].
    pub const LOCK_FUTURE: u32 = 2;
    pub const LOCK_FUTURE_ONFAULT: u32 = 4;
    /// prctl(PR_SET_MEMORY_MERGE).
    pub const MEMORY_MERGE: u32 = 8;
    /// With THP_DISABLE: PR_THP_DISABLE_EXCEPT_ADVISED.
    pub const THP_EXCEPT_ADVISED: u32 = 16;
    /// From this bit on: the MEMBARRIER_CMD_REGISTER_* commands that were in force (membarrier(2)).
    pub const MEMBARRIER_SHIFT: u32 = 16;
}

/// [`Vma::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum VmaKind {
    /// MAP_PRIVATE | MAP_ANONYMOUS.
    Anonymous = 1,
    /// MAP_PRIVATE of a file.
    FilePrivate = 2,
    /// MAP_SHARED of a file that has a name.
    FileShared = 3,
    /// MAP_SHARED of memory without a name: anonymous shared, memfd, deleted files. The contents
    /// belong to the file record, not to the VMA.
    SharedObject = 4,
    /// The ring of an AIO context (io_setup(2)); `dirty` has all of it.
    AioRing = 5,
}

impl VmaKind {
    pub fn from_u32(v: u32) -> Option<Self> {
        Some(match v {
            1 => Self::Anonymous,
            2 => Self::FilePrivate,
            3 => Self::FileShared,
            4 => Self::SharedObject,
            5 => Self::AioRing,
            _ => return None,
        })
    }
}

/// Bits of [`Vma::flags`], after the VmFlags of `/proc/PID/smaps` (Documentation/filesystems/proc.rst).
pub mod vma_flags {
    /// `gd`: MAP_GROWSDOWN.
    pub const GROWSDOWN: u64 = 1;
    /// `lo`: mlock().
    pub const LOCKED: u64 = 1 << 1;
    /// `lf`: MLOCK_ONFAULT.
    pub const LOCK_ONFAULT: u64 = 1 << 2;
    /// `sr` / `rr`: MADV_SEQUENTIAL / MADV_RANDOM.
    pub const SEQUENTIAL: u64 = 1 << 3;
    pub const RANDOM: u64 = 1 << 4;
    /// `dc`: MADV_DONTFORK.
    pub const DONTFORK: u64 = 1 << 5;
    /// `wf`: MADV_WIPEONFORK.
    pub const WIPEONFORK: u64 = 1 << 6;
    /// `dd`: MADV_DONTDUMP.
    pub const DONTDUMP: u64 = 1 << 7;
    /// `nr`: MAP_NORESERVE.
    pub const NORESERVE: u64 = 1 << 8;
    /// `hg` / `nh`: MADV_HUGEPAGE / MADV_NOHUGEPAGE.
    pub const HUGEPAGE: u64 = 1 << 9;
    pub const NOHUGEPAGE: u64 = 1 << 10;
    /// `mg`: MADV_MERGEABLE.
    pub const MERGEABLE: u64 = 1 << 11;
    /// `ht`: hugetlb.
    pub const HUGETLB: u64 = 1 << 12;
    /// `ac`: accounted (VM_ACCOUNT).
    pub const ACCOUNT: u64 = 1 << 13;
    /// `mw`: VM_MAYWRITE (a shared file mapping without it needs only a read-only descriptor).
    pub const MAYWRITE: u64 = 1 << 14;
    /// `sf`: MAP_SYNC.
    pub const SYNC: u64 = 1 << 15;
    /// `sl`: mseal() (Linux 6.10; shown from 6.16).
    pub const SEALED: u64 = 1 << 16;
    /// `dp`: MAP_DROPPABLE.
    pub const DROPPABLE: u64 = 1 << 17;
}
