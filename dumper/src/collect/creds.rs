//! Credentials of a thread, from `/proc/PID/task/TID/status`.

use super::proc;

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

/// Reads `/proc/PID/task/TID/status`. Securebits are not there: see [`super::threads`].
#[must_use]
pub fn parse(status: &str) -> CredsFacts {
    let ids = |key| {
        let numbers = proc::numbers(status, key);
        std::array::from_fn(|i| numbers.get(i).copied().unwrap_or(0))
    };
    let caps = |key| proc::hex_field(status, key).unwrap_or(0);
    CredsFacts {
        uid: ids("Uid"),
        gid: ids("Gid"),
        groups: proc::numbers(status, "Groups"),
        cap_inheritable: caps("CapInh"),
        cap_permitted: caps("CapPrm"),
        cap_effective: caps("CapEff"),
        cap_bounding: caps("CapBnd"),
        cap_ambient: caps("CapAmb"),
        securebits: 0,
        no_new_privs: proc::field(status, "NoNewPrivs") == Some("1"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn from_status() {
        let creds = super::parse(
            "Uid:\t1000\t1001\t1002\t1003\nGid:\t5\t6\t7\t8\nGroups:\t4 24 27\nCapInh:\t0\n\
             CapPrm:\t000001ffffffffff\nCapEff:\t1\nCapBnd:\t2\nCapAmb:\t4\nNoNewPrivs:\t1\n",
        );
        assert_eq!(creds.uid, [1000, 1001, 1002, 1003]);
        assert_eq!(creds.gid, [5, 6, 7, 8]);
        assert_eq!(creds.groups, [4, 24, 27]);
        assert_eq!(creds.cap_permitted, 0x1ff_ffff_ffff);
        assert!(creds.no_new_privs);
    }
}
