use super::*;
use crate::collect::memory::{Pages, smaps};
use crate::plan::Options;

fn vma(line: &str, flags: &str, own: &[Span64<u64>]) -> VmaFacts {
    let text = format!("{line}\nVmFlags: {flags}\n");
    let shown = smaps::parse(text.as_bytes()).unwrap().remove(0);
    VmaFacts { shown, pages: Pages { own: own.to_vec(), ..Pages::default() }, file: None, resident: None }
}

fn file(path: &str, present: bool, size: u64) -> MappedFile {
    let stat = FileStat { size, mode: libc::S_IFREG, ..FileStat::default() };
    MappedFile {
        path: path.as_bytes().to_vec(),
        ino: 7,
        present,
        stat: Some(stat),
        handle: Some(0),
        ..MappedFile::default()
    }
}

fn build(mm: MemoryFacts, embed: bool) -> Builder {
    let mut b = Builder::new(Options { embed, ..Options::default() });
    let tasks = vec![TaskFacts { pid: 5, mm, ..TaskFacts::default() }];
    assert_eq!(plan(&mut b, &Facts { tasks, ..Facts::default() }, 0), 0);
    b
}

#[test]
fn anonymous_memory_keeps_name_flags_and_own_pages() {
    let mut v = vma(
        "10000-20000 rw-p 00000000 00:00 0   [anon:pool]",
        "rd wr mr mw me dc hg",
        &[0x11000..0x13000, 0x15000..0x16000],
    );
    v.pages.guards = vec![0x18000..0x19000];
    let b = build(MemoryFacts { vmas: vec![v], ..Default::default() }, true);
    let r = b.tables.vmas[0];
    assert_eq!((r.kind, r.prot, r.file), (VmaKind::Anonymous as u32, 3, NONE));
    assert_eq!(r.flags, vma_flags::DONTFORK | vma_flags::HUGEPAGE | vma_flags::MAYWRITE);
    assert_eq!(&b.tables.blobs[r.name.offset as usize..][..4], b"pool");
    assert_eq!((r.dirty.count, r.embedded.count), (2, 0));
    assert_eq!(b.tables.extents[0].flags, DROP_ZERO);
    assert_eq!(b.sources[1], Source::Memory { pid: 5, addr: 0x15000 });
    assert_eq!((b.tables.guards[0].start, b.tables.mms[0].guards.count), (0x18000, 1));
}

#[test]
fn what_was_not_written_to_is_marked() {
    let mut v = vma("10000-20000 rw-p 00000000 00:00 0 ", "rd wr mw", &[0x11000..0x15000, 0x18000..0x19000]);
    v.pages.unwritten = vec![0x12000..0x13000, 0x14000..0x15000, 0x18000..0x19000];
    let mut text = vma("30000-40000 rw-p 00002000 fe:00 7   /lib/x", "rd wr mr mw", &[0x31000..0x32000]);
    (text.file, text.pages.unwritten) = (Some(0), vec![0x31000..0x32000]);
    let files = vec![file("/lib/x", true, 0x7800)];
    let b = build(MemoryFacts { vmas: vec![v, text], files, earlier: Some(3), ..Default::default() }, false);
    let found: Vec<_> = b.tables.extents.iter().map(|e| (e.addr, e.len, e.flags)).collect();
    let (same, other) = (DROP_ZERO | UNCHANGED, DROP_ZERO);
    let expected = [
        (0x11000, 0x1000, other),
        (0x12000, 0x1000, same),
        (0x13000, 0x1000, other),
        (0x14000, 0x1000, same),
        (0x18000, 0x1000, same),
        (0x31000, 0x1000, 0),
    ];
    assert_eq!(found, expected);
    assert_eq!((b.earlier.get(&0), b.spaces.get(&5)), (Some(&3), Some(&0)));
}

#[test]
fn private_files_embed_what_is_not_dirty_and_before_the_end() {
    let mut v = vma("10000-20000 rw-p 00002000 fe:00 7   /lib/x", "rd wr mr mw", &[0x11000..0x12000]);
    v.file = Some(0);
    // 0x5800 bytes behind offset 0x2000: six pages.
    let mm = MemoryFacts { vmas: vec![v], files: vec![file("/lib/x", true, 0x7800)], ..Default::default() };
    let b = build(mm.clone(), true);
    let r = b.tables.vmas[0];
    assert_eq!((r.kind, r.file_offset), (VmaKind::FilePrivate as u32, 0x2000));
    let found: Vec<_> = b.tables.extents.iter().map(|e| (e.addr, e.len, e.flags)).collect();
    let flags = extent_flags::EMBEDDED_FILE | DROP_ZERO;
    // The dirty page is kept even if it is zero.
    assert_eq!(found, [(0x11000, 0x1000, 0), (0x10000, 0x1000, flags), (0x12000, 0x4000, flags)]);
    assert_eq!(b.sources[2], Source::File { key: MEMORY_FILES, offset: 0x4000 });
    assert_eq!(b.tables.files[0].flags, file_flags::MUST_BE_IDENTICAL);
    assert_eq!(build(mm, false).tables.vmas[0].embedded.count, 0);
}

#[test]
fn a_file_that_is_gone_is_embedded_even_in_thin_images() {
    let mut v = vma("10000-12000 r-xp 00000000 fe:00 7   /lib/x (deleted)", "rd ex mr mw", &[]);
    v.file = Some(0);
    let mm = MemoryFacts { vmas: vec![v], files: vec![file("/lib/x", false, 0x2000)], ..Default::default() };
    let b = build(mm, false);
    assert_eq!(b.tables.vmas[0].embedded.count, 1);
    assert_ne!(b.tables.files[0].flags & file_flags::DELETED, 0);
}

#[test]
fn a_file_that_is_gone_but_open_is_recreated_as_a_whole() {
    let mut v =
        vma("10000-12000 rw-p 00001000 00:01 7   /memfd:jit (deleted)", "rd wr mr mw", &[0x10000..0x11000]);
    v.file = Some(0);
    let mut memfd = file("/memfd:jit", false, 0x5000);
    memfd.data = Some(vec![(0, 0x2000), (0x4000, 0x1000)]);
    let b = build(MemoryFacts { vmas: vec![v], files: vec![memfd], ..Default::default() }, true);
    let (vma, file) = (b.tables.vmas[0], b.tables.files[0]);
    assert_eq!((vma.kind, vma.dirty.count, vma.embedded.count), (VmaKind::FilePrivate as u32, 1, 0));
    let kind = file_flags::MEMFD | file_flags::DELETED | file_flags::CONTENTS;
    assert_eq!((file.flags, file.size, file.contents.count), (kind, 0x5000, 2));
    assert_eq!(&b.tables.blobs[file.path.offset as usize..][..3], b"jit");
}

#[test]
fn shared_memory_is_one_object() {
    let mut a = vma("10000-12000 rw-s 00001000 00:01 7   /dev/zero (deleted)", "rd wr sh", &[]);
    let mut c = vma("30000-33000 r--s 00000000 00:01 7   /dev/zero (deleted)", "rd sh", &[]);
    (a.file, c.file) = (Some(0), Some(0));
    let mut object = file("/dev/zero", false, 0);
    (object.stat, object.handle) = (None, None);
    let mm = MemoryFacts { vmas: vec![a, c], files: vec![object], ..Default::default() };
    let b = build(mm.clone(), true);
    assert_eq!((b.tables.files.len(), b.tables.vmas[0].file, b.tables.vmas[1].file), (1, 0, 0));
    let f = b.tables.files[0];
    assert_eq!((f.size, f.flags), (0x3000, file_flags::ANON_SHARED | file_flags::CONTENTS));
    // Read where it is mapped, each byte once.
    assert_eq!(f.contents.count, 1);
    assert_eq!(b.sources[0], Source::Memory { pid: 5, addr: 0x30000 });
    // Where it can be told, only what is there.
    let mut mm = mm;
    mm.vmas[1].resident = Some(vec![0x31000..0x32000]);
    let b = build(mm, true);
    assert_eq!((b.tables.extents[0].addr, b.tables.extents[0].len), (0x1000, 0x1000));
}

#[test]
fn read_only_shared_files_are_embedded_writable_ones_not() {
    for (flags, count) in [("rd mr me ms sd", 1), ("rd mr mw me ms sh", 0)] {
        let mut v = vma("10000-12000 r--s 00000000 fe:00 7   /lib/cache", flags, &[]);
        v.file = Some(0);
        let files = vec![file("/lib/cache", true, 0x1234)];
        let b = build(MemoryFacts { vmas: vec![v], files, ..Default::default() }, true);
        assert_eq!(b.tables.vmas[0].kind, VmaKind::FileShared as u32);
        assert_eq!(b.tables.vmas[0].embedded.count, count);
        assert_eq!(b.tables.files[0].flags, 0);
    }
}

#[test]
fn what_cannot_be_saved_is_refused_by_name() {
    let cases = [
        ("1000-2000 rw-s 00000000 00:0e 7 anon_inode:[io_uring]", "rd wr", "io_uring"),
        ("1000-2000 rw-s 00000000 00:0e 7 /[aio] (deleted)", "rd wr", "io_setup"),
        ("1000-2000 rw-p 00000000 00:00 0 ", "rd wr um", "userfaultfd"),
        ("1000-2000 rw-s 00000000 00:05 7 /dev/dri/card0", "rd wr io pf", "device"),
    ];
    for (line, flags, expected) in cases {
        let b = build(MemoryFacts { vmas: vec![vma(line, flags, &[])], ..Default::default() }, true);
        assert_eq!(b.obstacles.len(), 1, "{line}");
        assert!(b.obstacles[0].what.contains(expected), "{}", b.obstacles[0].what);
    }
}

#[test]
fn gaps_are_what_is_left() {
    let taken = [0x1000..0x2000, 0x4000..0x6000];
    let taken: Vec<_> = taken.iter().collect();
    assert_eq!(gaps(0, 0x5000, &taken), [0..0x1000, 0x2000..0x4000]);
    assert_eq!(gaps(0x1000, 0x8000, &taken), [0x2000..0x4000, 0x6000..0x8000]);
    assert_eq!(gaps(0, 0, &taken), []);
}
