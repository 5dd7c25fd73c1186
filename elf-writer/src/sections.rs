//! Names for the stored memory, so that readelf, objdump and gdb show all of it.

use crate::elf::{PF_W, PF_X, SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHT_PROGBITS, Section};
use crate::layout::Run;
use crate::plan::Tables;
use ckpt_format::{Mm, NONE, Span, Vma, VmaKind};
use std::collections::HashSet;

/// More memory sections than this are not written (ELF's own limit for a plain `e_shnum` is 65279).
/// Every stored VMA is named by its largest run before any gets a second section.
pub const MAX_SECTIONS: usize = 20_000;

/// One section for each run, [`MAX_SECTIONS`] at most, in address order.
pub fn memory_sections(tables: &Tables, mm: &Mm, runs: &[Run]) -> Vec<Section> {
    let mut used = HashSet::new();
    select(runs, MAX_SECTIONS)
        .into_iter()
        .map(|run| {
            let vma = &tables.vmas[run.vma];
            let mut name = base_name(tables, mm, vma);
            if !used.insert(name.clone()) {
                name = format!("{name}.{:x}", run.addr);
                used.insert(name.clone());
            }
            Section {
                name,
                kind: SHT_PROGBITS,
                flags: flags(vma.prot),
                addr: run.addr,
                offset: run.file_offset,
                size: run.len,
                align: ckpt_format::PAGE_SIZE,
            }
        })
        .collect()
}

/// The largest run of each VMA, then the largest of the others, `max` at most, in address order.
fn select(runs: &[Run], max: usize) -> Vec<Run> {
    if runs.len() <= max {
        return runs.to_vec();
    }
    let mut by_size = runs.to_vec();
    by_size.sort_unstable_by_key(|r| std::cmp::Reverse(r.len));
    let mut seen = HashSet::new();
    let (mut first, rest): (Vec<Run>, Vec<Run>) = by_size.into_iter().partition(|r| seen.insert(r.vma));
    first.extend(rest);
    first.truncate(max);
    first.sort_unstable_by_key(|r| r.addr);
    first
}

/// ELF segment flags of PROT_* bits.
pub fn segment_flags(prot: u32) -> u32 {
    // PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4; PF_X 1, PF_W 2, PF_R 4.
    ((prot & 1) << 2) | (prot & 2) | ((prot & 4) >> 2)
}

fn flags(prot: u32) -> u64 {
    let pf = segment_flags(prot);
    let bit = |set: bool, flag: u64| if set { flag } else { 0 };
    SHF_ALLOC | bit(pf & PF_W != 0, SHF_WRITE) | bit(pf & PF_X != 0, SHF_EXECINSTR)
}

fn base_name(tables: &Tables, mm: &Mm, vma: &Vma) -> String {
    let text = |span: Span| {
        let start = span.offset as usize;
        let bytes = tables.blobs.get(start..start.saturating_add(span.len as usize)).unwrap_or(&[]);
        String::from_utf8_lossy(bytes).replace(|c: char| c.is_control() || c.is_whitespace(), "_")
    };
    let within = |addr: u64| addr != 0 && (vma.start..vma.end).contains(&addr);
    if vma.kind == VmaKind::Anonymous as u32 {
        if within(mm.start_stack) {
            return ".mem.stack".into();
        }
        if mm.start_brk < mm.brk && vma.start < mm.brk && mm.start_brk < vma.end {
            return ".mem.heap".into();
        }
        let name = text(vma.name);
        return match name.as_str() {
            "" => format!(".mem.anon.{:x}", vma.start),
            name => format!(".mem.{name}"),
        };
    }
    let path = (vma.file != NONE).then(|| tables.files.get(vma.file as usize)).flatten();
    let path = path.map(|f| text(f.path)).unwrap_or_default();
    let file = path.rsplit('/').next().unwrap_or_default();
    let part = match vma.prot {
        p if p & 4 != 0 => "text",
        p if p & 2 != 0 => "data",
        _ => "rodata",
    };
    format!(".mem.{file}.{part}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ckpt_format::FileIdent;

    fn run(vma: usize, addr: u64, len: u64) -> Run {
        Run { vma, addr, len, file_offset: addr }
    }

    #[test]
    fn names_are_readable_and_unique() {
        let blobs = b"/lib/libc.so.6".to_vec();
        let file = FileIdent { path: Span { offset: 0, len: blobs.len() as u64 }, ..Default::default() };
        let code = Vma { start: 0x1000, end: 0x5000, prot: 5, kind: 2, ..Default::default() };
        let heap = Vma { start: 0x9000, end: 0xf000, prot: 3, kind: 1, file: NONE, ..Default::default() };
        let stack = Vma { start: 0x20000, end: 0x30000, ..heap };
        let t = Tables { vmas: vec![code, heap, stack], files: vec![file], blobs, ..Default::default() };
        let mm = Mm { start_brk: 0x9000, brk: 0xe800, start_stack: 0x2f000, ..Default::default() };
        let runs =
            [run(0, 0x1000, 0x1000), run(0, 0x3000, 0x1000), run(1, 0x9000, 0x1000), run(2, 0x2f000, 0x1000)];
        let s = memory_sections(&t, &mm, &runs);
        let names: Vec<_> = s.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, [".mem.libc.so.6.text", ".mem.libc.so.6.text.3000", ".mem.heap", ".mem.stack"]);
        assert_eq!(s[0].flags, SHF_ALLOC | SHF_EXECINSTR);
    }

    #[test]
    fn every_vma_is_named_before_second_runs() {
        let runs: Vec<Run> =
            (0..30).map(|i| run(i % 10, i as u64 * 0x10000, 0x1000 * (1 + i as u64))).collect();
        let chosen = select(&runs, 12);
        let vmas: HashSet<_> = chosen.iter().map(|r| r.vma).collect();
        assert_eq!((chosen.len(), vmas.len()), (12, 10));
        assert!(chosen.is_sorted_by_key(|r| r.addr));
    }
}
