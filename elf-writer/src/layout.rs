//! Where everything goes: pure arithmetic on addresses and file offsets.
//!
//! File: `[ELF header, program headers | stub | contents | metadata | section headers and names]`.
//! Memory (the hole): `[stub | metadata | work area | vDSO parking | shared memory]`, everything
//! page-aligned.

use crate::plan::Tables;
use crate::stub::Stub;
use ckpt_format::file::file_flags;
use ckpt_format::stub::{PARKING, SHARED_ALIGN, WORK_BASE, WORK_PER_THREAD};
use ckpt_format::{Extent, FileIdent, Mm, PAGE_SIZE, StubConfig, Task, Thread, VmaKind, vma_flags};

/// Length of the ELF header and program header table: kernels before 6.17 want the table within one
/// page, and one page for both keeps the image readable with a single read.
pub const HEADER_LEN: u64 = PAGE_SIZE;
/// Program headers that fit [`HEADER_LEN`] beside the ELF header (limit of the kernel: 73).
pub const MAX_PHDRS: usize = (PAGE_SIZE as usize - 64) / 56;
/// Nothing at or above this address may be a PT_LOAD: the kernel places the new stack there first,
/// and later segments silently overwrite it.
pub const STACK_WINDOW: u64 = 0x7ffc_0000_0000;
/// Below the default `vm.mmap_min_addr` only a privileged exec could map a segment.
pub const LOWEST: u64 = 0x1_0000;
/// Reservations (MAP_NORESERVE, PROT_NONE) above this size are left to the stub: PT_LOAD has no
/// MAP_NORESERVE, and overcommit would kill the exec.
pub const GIANT: u64 = 1 << 30;

/// Rounds up to whole pages.
pub const fn pages_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE_SIZE)
}

/// Places in the hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    pub stub: u64,
    pub meta: u64,
    /// Room for the metadata; what is mapped is its real length.
    pub meta_max: u64,
    pub work: u64,
    pub work_len: u64,
    pub parking: u64,
    /// Shared memory objects that several address spaces map; see `file_flags::SEVERAL_MMS`.
    pub shared: u64,
    pub end: u64,
}

impl Places {
    /// Divides a hole that starts at `hole`, which must be page-aligned.
    pub fn new(hole: u64, stub_len: u64, meta_max: u64, needs: Needs) -> Self {
        let meta = hole + pages_up(stub_len);
        let meta_max = pages_up(meta_max);
        let work = meta + meta_max;
        // The stub keeps some words for each descriptor, object and file, less than half of a record.
        let work_len = pages_up(WORK_BASE + needs.workers * WORK_PER_THREAD + meta_max / 2);
        let parking = work + work_len;
        let (shared, end) = match needs.shared_len {
            0 => (parking + PARKING, parking + PARKING),
            len => {
                let shared = (parking + PARKING).next_multiple_of(SHARED_ALIGN);
                (shared, shared + len)
            }
        };
        Self { stub: hole, meta, meta_max, work, work_len, parking, shared, end }
    }

    /// What the stub is told.
    pub fn config(&self, stub: &Stub, hole_len: u64, meta_len: u64, first_free_fd: u64) -> StubConfig {
        StubConfig {
            meta_addr: self.meta,
            meta_len,
            work_addr: self.work,
            work_len: self.work_len,
            parking_addr: self.parking,
            parking_len: PARKING,
            hole_addr: self.stub,
            hole_len,
            stub_addr: self.stub,
            stub_len: stub.len(),
            first_free_fd,
            shared_addr: self.shared,
            shared_len: self.end - self.shared,
            ..StubConfig::default()
        }
    }
}

/// What the size of the hole depends on besides stub and metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Threads and processes.
    workers: u64,
    /// Bytes of the shared memory objects that several address spaces map.
    shared_len: u64,
}

impl Needs {
    pub fn new(tasks: &[Task], threads: &[Thread], files: &[FileIdent]) -> Self {
        let several = files.iter().filter(|f| f.flags & file_flags::SEVERAL_MMS != 0);
        Self {
            workers: (threads.len() + tasks.len()) as u64,
            shared_len: several
                .fold(0, |sum: u64, f| sum.saturating_add(f.size.div_ceil(SHARED_ALIGN) * SHARED_ALIGN)),
        }
    }

    /// Length of the hole, in bytes, wherever it starts.
    pub fn hole_len(self, stub_len: u64, meta_max: u64) -> u64 {
        let slack = if self.shared_len > 0 { SHARED_ALIGN } else { 0 };
        Places::new(0, stub_len, meta_max, self).end + slack
    }
}

impl From<&Tables> for Needs {
    fn from(t: &Tables) -> Self {
        Self::new(&t.tasks, &t.threads, &t.files)
    }
}

/// Length of the hole, in bytes, that an image with these tables needs.
pub fn hole_size(tables: &Tables, stub: &Stub) -> u64 {
    Needs::from(tables).hole_len(stub.len(), crate::notes::upper_bound(tables))
}

/// Stored bytes that are contiguous both in memory and in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Index in the VMA table.
    pub vma: usize,
    pub addr: u64,
    pub len: u64,
    pub file_offset: u64,
}

/// The runs of an address space, in address order, without what is compressed. `extents` are those of the
/// image.
pub fn runs(tables: &Tables, mm: &Mm, extents: &[Extent]) -> Vec<Run> {
    let mut out: Vec<Run> = Vec::new();
    for index in mm.vmas.indices() {
        let vma = &tables.vmas[index];
        let mut own: Vec<&Extent> =
            extents[vma.dirty.indices()].iter().chain(&extents[vma.embedded.indices()]).collect();
        own.retain(|e| !e.is_compressed());
        own.sort_unstable_by_key(|e| e.addr);
        for e in own {
            match out.last_mut() {
                Some(last)
                    if last.vma == index
                        && last.addr + last.len == e.addr
                        && last.file_offset + last.len == e.file_offset =>
                {
                    last.len += e.len;
                }
                _ => out.push(Run { vma: index, addr: e.addr, len: e.len, file_offset: e.file_offset }),
            }
        }
    }
    out
}

/// Whether the kernel may map this run by itself at exec.
fn loadable(tables: &Tables, run: &Run) -> bool {
    let vma = &tables.vmas[run.vma];
    let private =
        matches!(VmaKind::from_u32(vma.kind), Some(VmaKind::Anonymous) | Some(VmaKind::FilePrivate));
    let giant = vma.end - vma.start > GIANT && (vma.prot == 0 || vma.flags & vma_flags::NORESERVE != 0);
    private
        && !giant
        && vma.flags & vma_flags::HUGETLB == 0
        && run.addr >= LOWEST
        && run.addr + run.len <= STACK_WINDOW
        && [run.len, run.file_offset].iter().all(|n| n.is_multiple_of(PAGE_SIZE))
}

/// The largest loadable runs, `max` at most, in address order.
pub fn choose_loads(tables: &Tables, runs: &[Run], max: usize) -> Vec<Run> {
    let mut loads: Vec<Run> = runs.iter().filter(|r| loadable(tables, r)).copied().collect();
    loads.sort_unstable_by_key(|r| (std::cmp::Reverse(r.len), r.addr));
    loads.truncate(max);
    loads.sort_unstable_by_key(|r| r.addr);
    loads
}

#[cfg(test)]
mod tests {
    use super::*;
    use ckpt_format::{Range, Vma};

    /// A VMA with one stored extent for each `(page, pages, file page)`.
    fn vma(
        tables: &mut Tables,
        extents: &mut Vec<Extent>,
        start: u64,
        pages: u64,
        stored: &[(u64, u64, u64)],
    ) {
        let first = extents.len() as u32;
        for &(page, count, file) in stored {
            extents.push(Extent {
                addr: start + page * PAGE_SIZE,
                len: count * PAGE_SIZE,
                file_offset: file * PAGE_SIZE,
                ..Default::default()
            });
        }
        tables.vmas.push(Vma {
            start,
            end: start + pages * PAGE_SIZE,
            prot: 3,
            kind: VmaKind::Anonymous as u32,
            dirty: Range { first, count: stored.len() as u32 },
            ..Default::default()
        });
    }

    fn mm(tables: &Tables) -> Mm {
        Mm { vmas: Range { first: 0, count: tables.vmas.len() as u32 }, ..Default::default() }
    }

    #[test]
    fn adjacent_extents_are_one_run() {
        let (mut t, mut e) = (Tables::default(), Vec::new());
        vma(&mut t, &mut e, 0x40_0000, 8, &[(0, 2, 10), (2, 1, 12), (4, 1, 13), (5, 1, 20)]);
        vma(&mut t, &mut e, 0x40_8000, 1, &[(0, 1, 21)]);
        let found = runs(&t, &mm(&t), &e);
        let brief: Vec<_> = found.iter().map(|r| (r.vma, r.addr, r.len / PAGE_SIZE)).collect();
        assert_eq!(brief, [(0, 0x40_0000, 3), (0, 0x40_4000, 1), (0, 0x40_5000, 1), (1, 0x40_8000, 1)]);
    }

    #[test]
    fn largest_runs_are_loaded_in_address_order() {
        let (mut t, mut e) = (Tables::default(), Vec::new());
        for i in 0..100u64 {
            vma(&mut t, &mut e, 0x100_0000 + i * 0x10_0000, 100, &[(0, 1 + (i * 37) % 100, i * 200)]);
        }
        let all = runs(&t, &mm(&t), &e);
        let loads = choose_loads(&t, &all, 10);
        assert_eq!(loads.len(), 10);
        assert!(loads.is_sorted_by_key(|r| r.addr));
        assert!(loads.iter().all(|r| r.len > 90 * PAGE_SIZE));
    }

    #[test]
    fn what_the_kernel_must_not_map_is_not_loaded() {
        let (mut t, mut e) = (Tables::default(), Vec::new());
        vma(&mut t, &mut e, STACK_WINDOW - PAGE_SIZE, 2, &[(0, 2, 0)]);
        vma(&mut t, &mut e, 0x7fff_0000_0000, 1, &[(0, 1, 2)]);
        vma(&mut t, &mut e, 1 << 47, 1, &[(0, 1, 3)]);
        vma(&mut t, &mut e, 0x1000, 1, &[(0, 1, 4)]);
        vma(&mut t, &mut e, 0x10_0000_0000, GIANT / PAGE_SIZE + 1, &[(0, 1, 5)]);
        t.vmas.last_mut().unwrap().flags = vma_flags::NORESERVE;
        vma(&mut t, &mut e, 0x20_0000_0000, 1, &[(0, 1, 6)]);
        t.vmas.last_mut().unwrap().kind = VmaKind::SharedObject as u32;
        vma(&mut t, &mut e, 0x30_0000_0000, 1, &[(0, 1, 7)]);
        let all = runs(&t, &mm(&t), &e);
        let loads = choose_loads(&t, &all, 72);
        assert_eq!(loads.iter().map(|r| r.addr).collect::<Vec<_>>(), [0x30_0000_0000]);
    }

    #[test]
    fn places_do_not_overlap() {
        let mut tables = Tables { threads: vec![Default::default(); 1000], ..Tables::default() };
        let p = Places::new(0x7000_0000_0000, 100_000, 12_345, Needs::from(&tables));
        assert!(p.stub + 100_000 <= p.meta && p.meta + p.meta_max <= p.work);
        assert!(p.work + p.work_len <= p.parking && p.parking + PARKING == p.end);
        let shared =
            ckpt_format::FileIdent { flags: file_flags::SEVERAL_MMS, size: 5000, ..Default::default() };
        tables.files = vec![shared; 2];
        let q = Places::new(0x7000_0000_0000, 100_000, 12_345, Needs::from(&tables));
        assert!(q.shared >= p.end && q.shared.is_multiple_of(SHARED_ALIGN));
        assert_eq!(q.end - q.shared, 2 * SHARED_ALIGN);
        assert!([p.meta, p.work, p.parking, p.end].iter().all(|a| a.is_multiple_of(PAGE_SIZE)));
        assert!(p.work_len >= WORK_BASE + 1000 * WORK_PER_THREAD);
    }

    #[test]
    fn headers_fit_a_page() {
        assert!(64 + MAX_PHDRS * 56 <= HEADER_LEN as usize && MAX_PHDRS <= 73);
    }
}
