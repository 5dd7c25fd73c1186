use super::*;
use crate::plan::Source;
use ckpt_format::{Range, Vma};
use std::os::unix::fs::FileExt;

fn room() -> Room {
    Room::new(0).unwrap()
}

struct Bytes;

impl ContentSource for Bytes {
    fn read(&mut self, source: &Source, skip: u64, buf: &mut [u8]) -> io::Result<()> {
        match source {
            Source::Bytes(b) => buf.copy_from_slice(&b[skip as usize..skip as usize + buf.len()]),
            Source::Memory { addr, .. } => {
                for (i, b) in buf.iter_mut().enumerate() {
                    *b = memory(addr + skip + i as u64);
                }
            }
            Source::File { .. } => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(())
    }
}

/// Every third page is zero.
fn memory(addr: u64) -> u8 {
    if (addr / PAGE_SIZE).is_multiple_of(3) { 0 } else { (addr / 7 + addr / PAGE_SIZE) as u8 | 1 }
}

fn plan() -> Plan {
    let mut plan = Plan::default();
    let mut add = |addr, len, flags, source| {
        plan.tables.extents.push(Extent { addr, len, flags, ..Default::default() });
        plan.sources.push(source);
    };
    // A pipe's data; a VMA of 1 MiB whose second page is embedded and the others are dirty.
    add(0, 5, 0, Source::Bytes(b"hello".to_vec()));
    add(0x10_0000, 0x1000, DROP_ZERO, Source::Memory { pid: 1, addr: 0x10_0000 });
    add(0x10_2000, 0xfe000, DROP_ZERO, Source::Memory { pid: 1, addr: 0x10_2000 });
    add(0x10_1000, 0x1000, 1, Source::Memory { pid: 1, addr: 0x10_1000 });
    plan.tables.vmas.push(Vma {
        start: 0x10_0000,
        end: 0x20_0000,
        dirty: Range { first: 1, count: 2 },
        embedded: Range { first: 3, count: 1 },
        ..Default::default()
    });
    plan
}

#[test]
fn contents_arrive_in_address_order_without_zeros() {
    let file = tempfile::tempfile().unwrap();
    let plan = plan();
    let mut seen = 0;
    let mut progress = |n| {
        seen = n;
        ControlFlow::Continue(())
    };
    let out = stream(&plan, &mut Bytes, &file, Path::new("x"), 0x2000, &mut room(), &mut progress).unwrap();
    assert_eq!(seen, 5 + 0x10_0000);
    assert_eq!(out.first.len(), 5);
    let mut stored = 0;
    for e in &out.extents[out.first[1] as usize..] {
        let mut bytes = vec![0; e.len as usize];
        file.read_exact_at(&mut bytes, e.file_offset).unwrap();
        assert_eq!(checksum(&bytes), e.checksum);
        assert!(bytes.iter().enumerate().all(|(i, &b)| b == memory(e.addr + i as u64)));
        assert!(e.file_offset.is_multiple_of(PAGE_SIZE) && e.len <= CHUNK as u64);
        stored += e.len;
    }
    let zero_pages = (0x100..0x200u64).filter(|p| p.is_multiple_of(3)).count() as u64;
    assert_eq!(stored, 0x10_0000 - zero_pages * PAGE_SIZE);
    // File order is address order, embedded page included; the pipe's bytes come last.
    let mut by_offset = out.extents.clone();
    by_offset.sort_by_key(|e| e.file_offset);
    assert!(by_offset[..by_offset.len() - 1].is_sorted_by_key(|e| e.addr));
    assert_eq!(by_offset.last().unwrap().len, 5);
}

/// More than there are buffers for, after something that makes use of many.
#[test]
fn contents_of_any_length_arrive() {
    let mut plan = plan();
    let at = 0x100_0000;
    for (start, len, first) in [(at, 3 << 20, true), (2 * at, AT_ONCE + 0x5000, false)] {
        let index = plan.sources.len() as u32;
        plan.tables.extents.push(Extent { addr: start, len, flags: DROP_ZERO, ..Default::default() });
        plan.sources.push(Source::Memory { pid: 1, addr: start });
        let dirty = Range { first: index, count: 1 };
        plan.tables.vmas.push(Vma { start, end: start + len, dirty, ..Default::default() });
        plan.urgent.resize(plan.sources.len(), first);
    }
    let file = tempfile::tempfile().unwrap();
    let mut go = |_| ControlFlow::Continue(());
    let out = stream(&plan, &mut Bytes, &file, Path::new("x"), 0, &mut room(), &mut go).unwrap();
    let mut bytes = vec![0; CHUNK];
    for e in &out.extents {
        let bytes = &mut bytes[..e.len as usize];
        file.read_exact_at(bytes, e.file_offset).unwrap();
        assert_eq!(checksum(bytes), e.checksum);
        assert!(e.addr == 0 || bytes.iter().step_by(97).zip(0..).all(|(b, i)| *b == memory(e.addr + 97 * i)));
    }
    let pages = |from: u64, len: u64| {
        let all = from / PAGE_SIZE..(from + len) / PAGE_SIZE;
        all.filter(|p| !p.is_multiple_of(3)).count() as u64 * PAGE_SIZE
    };
    let stored: u64 = out.extents.iter().map(|e| e.len).sum();
    let zero_if_embedded = PAGE_SIZE * u64::from((0x10_1000 / PAGE_SIZE).is_multiple_of(3));
    let small = 5 + pages(0x10_0000, 0x10_0000) + zero_if_embedded;
    assert_eq!(stored, small + pages(at, 3 << 20) + pages(2 * at, AT_ONCE + 0x5000));
}

#[test]
fn what_is_urgent_is_read_first() {
    #[derive(Default)]
    struct Noting(Vec<String>);
    impl ContentSource for Noting {
        fn read(&mut self, source: &Source, skip: u64, buf: &mut [u8]) -> io::Result<()> {
            if let Source::Memory { addr, .. } = source {
                self.0.push(format!("{:#x}", addr + skip));
            }
            Bytes.read(source, skip, buf)
        }
        fn reached(&mut self, stage: Stage) -> io::Result<()> {
            self.0.push(format!("{stage:?}"));
            Ok(())
        }
    }
    let file = tempfile::tempfile().unwrap();
    let mut go = |_| ControlFlow::Continue(());
    let mut read = |urgent: Vec<bool>| {
        let mut noting = Noting::default();
        let plan = Plan { urgent, ..plan() };
        stream(&plan, &mut noting, &file, Path::new("x"), 0x2000, &mut room(), &mut go).unwrap();
        noting.0.join(" ")
    };
    assert!(read(vec![]).starts_with("Urgent 0x100000 0x101000 0x102000"));
    let some = read(vec![false, false, false, true]);
    assert!(some.starts_with("0x101000 Urgent 0x100000 0x102000") && some.ends_with(" All"), "{some}");
    let all = read(vec![true; 4]);
    assert!(all.starts_with("0x100000") && all.ends_with(" Urgent All"), "{all}");
}

#[test]
fn pages_of_a_child_that_are_its_ancestors_are_stored_once() {
    let plan = family();
    let file = tempfile::tempfile().unwrap();
    let mut go = |_| ControlFlow::Continue(());
    let out = stream(&plan, &mut Family, &file, Path::new("x"), 0, &mut room(), &mut go).unwrap();
    let length = |i: usize| -> u64 {
        out.extents[out.first[i] as usize..out.first[i + 1] as usize].iter().map(|e| e.len).sum()
    };
    assert_eq!(length(0), length(1));
    assert_eq!(out.shared, [length(1) - PAGE_SIZE, 0]);
    assert_eq!(out.end, length(0) + PAGE_SIZE);
    let expected = |pid, addr: u64| memory(addr) ^ if pid == 2 && addr == 0x10_4000 { 0xff } else { 0 };
    for (pid, i) in [(1, 0), (2, 1)] {
        for e in &out.extents[out.first[i] as usize..out.first[i + 1] as usize] {
            let mut bytes = vec![0; e.len as usize];
            file.read_exact_at(&mut bytes, e.file_offset).unwrap();
            assert_eq!(checksum(&bytes), e.checksum);
            assert!(bytes.iter().enumerate().all(|(n, &b)| b == expected(pid, e.addr + n as u64)));
        }
    }
}

/// The bytes of an extent, from the file.
fn stored(file: &File, e: &Extent) -> Vec<u8> {
    ckpt_reader::Scratch::default().contents(file, u64::MAX, e).unwrap().to_vec()
}

#[test]
fn compressed_contents_are_smaller_and_the_same() {
    let file = tempfile::tempfile().unwrap();
    let mut plan = Plan { compress: true, ..plan() };
    // Noise, which is stored as it is, between two of the small ones.
    let mut state = 1u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for (addr, len) in [(0x20_0000, 0x5_0000), (0, 100)] {
        plan.tables.extents.push(Extent { addr, len, ..Default::default() });
        plan.sources.push(Source::Bytes((0..len).map(|_| noise()).collect()));
    }
    let mut go = |_| ControlFlow::Continue(());
    let out = stream(&plan, &mut Bytes, &file, Path::new("x"), 0x2000, &mut room(), &mut go).unwrap();
    let c = out.compression.unwrap();
    assert!(c.blocks >= 4 && c.stored_bytes < c.block_bytes / 2, "{c:?}");
    assert!(out.end < 0x2000 + c.stored_bytes + 0x5_0000 + 4 * PAGE_SIZE);
    for (i, source) in plan.sources.iter().enumerate() {
        let planned = plan.tables.extents[i];
        for e in &out.extents[out.first[i] as usize..out.first[i + 1] as usize] {
            let bytes = stored(&file, e);
            let mut expected = vec![0; e.len as usize];
            Bytes.read(source, e.addr - planned.addr, &mut expected).unwrap();
            assert!(bytes == expected, "{e:?}");
            assert!(e.is_compressed() || e.file_offset.is_multiple_of(SMALL_ALIGN), "{e:?}");
        }
    }
    assert!(!out.extents.last().unwrap().is_compressed() || out.extents.last().unwrap().len == 100);
    assert!(out.extents.iter().any(|e| !e.is_compressed() && e.len >= 0x4_0000));
}

/// The child (process 2) has changed its fifth page.
struct Family;

impl ContentSource for Family {
    fn read(&mut self, source: &Source, skip: u64, buf: &mut [u8]) -> io::Result<()> {
        Bytes.read(source, skip, buf)?;
        if let Source::Memory { pid: 2, addr } = source {
            let fifth = 0x10_4000u64.checked_sub(addr + skip);
            if let Some(byte) = fifth.and_then(|at| buf.get_mut(at as usize)) {
                *byte ^= 0xff;
            }
        }
        Ok(())
    }
}

#[test]
fn pages_of_a_child_are_parts_of_its_ancestors_blocks() {
    let file = tempfile::tempfile().unwrap();
    let mut plan = Plan { compress: true, ..family() };
    // Not at the same place in its block.
    let e = Extent { addr: 0x10_8000, len: 0x7_8000, flags: DROP_ZERO, ..Default::default() };
    plan.tables.extents.push(e);
    plan.sources.push(Source::Memory { pid: 3, addr: 0x10_8000 });
    plan.ancestors.insert(3, 2);
    let mut go = |_| ControlFlow::Continue(());
    let out = stream(&plan, &mut Family, &file, Path::new("x"), 0, &mut room(), &mut go).unwrap();
    for (pid, i) in [(1, 0), (2, 1), (3, 2)] {
        let mut len = 0;
        for e in &out.extents[out.first[i] as usize..out.first[i + 1] as usize] {
            let changed = |addr: u64| if pid == 2 && addr == 0x10_4000 { 0xff } else { 0 };
            let bytes = stored(&file, e);
            assert!((e.addr..).zip(&bytes).all(|(addr, &b)| b == memory(addr) ^ changed(addr)), "{e:?}");
            len += e.len;
        }
        assert!(len > 0x4_0000);
    }
    let own: u64 = out.compression.unwrap().block_bytes;
    assert!(out.shared[0] > 0x8_0000 && own < 0x6_0000, "{:?} {own:#x}", out.shared);
}

fn family() -> Plan {
    let mut plan = Plan::default();
    for (pid, flags) in [(1, DROP_ZERO), (2, DROP_ZERO)] {
        let addr = 0x10_0000;
        plan.tables.extents.push(Extent { addr, len: 0x8_0000, flags, ..Default::default() });
        plan.sources.push(Source::Memory { pid, addr });
    }
    plan.ancestors.insert(2, 1);
    plan
}

#[test]
fn runs_of_equal_pages_are_stored_once() {
    /// Whatever the process, by page number: 0 to 99 twice, at other addresses, with one page changed.
    struct Twice;
    impl ContentSource for Twice {
        fn read(&mut self, source: &Source, skip: u64, buf: &mut [u8]) -> io::Result<()> {
            let Source::Memory { pid, addr } = source else { return Err(io::ErrorKind::NotFound.into()) };
            for (i, b) in buf.iter_mut().enumerate() {
                let at = addr + skip + i as u64 - if *pid == 2 { 0x70_0003_7000 } else { 0x10_0000 };
                let page = at / PAGE_SIZE;
                *b = (page * 31 + at % PAGE_SIZE / (page + 1)) as u8;
                if *pid == 2 && page == 60 {
                    *b ^= 1;
                }
            }
            Ok(())
        }
    }
    for compress in [false, true] {
        let mut plan = Plan { dedup: true, compress, ..Plan::default() };
        for (pid, addr) in [(1, 0x10_0000), (2, 0x70_0003_7000)] {
            plan.tables.extents.push(Extent { addr, len: 100 * PAGE_SIZE, ..Default::default() });
            plan.sources.push(Source::Memory { pid, addr });
        }
        let file = tempfile::tempfile().unwrap();
        let mut go = |_| ControlFlow::Continue(());
        let out = stream(&plan, &mut Twice, &file, Path::new("x"), 0, &mut room(), &mut go).unwrap();
        // Read in pieces of 9, 64 and 27 pages; page 60 differs; what is between 60 and 73 is too short.
        assert_eq!(out.duplicates, (51 + 27) * PAGE_SIZE, "compress: {compress}");
        assert_eq!(out.shared, [out.duplicates, 0]);
        for i in 0..2 {
            let mut next = plan.tables.extents[i].addr;
            for e in &out.extents[out.first[i] as usize..out.first[i + 1] as usize] {
                let mut expected = vec![0; e.len as usize];
                Twice.read(&plan.sources[i], e.addr - plan.tables.extents[i].addr, &mut expected).unwrap();
                assert!(stored(&file, e) == expected && e.addr == next, "{e:?}");
                next += e.len;
            }
            assert_eq!(next, plan.tables.extents[i].addr + 100 * PAGE_SIZE);
        }
    }
}

#[test]
fn bytes_of_a_file_that_several_embed_are_stored_once() {
    struct File;
    impl ContentSource for File {
        fn read(&mut self, source: &Source, skip: u64, buf: &mut [u8]) -> io::Result<()> {
            let Source::File { offset, .. } = source else { return Err(io::ErrorKind::NotFound.into()) };
            (offset + skip..).zip(buf).for_each(|(at, b)| *b = (at / 4096) as u8 | 1);
            Ok(())
        }
    }
    let mut plan = Plan::default();
    // At different addresses, and not all of it in the second.
    for (addr, offset, len) in
        [(0x10_0000, 0, 0x20_0000), (0x7f00_0001_3000, 0x1000, 0x1f_0000), (0x50_0000, 0, 0x20_0000)]
    {
        let flags = extent_flags::EMBEDDED_FILE | DROP_ZERO;
        plan.tables.extents.push(Extent { addr, len, flags, ..Default::default() });
        plan.sources.push(Source::File { key: 3, offset });
    }
    let file = tempfile::tempfile().unwrap();
    let mut go = |_| ControlFlow::Continue(());
    let out = stream(&plan, &mut File, &file, Path::new("x"), 0, &mut room(), &mut go).unwrap();
    assert_eq!((out.end, out.shared), (0x20_0000, [0, 0x3f_0000]));
}

#[test]
fn reading_errors_and_interruption_are_reported() {
    let file = tempfile::tempfile().unwrap();
    let mut plan = plan();
    let mut stop = |_| ControlFlow::Break(());
    let e = stream(&plan, &mut Bytes, &file, Path::new("x"), 0, &mut room(), &mut stop).unwrap_err();
    assert!(matches!(e, WriteError::Interrupted));
    plan.sources[2] = Source::File { key: 0, offset: 0 };
    let mut go = |_| ControlFlow::Continue(());
    let e = stream(&plan, &mut Bytes, &file, Path::new("x"), 0, &mut room(), &mut go).unwrap_err();
    assert!(matches!(e, WriteError::Content { .. }));
}

#[test]
fn writing_errors_win() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut go = |_| ControlFlow::Continue(());
    let e = stream(&plan(), &mut Bytes, &full, Path::new("/dev/full"), 0, &mut room(), &mut go).unwrap_err();
    assert!(matches!(e, WriteError::Output { ref source, .. } if source.raw_os_error() == Some(28)), "{e}");
}
