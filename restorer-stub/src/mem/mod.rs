//! The address space: our own place in it, the program's mappings and their contents, the vDSO.
#![allow(unsafe_code)]

pub mod aio;
pub mod blocks;
pub mod fill;
pub mod huge;
pub mod lazy;
pub mod lazy_fill;
pub mod map;
pub mod map_image;
pub mod own;
pub mod shared;
pub mod start;
pub mod sysv;
pub mod tids;
pub mod vdso;
pub mod work;
