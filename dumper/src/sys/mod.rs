//! The few system calls that have no safe wrapper in the libraries we use.
#![allow(unsafe_code)]

pub mod child;
pub mod cpuid;
pub mod dir;
pub mod fd;
pub mod guard;
pub mod ipc;
pub mod keep;
pub mod mqueue;
pub mod process;
pub mod pty_data;
pub mod share;
pub mod signals;
pub mod socket;
pub mod tcp;
pub mod thread;
pub mod tty;
pub mod uffd;
pub mod vm;
