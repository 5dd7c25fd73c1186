//! The machine: names, boot id, clocks.

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
