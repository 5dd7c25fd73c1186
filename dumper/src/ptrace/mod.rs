//! Stopping a process and running system calls in it, with guaranteed undo.
#![allow(unsafe_code)]

mod copy;
mod freeze;
mod frozen;
mod gadget;
pub mod parachute;
pub mod raw;
mod remote;
pub mod restart;
mod tracee;
mod tree;
mod undertaker;
mod wait;

pub use copy::MemoryCopy;
pub use freeze::list as threads;
pub use frozen::Frozen;
pub use remote::{Call, RemoteMemory, Scratch};
pub use tracee::{Stopped, Tracee};
pub use tree::{Fate, FrozenTree, Zombie, is_above_us};

/// An address in the target. Never dereferenced here, hence not a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RemoteAddr(pub u64);

impl RemoteAddr {
    /// The address `bytes` further on.
    #[must_use]
    pub fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl std::fmt::Display for RemoteAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
