//! `--compress`: as exact as any dump, smaller, and damage is told.

use ckpt_format::{Extent, Image, Meta};
use ckpt_tests::{Context, Error, Scenarios, Suite, T, TestResult, bail, ensure, tool};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("compress");
    let packed = || Scenarios { dump_args: vec!["--compress"], ..Scenarios::default() };
    for victim in [
        "mem_anon",
        "mem_mixed",
        "mem_brk",
        "mem_file_private",
        "mem_file_shared",
        "mem_anon_shared",
        "mem_memfd",
        "mem_thp",
        "mem_hugetlb",
        "mem_zeros",
        "mem_fork",
        "mem_many",
        "mem_awkward",
        "mem_prot",
        "fd_deleted",
        "fd_pipe",
        "sysv_shm",
        "thr_mutex",
    ] {
        suite.victim(victim, packed().once());
    }
    suite.victim_named("mem_mixed_again", "mem_mixed", packed().args(&["large"]));
    let tree = || Scenarios { dump_args: vec!["--compress"], ..Scenarios::tree() };
    suite.victim("tree_cow", tree());
    suite.victim("tree_family", tree());
    suite.victim_named("tree_twice_compressed", "tree_twice", tree());
    let once = |args: &[&'static str]| Scenarios { dump_args: args.to_vec(), ..Scenarios::tree() };
    suite.victim("tree_twice", once(&["--dedup"]));
    suite.victim_named("tree_twice_snapshot", "tree_twice", once(&["--dedup", "--snapshot"]).once());
    suite.victim_named(
        "mem_mixed_dedup",
        "mem_mixed",
        Scenarios { dump_args: vec!["--dedup"], ..Scenarios::default() },
    );
    let snapshot = || Scenarios { dump_args: vec!["--compress", "--snapshot"], ..Scenarios::default() };
    suite.victim_named("mem_mixed_snapshot", "mem_mixed", snapshot().once());
    if std::env::var_os("CKPT_TEST_PLAIN").is_some() {
        return suite.run();
    }
    suite.test("smaller", smaller);
    suite.test("shared_pages_once", shared_pages);
    suite.test("equal_pages_once", equal_pages);
    suite.test("damaged", damaged);
    suite.test("contradictions", contradictions);
    suite.run()
}

/// The metadata of an image: its place, and the extents.
fn extents(bytes: &[u8]) -> Result<(std::ops::Range<usize>, Vec<Extent>), Error> {
    let number = |at: usize, len: usize| {
        let mut wide = [0; 8];
        wide[..len].copy_from_slice(&bytes[at..at + len]);
        u64::from_le_bytes(wide) as usize
    };
    let (table, count) = (number(32, 8), number(56, 2));
    let note = (0..count).map(|i| table + i * 56).find(|at| number(*at, 4) == 4).context("no PT_NOTE")?;
    let start = number(note + 8, 8) - Meta::FIRST_NOTE;
    let range = start..start + number(note + 32, 8) + Meta::FIRST_NOTE;
    let image = Image::parse(&bytes[range.clone()]).map_err(|e| ckpt_tests::anyhow!("{e}"))?;
    Ok((range, image.extents.to_vec()))
}

/// The same victim with and without; what the tools tell agrees with the file.
fn smaller(t: &T) -> TestResult {
    let mut victim = t.victim("mem_mixed").args(["large"]).start()?;
    t.dump(victim.pid()).output("plain.ckpt").ok()?;
    let told = t.dump(victim.pid()).args(["--compress", "--json"]).kill().ok()?;
    victim.wait_exit()?;
    let (plain, packed) = (std::fs::read(t.path("plain.ckpt"))?, std::fs::read(t.path("saved.ckpt"))?);
    ensure!(
        packed.len() < plain.len() * 3 / 4,
        "{} bytes, without compression {}",
        packed.len(),
        plain.len()
    );
    let (_, found) = extents(&packed)?;
    ensure!(found.iter().any(Extent::is_compressed), "nothing is compressed");
    // Noise is stored as it is.
    ensure!(found.iter().any(|e| !e.is_compressed() && e.len >= 1 << 18), "everything is compressed");
    let json: serde_json::Value = serde_json::from_str(&told.stdout)?;
    let (before, after) = (json["compressible_bytes"].as_u64(), json["compressed_bytes"].as_u64());
    ensure!(after < before && after > Some(0), "{json}");
    let info = Command::new(tool("ckpt-info")?).arg(t.path("saved.ckpt")).output()?;
    let text = String::from_utf8_lossy(&info.stdout).into_owned();
    let words = format!("compressed {} bytes to {}", before.unwrap_or(0), after.unwrap_or(0));
    ensure!(text.contains(&words), "no {words:?} in:\n{text}");
    let verified = Command::new(tool("ckpt-info")?).arg("--verify").arg(t.path("saved.ckpt")).output()?;
    ensure!(verified.status.success(), "{verified:?}");
    Ok(())
}

/// Pages that processes share are in the image once, as without compression.
fn shared_pages(t: &T) -> TestResult {
    let mut victim = t.victim("tree_cow").start()?;
    let told = t.dump(victim.pid()).args(["--compress", "--json"]).kill().ok()?;
    victim.wait_exit()?;
    let json: serde_json::Value = serde_json::from_str(&told.stdout)?;
    // 64 MiB and a few pages of each.
    let stored = json["stored_bytes"].as_u64().unwrap_or(u64::MAX);
    ensure!(stored < 72 << 20, "{json}");
    Ok(())
}

/// 24 MiB, of which two thirds are there twice more or less.
fn equal_pages(t: &T) -> TestResult {
    let mut victim = t.victim("tree_twice").start()?;
    let mut told = Vec::new();
    for option in ["--verbose", "--dedup"] {
        let dumped = t.dump(victim.pid()).args([option, "--json"]).ok()?;
        let json: serde_json::Value = serde_json::from_str(&dumped.stdout)?;
        let number = |name: &str| json[name].as_u64().context("a number");
        told.push((number("stored_bytes")?, number("duplicate_bytes")?, number("image_bytes")?));
    }
    let [without, with] = told[..] else { bail!("two dumps") };
    ensure!(without.1 == 0 && without.0 > 24 << 20, "without: {without:?}");
    ensure!(
        with.1 > 8 << 20 && (with.0 + with.1).abs_diff(without.0) < 1 << 20,
        "with: {with:?}, without: {without:?}"
    );
    ensure!(with.2 + (8 << 20) < without.2, "with: {with:?}, without: {without:?}");
    let verified = Command::new(tool("ckpt-info")?).arg("--verify").arg(t.path("saved.ckpt")).output()?;
    ensure!(verified.status.success(), "{verified:?}");
    t.go()?;
    victim.expect_exit(0)
}

/// Any byte of a compressed block.
fn damaged(t: &T) -> TestResult {
    let mut victim = t.victim("mem_mixed").start()?;
    t.dump(victim.pid()).arg("--compress").kill().ok()?;
    victim.wait_exit()?;
    let good = std::fs::read(t.path("saved.ckpt"))?;
    let (_, mut found) = extents(&good)?;
    // Nobody reads what is embedded from files, as long as these are there.
    let embedded = |e: &&Extent| e.flags & ckpt_format::extent_flags::EMBEDDED_FILE != 0;
    let unread: Vec<u64> = found.iter().filter(embedded).map(|e| e.file_offset).collect();
    found.retain(|e| e.is_compressed() && !unread.contains(&e.file_offset));
    found.dedup_by_key(|e| e.file_offset);
    ensure!(!found.is_empty(), "nothing is compressed");
    let mut refused = 0;
    let step = (found.len() / 12).max(1);
    for e in found.iter().step_by(step) {
        for at in [0, e.stored_len / 3, e.stored_len / 2, e.stored_len - 1] {
            let mut bytes = good.clone();
            bytes[e.file_offset as usize + at as usize] ^= 0x55;
            // Other bytes of LZ4 may mean the same: then nothing is wrong.
            refused += usize::from(told_or_same(t, &bytes)?);
        }
    }
    ensure!(refused > 10, "only {refused} were refused");
    Ok(())
}

/// True if `ckpt-info --verify` and the image itself refuse; false if both find nothing.
fn told_or_same(t: &T, bytes: &[u8]) -> Result<bool, Error> {
    let path = t.path("damaged.ckpt");
    std::fs::write(t.path("bytes"), bytes)?;
    std::fs::set_permissions(t.path("bytes"), std::fs::Permissions::from_mode(0o700))?;
    ckpt_tests::copy(&t.path("bytes"), &path)?;
    let info = Command::new(tool("ckpt-info")?).arg("--verify").arg(&path).output()?;
    if info.status.success() {
        return Ok(false);
    }
    let text = String::from_utf8_lossy(&info.stdout).into_owned();
    ensure!(text.contains("damaged"), "{info:?}");
    t.restore("damaged.ckpt").pid("new").refused(&["the image is damaged", "contents of"])?;
    Ok(true)
}

/// Lengths that cannot be, under correct checksums of the metadata.
fn contradictions(t: &T) -> TestResult {
    let mut victim = t.victim("mem_mixed").start()?;
    t.dump(victim.pid()).arg("--compress").kill().ok()?;
    victim.wait_exit()?;
    let good = std::fs::read(t.path("saved.ckpt"))?;
    let (range, found) = extents(&good)?;
    let dirty = |e: &Extent| e.is_compressed() && e.flags & ckpt_format::extent_flags::EMBEDDED_FILE == 0;
    let index = found.iter().position(dirty).context("nothing is compressed")?;
    let e = found[index];
    for bad in [
        Extent { stored_len: 0, ..e },
        Extent { stored_len: e.block_len, ..e },
        Extent { stored_len: u32::MAX, block_len: u32::MAX, ..e },
        Extent { block_len: e.block_len + 1, ..e },
        Extent { block_len: e.block_len - 1, ..e },
        Extent { skip: u32::MAX, ..e },
        Extent { len: 1 << 40, ..e },
        Extent { file_offset: 1 << 50, ..e },
        Extent { file_offset: u64::MAX, ..e },
        Extent { addr: 0, ..e },
    ] {
        let mut bytes = good.clone();
        replace(&mut bytes[range.clone()], index, bad)?;
        let path = t.path("damaged.ckpt");
        std::fs::write(t.path("bytes"), &bytes)?;
        std::fs::set_permissions(t.path("bytes"), std::fs::Permissions::from_mode(0o700))?;
        ckpt_tests::copy(&t.path("bytes"), &path)?;
        if let Err(e) = t.restore("damaged.ckpt").pid("new").refused(&[]) {
            bail!("{bad:?}: {e}");
        }
    }
    Ok(())
}

/// Writes another extent into the table, and makes all checksums right.
fn replace(region: &mut [u8], index: usize, extent: Extent) -> TestResult {
    use zerocopy::IntoBytes;
    let copy = region.to_vec();
    let meta = Meta::parse(&copy).map_err(|e| ckpt_tests::anyhow!("{e}"))?;
    let mut dir = meta.directory().to_vec();
    let entry =
        dir.iter_mut().find(|d| d.note == ckpt_format::NoteType::Extents as u32).context("no extents")?;
    let start = entry.offset as usize;
    let at = start + index * size_of::<Extent>();
    region[at..at + size_of::<Extent>()].copy_from_slice(extent.as_bytes());
    entry.checksum = ckpt_format::checksum(&region[start..start + entry.len as usize]);
    let mut header = *meta.header();
    header.checksum = Meta::header_checksum(&header, dir.as_bytes());
    let at = Meta::FIRST_NOTE + Meta::NOTE_HEADER;
    let dir_at = at + size_of_val(&header);
    region[at..dir_at].copy_from_slice(header.as_bytes());
    region[dir_at..dir_at + dir.as_bytes().len()].copy_from_slice(dir.as_bytes());
    Ok(())
}
