//! What has changed from one image to another.

use crate::model::{Report, SCHEMA};
use crate::space::{Piece, Space, What};
use anyhow::Result;
use ckpt_format::{Image, NONE, PAGE_SIZE, Task, Vma};
use ckpt_reader::ImageFile;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;

/// The difference between two images.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Difference {
    /// Version of the schema.
    pub schema: u32,
    /// Everything but memory: path of the value in the report, what it was, what it is. Absent: null.
    pub changed: BTreeMap<String, (Value, Value)>,
    pub memory: Vec<MemoryDifference>,
}

/// Pages of a VMA of the second image that differ from the first.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct MemoryDifference {
    pub pid: i32,
    pub start: String,
    pub end: String,
    /// Pages whose contents differ; those that the first image did not have mapped count if they are not zero.
    pub pages: u64,
}

/// What differs in any two dumps, and tells nothing.
const UNINTERESTING: [&str; 6] =
    ["uuid", "dumped", "time_realtime_ns", "time_monotonic_ns", "time_boottime_ns", "vmas"];

/// Compares the reports value by value.
pub fn reports(a: &Report, b: &Report) -> Result<BTreeMap<String, (Value, Value)>> {
    let mut changed = BTreeMap::new();
    compare("", &serde_json::to_value(a)?, &serde_json::to_value(b)?, &mut changed);
    Ok(changed)
}

fn compare(path: &str, a: &Value, b: &Value, out: &mut BTreeMap<String, (Value, Value)>) {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let keys = x.keys().chain(y.keys().filter(|k| !x.contains_key(*k)));
            for key in keys.filter(|k| !UNINTERESTING.contains(&k.as_str())) {
                let null = &Value::Null;
                let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&at, x.get(key).unwrap_or(null), y.get(key).unwrap_or(null), out);
            }
        }
        (Value::Array(x), Value::Array(y)) => {
            let name = |v: &Value, i: usize| {
                let id =
                    ["pid", "tid", "fd", "index"].iter().find_map(|k| v.get(*k).map(|n| format!("{k} {n}")));
                id.unwrap_or_else(|| i.to_string())
            };
            let named = |list: &[Value]| -> BTreeMap<String, Value> {
                list.iter().enumerate().map(|(i, v)| (name(v, i), v.clone())).collect()
            };
            let (x, y) = (named(x), named(y));
            for key in x.keys().chain(y.keys().filter(|k| !x.contains_key(*k))) {
                let null = &Value::Null;
                compare(
                    &format!("{path}[{key}]"),
                    x.get(key).unwrap_or(null),
                    y.get(key).unwrap_or(null),
                    out,
                );
            }
        }
        _ if a != b => {
            out.insert(path.into(), (a.clone(), b.clone()));
        }
        _ => {}
    }
}

/// Compares the memory of the tasks that both have, page by page.
pub fn memory(
    (old_file, old): (&ImageFile, &Image),
    (new_file, new): (&ImageFile, &Image),
) -> Result<Vec<MemoryDifference>> {
    let mut found = Vec::new();
    let with_memory = |t: &&Task| t.mm != NONE;
    for task in new.tasks.iter().filter(with_memory) {
        let Some(before) = old.tasks.iter().filter(with_memory).find(|t| t.pid == task.pid) else { continue };
        let mut a = Space::new(old_file, old, before)?;
        let mut b = Space::new(new_file, new, task)?;
        for vma in b.vmas {
            let pages = differing(&mut a, &mut b, vma)?;
            if pages > 0 {
                let (start, end) = (format!("{:#x}", vma.start), format!("{:#x}", vma.end));
                found.push(MemoryDifference { pid: task.pid, start, end, pages });
            }
        }
    }
    Ok(found)
}

fn differing(a: &mut Space<'_>, b: &mut Space<'_>, vma: &Vma) -> Result<u64> {
    let mut pages = 0;
    // What neither image stores is the same in both.
    let mut old = Vec::new();
    for v in a.vmas.iter().filter(|v| v.start < vma.end && v.end > vma.start) {
        old.extend(a.pieces(v)?);
    }
    for piece in b.pieces(vma)? {
        let mut rest = Some(piece);
        while let Some(now) = rest {
            let theirs = old.iter().find(|p| p.end > now.start && p.start < now.end);
            let (now, after) = match theirs {
                Some(p) if p.start <= now.start => now.split((p.end - now.start).min(256 * PAGE_SIZE)),
                Some(p) => now.split((p.start - now.start).min(256 * PAGE_SIZE)),
                None => now.split(256 * PAGE_SIZE),
            };
            rest = after;
            let same = theirs
                .filter(|p| p.start <= now.start)
                .map(|p| p.from(now.start).split(now.end - now.start).0);
            if !(is_plain(&now) && same.as_ref().is_none_or(is_plain)) {
                let ours = b.read(&now)?;
                let before = same.map_or_else(|| Ok(vec![0; ours.len()]), |p| a.read(&p))?;
                let page = PAGE_SIZE as usize;
                pages += ours.chunks(page).zip(before.chunks(page)).filter(|(x, y)| x != y).count() as u64;
            }
        }
    }
    Ok(pages)
}

fn is_plain(piece: &Piece<'_>) -> bool {
    !matches!(piece.what, What::Stored { .. })
}

impl Difference {
    pub fn new(changed: BTreeMap<String, (Value, Value)>, memory: Vec<MemoryDifference>) -> Self {
        Self { schema: SCHEMA, changed, memory }
    }

    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.memory.is_empty()
    }

    pub fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        for (path, (a, b)) in &self.changed {
            writeln!(out, "{path}: {a} -> {b}")?;
        }
        for m in &self.memory {
            writeln!(out, "task {}: {}-{}: {} pages differ", m.pid, m.start, m.end, m.pages)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_compared_by_their_names() {
        let a = json!({"uuid": 1, "fds": [{"fd": 3, "x": 1}, {"fd": 5, "x": 2}], "n": 1});
        let b = json!({"uuid": 2, "fds": [{"fd": 5, "x": 3}], "n": 1});
        let mut out = BTreeMap::new();
        compare("", &a, &b, &mut out);
        let keys: Vec<_> = out.keys().cloned().collect();
        assert_eq!(keys, ["fds[fd 3]", "fds[fd 5].x"]);
    }
}
