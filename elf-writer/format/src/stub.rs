//! What the writer tells the stub: one record in the stub's data, found by its symbol.

crate::records! {
    /// Patched into the stub by the writer (symbol [`STUB_CONFIG_SYMBOL`]).
    pub struct StubConfig[128] {
        /// Address and length at which the metadata region is mapped (read-only PT_LOAD).
        pub meta_addr: u64,
        pub meta_len: u64,
        /// Anonymous read-write work area: stacks and scratch memory (PT_LOAD without file bytes).
        pub work_addr: u64,
        pub work_len: u64,
        /// Unmapped part of the hole, where the stub may move the vDSO for the time being.
        pub parking_addr: u64,
        pub parking_len: u64,
        /// The whole hole: [stub segments | metadata | work | parking | shared], guards included.
        pub hole_addr: u64,
        pub hole_len: u64,
        /// The stub's own segments inside the hole: `[stub_addr, stub_addr + stub_len)`.
        pub stub_addr: u64,
        pub stub_len: u64,
        /// First descriptor number above every saved one: the stub's own go there.
        pub first_free_fd: u64,
        /// Unmapped end of the hole: shared memory objects of several address spaces; length 0 for none.
        pub shared_addr: u64,
        pub shared_len: u64,
        /// In a restorer that ckpt-restore has made: the descriptor of the image; 0 in an image.
        pub image_fd: u64,
        /// There, too: address and length of the image's path, behind the metadata.
        pub name_addr: u64,
        pub name_len: u64,
    }
}

/// Name of the `StubConfig` static in the stub.
pub const STUB_CONFIG_SYMBOL: &str = "CKPT_STUB_CONFIG";

/// Bytes of work area that the stub needs besides [`WORK_PER_THREAD`] for each thread: half of it for those
/// who decompress.
pub const WORK_BASE: u64 = 9 << 20;
/// Bytes of work area for each saved thread (its stack while the stub runs).
pub const WORK_PER_THREAD: u64 = 16 << 10;
/// Bytes of parking: room for the vDSO, the staging areas, and again room for the vDSO (which stays
/// at the end where this kernel's is not the saved one).
pub const PARKING: u64 = VDSO_ROOM + STAGING + VDSO_ROOM;
/// Bytes for the vDSO and its data pages, of any kernel.
pub const VDSO_ROOM: u64 = 1 << 20;
/// Bytes in which huge pages are filled before they are moved.
pub const STAGING: u64 = 18 << 20;
/// Objects in the shared area start at multiples of this: huge pages of the usual size fit.
pub const SHARED_ALIGN: u64 = 2 << 20;
