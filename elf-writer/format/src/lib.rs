//! The records of a ckpt image: the only definition of the format, shared by the writer, the stub,
//! the inspector, the binfmt handler and the fuzz targets. `no_std`, no features, no allocation.
//!
//! An image is an ELF64 executable. Everything that is not memory contents lies in its `PT_NOTE`
//! segment (the *metadata region*), as notes of owner [`NOTE_OWNER`]. The first note is the
//! [`Header`] followed by a directory of [`DirEntry`]; every other note is one table: an array of
//! fixed-size `repr(C)` little-endian records, 8-byte aligned. Strings and variable-length
//! payloads are [`Span`]s into the [`NoteType::Blobs`] note. Page data lies outside the metadata,
//! described by [`Extent`]s. `FORMAT.md` beside this crate says the same in prose.
#![no_std]

#[cfg(not(target_endian = "little"))]
compile_error!("image records are little-endian and are used in place");

pub mod blob;
pub mod content;
pub mod cpu;
pub mod fd;
pub mod file;
pub mod header;
pub mod image;
pub mod mm;
pub mod signal;
pub mod stub;
pub mod sysv;
pub mod task;
pub mod thread;
pub mod words;

pub use blob::{Range, Span};
pub use content::{Compression, Extent, extent_flags};
pub use fd::{FdEntry, Lock, Object, ObjectKind};
pub use file::FileIdent;
pub use header::{DirEntry, Header, Loss, NoteType};
pub use image::{FormatError, Image, Meta, record_size};
pub use mm::{Mm, Vma, VmaKind, vma_flags};
pub use signal::{Itimer, PendingSignal, PosixTimer, SigAction};
pub use stub::StubConfig;
pub use sysv::{IpcPerm, SemUndo, SysvMessage, SysvMsg, SysvSem, SysvShm};
pub use task::{Creds, FdTable, FsInfo, Sighand, Task};
pub use thread::{Regs, SeccompFilter, Thread};

/// Owner name of our notes (`Elf64_Nhdr::n_namesz` is 5, with the NUL).
pub const NOTE_OWNER: &[u8; 5] = b"CKPT\0";

/// What `e_ident[EI_PAD..]` (bytes 9 to 15) of an image holds, so that `binfmt_misc` and `file`
/// can tell it from its first 16 bytes.
pub const EI_PAD_MAGIC: [u8; 7] = *b"CKPT\0\0\x01";

/// Whether a file that starts with these bytes says that it is an image.
#[must_use]
pub fn is_image(start: &[u8]) -> bool {
    start.starts_with(b"\x7fELF") && start.get(9..16) == Some(&EI_PAD_MAGIC[..])
}

/// Version of the format. An image of a higher version is refused.
pub const FORMAT_VERSION: u32 = 1;

/// Page size of the only page granularity that version 1 knows.
pub const PAGE_SIZE: u64 = 4096;

/// "No index": an absent reference to another table.
pub const NONE: u32 = u32::MAX;

/// What a thread's read(2) has returned in the image, when that read waits for the dump of its own process
/// (`ckpt-dump --caller`): more than could have been read, so that only a restored run sees it.
pub const RESTORED_CALL: u64 = 0x7fff_cc97;

/// Exit status of an image whose restore failed before the program ran.
pub const EXIT_RESTORE_FAILED: i32 = 125;

/// The checksum used throughout: XXH3, 64 bits, seed 0.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// A record that may be viewed in place in an image.
pub trait Record:
    zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable + zerocopy::KnownLayout + Copy + 'static
{
}
impl<T> Record for T where
    T: zerocopy::FromBytes
        + zerocopy::IntoBytes
        + zerocopy::Immutable
        + zerocopy::KnownLayout
        + Copy
        + 'static
{
}

/// Declares `repr(C)` records with the derives that every record needs and checks their sizes.
#[macro_export]
macro_rules! records {
    ($( $(#[$meta:meta])* pub struct $name:ident [$size:literal] { $( $(#[$fm:meta])* pub $field:ident : $ty:ty, )* } )*) => {
        $(
            $(#[$meta])*
            #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
            #[derive(Clone, Copy, Debug)]
            #[repr(C)]
            pub struct $name { $( $(#[$fm])* pub $field: $ty, )* }
            const _: () = assert!(core::mem::size_of::<$name>() == $size);
            const _: () = assert!($size % 8 == 0 && core::mem::align_of::<$name>() <= 8);
            impl Default for $name {
                fn default() -> Self { zerocopy::FromZeros::new_zeroed() }
            }
        )*
    };
}
