//! Credentials of a thread, from `/proc/PID/task/TID/status`.

/// User and group ids, groups, capabilities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CredsFacts {
    /// Real, effective, saved, file-system.
    pub uid: [u32; 4],
    pub gid: [u32; 4],
    pub groups: Vec<u32>,
    pub cap_inheritable: u64,
    pub cap_permitted: u64,
    pub cap_effective: u64,
    pub cap_bounding: u64,
    pub cap_ambient: u64,
    pub securebits: u32,
    pub no_new_privs: bool,
}
