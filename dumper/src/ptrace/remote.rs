//! System calls that the target runs for us.

use super::RemoteAddr;

/// One system call: its number and arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub number: i64,
    pub args: [u64; 6],
}

impl Call {
    /// A call with up to six arguments; missing ones are 0.
    #[must_use]
    pub fn new(number: i64, args: &[u64]) -> Self {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        Self { number, args: all }
    }
}

/// A page in the target that calls may use for their arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scratch {
    pub addr: RemoteAddr,
    /// Length in bytes.
    pub len: u64,
}
