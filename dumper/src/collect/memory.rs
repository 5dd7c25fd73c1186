//! The address space: VMAs, which pages are populated, guard ranges, the files behind it.

pub mod files;
pub mod pagemap;
pub mod resident;
pub mod sharers;
pub mod smaps;

use super::proc;
use crate::ptrace::{Frozen, RemoteAddr};
use anyhow::{Context, Result, anyhow};
pub use files::MappedFile;
pub use pagemap::Pages;

/// What the kernel says about one address space.
#[derive(Clone, Debug, Default)]
pub struct MemoryFacts {
    /// All but the kernel's own (vDSO and its data, vsyscall), by address.
    pub vmas: Vec<VmaFacts>,
    pub files: Vec<MappedFile>,
    /// Index of the executable in `files`.
    pub exe: Option<usize>,
    pub vdso: VdsoFacts,
    /// `/proc/PID/auxv`.
    pub auxv: Vec<u8>,
    /// `/proc/PID/coredump_filter`.
    pub coredump_filter: u32,
    /// mlockall(MCL_FUTURE), and whether with MCL_ONFAULT.
    pub lock_future: Option<bool>,
    /// Nameless memory that others have, too.
    pub sharers: Vec<sharers::Sharer>,
    /// Which address space of the parent it was, if writes have been tracked since.
    pub earlier: Option<u32>,
}

/// One VMA.
#[derive(Clone, Debug, Default)]
pub struct VmaFacts {
    pub shown: smaps::Entry,
    pub pages: Pages,
    /// Index in [`MemoryFacts::files`].
    pub file: Option<usize>,
    /// Of shared memory without a handle: the pages with contents, where that can be told.
    pub resident: Option<pagemap::Runs>,
}

/// Where writes were tracked since the parent was made, and which pages have been written to.
#[derive(Clone, Debug, Default)]
pub struct Tracked {
    /// VMAs.
    pub vmas: pagemap::Runs,
    pub written: pagemap::Runs,
    /// Which address space of the parent this was.
    pub space: u32,
}

/// What the kernel maps into every program.
#[derive(Clone, Debug, Default)]
pub struct VdsoFacts {
    pub addr: u64,
    pub len: u64,
    /// `[vvar]` and its kin, which lie together.
    pub vvar_addr: u64,
    pub vvar_len: u64,
    /// The vDSO: an ELF shared object.
    pub code: Vec<u8>,
}

/// The VMAs of a process, ours among them.
///
/// # Errors
/// When `/proc/PID/smaps` cannot be read.
pub fn smaps(pid: i32) -> Result<Vec<smaps::Entry>> {
    let path = format!("/proc/{pid}/smaps");
    let text = proc::bytes(&path).with_context(|| format!("reading {path}"))?;
    smaps::parse(&text).map_err(|e| anyhow!("{path}: {e}"))
}

/// Observes the address space of a stopped process, of which [`smaps()`] showed this, and where writes have been
/// tracked since the earlier image.
///
/// # Errors
/// When a file below `/proc/PID` cannot be read, or the target died.
pub fn collect(
    target: &mut Frozen,
    shown: Vec<smaps::Entry>,
    known: &mut files::Known,
    tracked: Option<&Tracked>,
) -> Result<MemoryFacts> {
    let pid = target.pid();
    let ours = target.scratch_range().unwrap_or(0..0);
    // No call tells about mlockall(MCL_FUTURE), but our own mapping is new.
    let future = shown.iter().find(|e| e.start == ours.start && e.has(b"lo"));
    let lock_future = future.map(|e| e.has(b"lf") || e.rss < e.end - e.start);
    let mut facts = MemoryFacts {
        vdso: vdso(&shown),
        lock_future,
        earlier: tracked.map(|t| t.space),
        ..MemoryFacts::default()
    };
    let kept: Vec<smaps::Entry> =
        shown.into_iter().filter(|e| !is_kernels(e) && !ours.contains(&e.start)).collect();
    facts.vdso.code = vec![0; facts.vdso.len as usize];
    target.read(RemoteAddr(facts.vdso.addr), &mut facts.vdso.code).context("reading the vDSO")?;

    let areas: Vec<pagemap::Area> = kept
        .iter()
        .map(|e| pagemap::Area {
            start: e.start,
            end: e.end,
            populated: e.rss + e.swap,
            anonymous: !e.shared && e.ino == 0 && !e.path.starts_with(b"/"),
        })
        .collect();
    let mut pages = pagemap::collect(pid, &areas)?;
    pages.unwritten = match tracked {
        // Both times: what was given back and written anew in between was not there the first time.
        Some(tracked) => pagemap::without(&pagemap::both(&pages.unwritten, &tracked.vmas), &tracked.written),
        None => Vec::new(),
    };
    let mut files = files::Files::new(pid, known);
    for entry in kept {
        let mut own = pages.within(entry.start, entry.end);
        if entry.shared {
            // Contents belong to the object; guards to this mapping (since Linux 6.15).
            own.own.clear();
        }
        let file = (entry.ino != 0 || entry.path.starts_with(b"/")).then(|| files.of_mapping(&entry));
        let unreachable = |i: usize| !files.found[i].present && files.found[i].handle.is_none();
        // Only here is "resident" the same as "has contents": pages of a disk's file may be on disk.
        let memory = [&b"/dev/zero"[..], b"/memfd:", b"/SYSV", b"/dev/shm/", b"[anon_shmem:"]
            .iter()
            .any(|prefix| entry.path.starts_with(prefix));
        let by_mapping = entry.shared && memory && file.is_some_and(unreachable);
        let resident = if by_mapping { resident::collect(target, &entry)? } else { None };
        facts.vmas.push(VmaFacts { shown: entry, pages: own, file, resident });
    }
    facts.exe = files.exe();
    facts.files = files.found;

    let path = format!("/proc/{pid}/auxv");
    facts.auxv = std::fs::read(&path).with_context(|| format!("reading {path}"))?;
    // Absent in kernels without core dumps.
    let filter = std::fs::read_to_string(format!("/proc/{pid}/coredump_filter")).unwrap_or_default();
    facts.coredump_filter = u32::from_str_radix(filter.trim(), 16).unwrap_or(0x33);
    Ok(facts)
}

fn is_kernels(entry: &smaps::Entry) -> bool {
    entry.is("[vdso]") || entry.is("[vsyscall]") || entry.path.starts_with(b"[vvar")
}

fn vdso(entries: &[smaps::Entry]) -> VdsoFacts {
    let mut facts = VdsoFacts::default();
    if let Some(code) = entries.iter().find(|e| e.is("[vdso]")) {
        (facts.addr, facts.len) = (code.start, code.end - code.start);
    }
    let data = || entries.iter().filter(|e| e.path.starts_with(b"[vvar"));
    if let (Some(first), Some(last)) = (data().next(), data().next_back()) {
        (facts.vvar_addr, facts.vvar_len) = (first.start, last.end - first.start);
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_own_mappings_are_told_apart() {
        let text = "\
7fff00000000-7fff00004000 r--p 00000000 00:00 0  [vvar]
7fff00004000-7fff00006000 r--p 00000000 00:00 0  [vvar_vclock]
7fff00006000-7fff00008000 r-xp 00000000 00:00 0  [vdso]
7fff00010000-7fff00020000 rw-p 00000000 00:00 0  [stack]
";
        let entries = smaps::parse(text.as_bytes()).unwrap();
        let v = vdso(&entries);
        assert_eq!((v.addr, v.len), (0x7fff_0000_6000, 0x2000));
        assert_eq!((v.vvar_addr, v.vvar_len), (0x7fff_0000_0000, 0x6000));
        assert_eq!(entries.iter().filter(|e| !is_kernels(e)).count(), 1);
    }
}
