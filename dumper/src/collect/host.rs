//! The machine: names, boot id, clocks.

use super::proc;
use super::surroundings::clock_offsets;
use crate::sys::thread::clock;
use anyhow::{Context, Result};

/// Where and when the dump is made.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    pub uuid: [u8; 16],
    pub boot_id: [u8; 16],
    pub time_realtime: u64,
    pub time_monotonic: u64,
    pub time_boottime: u64,
    pub hostname: String,
    pub kernel: String,
}

/// Observes the machine, with the clocks that the process sees.
///
/// # Errors
/// When `/proc/sys/kernel` cannot be read.
pub fn collect(pid: i32) -> Result<HostFacts> {
    let [mut monotonic, mut boottime] = [libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME].map(clock);
    if let (Some(ours), Some(theirs)) = (clock_offsets("self"), clock_offsets(&pid.to_string())) {
        monotonic = monotonic.saturating_add_signed(theirs[0] - ours[0]);
        boottime = boottime.saturating_add_signed(theirs[1] - ours[1]);
    }

    let text = |name: &str| proc::read(&format!("/proc/sys/kernel/{name}")).map(|s| s.trim().to_owned());
    let uuid = |name: &str| -> Result<[u8; 16]> {
        let text = text(name)?;
        parse_uuid(&text).with_context(|| format!("/proc/sys/kernel/{name} is not a UUID: {text}"))
    };
    Ok(HostFacts {
        uuid: uuid("random/uuid")?,
        boot_id: uuid("random/boot_id")?,
        time_realtime: clock(libc::CLOCK_REALTIME),
        time_monotonic: monotonic,
        time_boottime: boottime,
        hostname: text("hostname")?,
        kernel: text("osrelease")?,
    })
}

/// Hexadecimal digits, with or without dashes.
#[must_use]
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn uuids() {
        let bytes = super::parse_uuid("01020304-0506-0708-090a-0b0c0d0e0f10").unwrap();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert!(super::parse_uuid("nonsense").is_none());
    }
}
