//! What is dumped and restored.

/// One process to measure.
#[derive(Debug, Clone)]
pub struct Workload {
    pub name: &'static str,
    /// Bytes of private memory.
    pub bytes: u64,
    /// `4k` (noise), `huge` (the same), `zero` (touched, all zero) or `heap` (compressible; for this --compress,
    /// --dedup, --parent and --track are measured, too).
    pub pages: &'static str,
    /// Additional one-page VMAs.
    pub vmas: u32,
    /// Additional threads, descriptors, child processes.
    pub threads: u32,
    pub fds: u32,
    pub processes: u32,
    /// Bytes of a reservation of which 1 % is touched.
    pub reserved: u64,
    /// Restores that are started at once, besides the measurements of one.
    pub crowd: u32,
    /// Part of `--quick`.
    quick: bool,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn memory(name: &'static str, bytes: u64, pages: &'static str, quick: bool) -> Workload {
    Workload { name, bytes, pages, vmas: 0, threads: 0, fds: 0, processes: 0, reserved: 0, crowd: 0, quick }
}

impl Workload {
    /// It has much of something that takes time to be made.
    pub fn has_many(&self) -> bool {
        self.vmas + self.threads + self.fds + self.processes > 0
    }

    /// Bytes that an image must hold.
    pub fn stored(&self) -> u64 {
        let touched = self.reserved / (100 * 4096) * 4096;
        touched + if self.pages == "zero" { 0 } else { self.bytes }
    }
}

/// All workloads, smallest first.
pub fn all(quick: bool) -> Vec<Workload> {
    let list = vec![
        Workload { crowd: 10, ..memory("16 MiB, 4 KiB pages", 16 * MIB, "4k", true) },
        memory("256 MiB, 4 KiB pages", 256 * MIB, "4k", true),
        memory("256 MiB, huge pages", 256 * MIB, "huge", false),
        Workload { crowd: 10, ..memory("1 GiB, 4 KiB pages", GIB, "4k", true) },
        memory("1 GiB, huge pages", GIB, "huge", false),
        memory("1 GiB of zero pages", GIB, "zero", false),
        memory("4 GiB, 4 KiB pages", 4 * GIB, "4k", false),
        memory("4 GiB, huge pages", 4 * GIB, "huge", false),
        memory("256 MiB, as a heap", 256 * MIB, "heap", true),
        memory("4 GiB, as a heap", 4 * GIB, "heap", false),
        Workload { reserved: 64 * GIB, ..memory("1 % of 64 GiB", MIB, "4k", false) },
        Workload { vmas: 5_000, ..memory("5,000 VMAs", MIB, "4k", true) },
        Workload { vmas: 30_000, ..memory("30,000 VMAs", MIB, "4k", false) },
        Workload { threads: 100, ..memory("100 threads", MIB, "4k", true) },
        Workload { threads: 1_000, ..memory("1,000 threads", MIB, "4k", false) },
        Workload { fds: 10_000, ..memory("10,000 descriptors", MIB, "4k", true) },
        Workload { processes: 100, ..memory("100 processes", MIB, "4k", true) },
    ];
    list.into_iter().filter(|w| w.quick || !quick).collect()
}
