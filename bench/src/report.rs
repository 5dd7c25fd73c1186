//! The table.

use serde::Serialize;
use std::path::Path;

/// One line: what was measured, against which limit.
#[derive(Debug, Serialize)]
pub struct Row {
    pub workload: String,
    pub what: String,
    /// Median, with unit in `unit`.
    pub value: f64,
    pub unit: &'static str,
    /// The limit, in the same unit, and what it is.
    pub limit: Option<f64>,
    pub limit_is: String,
    /// `value / limit` for times and sizes; `limit / value` for rates given as times.
    pub ratio: Option<f64>,
    /// What we aim at, in words.
    pub target: String,
}

impl Row {
    pub fn size(what: &str, bytes: u64, limit: u64) -> Self {
        Self {
            workload: "any".into(),
            what: what.into(),
            value: bytes as f64 / 1024.0,
            unit: "KiB",
            limit: Some(limit as f64 / 1024.0),
            limit_is: "budget".into(),
            ratio: Some(bytes as f64 / limit as f64),
            target: "at most 1".into(),
        }
    }

    /// MiB against MiB.
    pub fn mebibytes(
        workload: &str,
        what: &str,
        value: f64,
        limit: f64,
        limit_is: &str,
        target: &str,
    ) -> Self {
        Self {
            workload: workload.into(),
            what: what.into(),
            value,
            unit: "MiB",
            limit: Some(limit),
            limit_is: limit_is.into(),
            ratio: (limit > 0.0).then(|| value / limit),
            target: target.into(),
        }
    }

    /// A time in seconds, shown in ms, against a limit in seconds.
    pub fn time(workload: &str, what: &str, seconds: f64, limit: Option<(f64, &str)>, target: &str) -> Self {
        Self {
            workload: workload.into(),
            what: what.into(),
            value: seconds * 1e3,
            unit: "ms",
            limit: limit.map(|(l, _)| l * 1e3),
            limit_is: limit.map_or(String::new(), |(_, name)| name.into()),
            ratio: limit.map(|(l, _)| seconds / l),
            target: target.into(),
        }
    }
}

/// One line about the machine.
pub fn machine(dir: &Path) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map(|l| l.trim_start_matches([' ', '\t', ':']))
        .unwrap_or("?");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "Linux {}, {model}, {threads} CPUs, images in {}",
        read("/proc/sys/kernel/osrelease").trim(),
        dir.parent().unwrap_or(dir).display()
    )
}

/// Prints all rows as an aligned table.
pub fn print(rows: &[Row]) {
    println!(
        "{:<22} {:<38} {:>12}  {:>12}  {:>6}  {:<28} target",
        "workload", "what", "median", "limit", "ratio", "limit is"
    );
    for r in rows {
        println!(
            "{:<22} {:<38} {:>8.2} {:<4} {:>12}  {:>6}  {:<28} {}",
            r.workload,
            r.what,
            r.value,
            r.unit,
            r.limit.map_or(String::from("-"), |l| format!("{l:.2} {}", r.unit)),
            r.ratio.map_or(String::from("-"), |x| format!("{x:.2}")),
            r.limit_is,
            r.target
        );
    }
}
