//! A whole image from a made-up plan: written, verified, damaged, read by readelf.

use ckpt_format::*;
use ckpt_reader::{ImageFile, ReadError, verify};
use elf_writer::stub::Stub;
use elf_writer::{ContentSource, DROP_ZERO, Plan, Source, layout, write_image};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

const HOLE: u64 = 0x7000_0000_0000;

/// Memory whose every fourth page is zero.
struct Pattern;

impl ContentSource for Pattern {
    fn read(&mut self, source: &Source, skip: u64, buf: &mut [u8]) -> io::Result<()> {
        let Source::Memory { addr, .. } = source else { return Err(io::ErrorKind::NotFound.into()) };
        for (i, b) in buf.iter_mut().enumerate() {
            let at = addr + skip + i as u64;
            *b = if (at / PAGE_SIZE).is_multiple_of(4) { 0 } else { (at as u8) | 1 };
        }
        Ok(())
    }
}

fn plan(stub: &Stub, vmas: u64) -> Plan {
    let mut plan = Plan::default();
    let t = &mut plan.tables;
    t.tasks.push(Task { pid: 100, threads: Range { first: 0, count: 1 }, ..Default::default() });
    t.blobs.extend_from_slice(&[7; 2432]);
    t.threads.push(Thread { tid: 100, xstate: Span { offset: 0, len: 2432 }, ..Default::default() });
    for i in 0..vmas {
        let start = 0x5555_0000_0000 + i * 0x10_0000;
        t.extents.push(Extent { addr: start, len: 0x8000, flags: DROP_ZERO, ..Default::default() });
        plan.sources.push(Source::Memory { pid: 100, addr: start });
        t.vmas.push(Vma {
            start,
            end: start + 0x9000,
            prot: 3,
            kind: VmaKind::Anonymous as u32,
            file: NONE,
            dirty: Range { first: i as u32, count: 1 },
            ..Default::default()
        });
    }
    t.mms.push(Mm { vmas: Range { first: 0, count: vmas as u32 }, ..Default::default() });
    plan.header.hole_addr = HOLE;
    plan.header.hole_len = layout::hole_size(&plan.tables, stub);
    plan
}

fn write(path: &Path, vmas: u64) -> elf_writer::Summary {
    let stub = Stub::built_in().unwrap();
    let mut go = |_| ControlFlow::Continue(());
    write_image(plan(&stub, vmas), &stub, &mut Pattern, path, &mut go).unwrap().commit().unwrap()
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[test]
fn image_is_complete_private_and_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("saved.ckpt");
    let summary = write(&path, 10);
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o700);
    assert_eq!((meta.len(), entries(dir.path())), (summary.image_size, 1));
    let file = File::open(&path).unwrap();
    assert_eq!(verify(file.try_clone().unwrap()).unwrap().bytes, summary.stored_bytes);
    assert_eq!(summary.stored_bytes, 10 * 6 * PAGE_SIZE);
    let image_file = ImageFile::read(file.try_clone().unwrap()).unwrap();
    let image = image_file.image().unwrap();
    for vma in image.vmas {
        let extents = Image::slice(image.extents, vma.dirty, "dirty").unwrap();
        // Pages 0 and 4 are zero.
        let found: Vec<_> = extents.iter().map(|e| (e.addr - vma.start, e.len)).collect();
        assert_eq!(found, [(0x1000, 0x3000), (0x5000, 0x3000)]);
    }
    // Replacing an image that exists.
    write(&path, 3);
    assert_eq!(entries(dir.path()), 1);
}

#[test]
fn nothing_is_left_when_it_is_not_committed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("saved.ckpt");
    let stub = Stub::built_in().unwrap();
    let mut go = |_| ControlFlow::Continue(());
    drop(write_image(plan(&stub, 2), &stub, &mut Pattern, &path, &mut go).unwrap());
    let mut stop = |_| ControlFlow::Break(());
    assert!(write_image(plan(&stub, 2), &stub, &mut Pattern, &path, &mut stop).is_err());
    assert_eq!(entries(dir.path()), 0);
    let nowhere = dir.path().join("no/such/folder/x.ckpt");
    assert!(write_image(plan(&stub, 2), &stub, &mut Pattern, &nowhere, &mut go).is_err());
}

#[test]
fn damage_and_truncation_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("saved.ckpt");
    let size = write(&path, 4).image_size;
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let image_file = ImageFile::read(file.try_clone().unwrap()).unwrap();
    let extent = *image_file.image().unwrap().extents.last().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, extent.file_offset + 5).unwrap();
    file.write_all_at(&[byte[0] ^ 4], extent.file_offset + 5).unwrap();
    assert!(
        matches!(verify(file.try_clone().unwrap()), Err(ReadError::Extent { addr, .. }) if addr == extent.addr)
    );
    for len in [size - 1, size / 2, 4096, 100, 0] {
        file.set_len(len).unwrap();
        assert!(verify(file.try_clone().unwrap()).is_err(), "{len} bytes were accepted");
    }
}

#[test]
fn a_hole_that_is_too_small_is_a_bug_of_the_plan() {
    let stub = Stub::built_in().unwrap();
    let mut plan = plan(&stub, 2);
    plan.header.hole_len -= PAGE_SIZE;
    let mut go = |_| ControlFlow::Continue(());
    let dir = tempfile::tempdir().unwrap();
    assert!(write_image(plan, &stub, &mut Pattern, &dir.path().join("x"), &mut go).is_err());
}

#[test]
fn readelf_has_no_complaints() {
    if Command::new("readelf").arg("--version").output().is_err() {
        eprintln!("skipped: no readelf here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("saved.ckpt");
    // More VMAs than program headers.
    let summary = write(&path, 300);
    assert!(summary.loads > 60 && summary.loads < 72, "{}", summary.loads);
    let out = Command::new("readelf").args(["-W", "-lSn"]).arg(&path).output().unwrap();
    let (text, err) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(err.is_empty() && !text.contains("arning"), "{err}");
    for expected in [".mem.anon.555500000000", ".note.ckpt", "CORE", "CKPT", ".ckpt.text"] {
        assert!(text.contains(expected), "no {expected} in the output");
    }
}
