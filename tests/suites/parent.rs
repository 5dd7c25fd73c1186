//! `--parent`: what is equal to an earlier image is shared with it, and what comes back is exact.

use ckpt_tests::{Context, Error, Mounted, Proc, Suite, T, TestResult, ensure, skip};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("parent");
    suite.test("xfs", |t| shares(t, "mkfs.xfs", &["--dedup"]));
    suite.test("xfs::snapshot", |t| shares(t, "mkfs.xfs", &["--snapshot"]));
    suite.test("btrfs", |t| shares(t, "mkfs.btrfs", &[]));
    suite.test("replaces_its_parent", replaces);
    suite.test("damaged_parent", damaged);
    suite.test("without_shared_blocks", without);
    suite.test("compressed", |t| compressed(t, &[], &["--compress"]));
    suite.test("compressed_parent", |t| compressed(t, &["--compress"], &[]));
    suite.test("not_an_image", not_an_image);
    suite.run()
}

/// The victim after its first dump, and after its changes.
fn changed(t: &T, first: PathBuf) -> Result<Proc, Error> {
    let victim = t.victim("mem_later").start()?;
    t.dump(victim.pid()).output(first).ok()?;
    t.tell("change")?;
    t.wait_file("changed")?;
    Ok(victim)
}

fn dump_again(
    t: &T,
    mut victim: Proc,
    parent: PathBuf,
    to: PathBuf,
    more: &[&str],
) -> Result<(u64, u64), Error> {
    let dump = t.dump(victim.pid()).kill().args(["--json", "--parent"]).arg(parent).args(more);
    let told = dump.output(to).ok()?;
    victim.wait_exit()?;
    let json: serde_json::Value = serde_json::from_str(&told.stdout)?;
    let number = |name: &str| json[name].as_u64().with_context(|| format!("no {name} in {json}"));
    Ok((number("inherited_bytes")?, number("stored_bytes")?))
}

fn shares(t: &T, mkfs: &str, more: &[&str]) -> TestResult {
    let mounted = Mounted::new(t, mkfs)?;
    let (old, new) = (mounted.path().join("old.ckpt"), mounted.path().join("new.ckpt"));
    let victim = changed(t, old.clone())?;
    let (inherited, stored) = dump_again(t, victim, old.clone(), new, more)?;
    // Of five parts of 8 MiB less than two were changed or have moved; two are new.
    ensure!((20 << 20..stored).contains(&inherited), "{inherited} of {stored} bytes were shared");
    ensure!(stored > 48 << 20, "stored: {stored}");
    // It needs nothing of the old one.
    std::fs::write(&old, "")?;
    std::fs::remove_file(&old)?;
    t.expect_good("mnt/new.ckpt")
}

fn replaces(t: &T) -> TestResult {
    let mounted = Mounted::new(t, "mkfs.xfs")?;
    let image = mounted.path().join("same.ckpt");
    let victim = changed(t, image.clone())?;
    let (inherited, _) = dump_again(t, victim, image.clone(), image, &[])?;
    ensure!(inherited > 20 << 20, "{inherited} bytes were shared");
    t.expect_good("mnt/same.ckpt")
}

/// Damaged contents are not equal to anything, whatever their checksum says.
fn damaged(t: &T) -> TestResult {
    let mounted = Mounted::new(t, "mkfs.xfs")?;
    let (old, new) = (mounted.path().join("old.ckpt"), mounted.path().join("new.ckpt"));
    let victim = changed(t, old.clone())?;
    let file = std::fs::File::options().read(true).write(true).open(&old)?;
    let len = file.metadata()?.len();
    // Contents are between the stub and the metadata.
    for at in (len / 4..len / 4 * 3).step_by(1 << 20) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 1], at)?;
    }
    drop(file);
    let (inherited, _) = dump_again(t, victim, old, new, &[])?;
    ensure!(inherited > 8 << 20, "{inherited} bytes were shared");
    t.expect_good("mnt/new.ckpt")
}

/// Where blocks cannot be shared, the image is written in full, and that is said.
fn without(t: &T) -> TestResult {
    let mut victim = changed(t, t.path("old.ckpt"))?;
    let dump = t.dump(victim.pid()).kill().args(["--json", "--parent"]).arg(t.path("old.ckpt"));
    let dumped = dump.output("new.ckpt").ok()?;
    victim.wait_exit()?;
    let json: serde_json::Value = serde_json::from_str(&dumped.stdout)?;
    if !json["inherited_bytes"].is_null() {
        skip!("the directory of the tests can share blocks");
    }
    ensure!(dumped.stderr.contains("written in full"), "{}", dumped.stderr);
    t.expect_good("new.ckpt")
}

/// Nothing is compared with blocks that are compressed: the image is written in full, and that is said.
fn compressed(t: &T, old: &[&str], new: &[&str]) -> TestResult {
    let mut victim = t.victim("mem_later").start()?;
    t.dump(victim.pid()).args(old).output("old.ckpt").ok()?;
    t.tell("change")?;
    t.wait_file("changed")?;
    let dump = t.dump(victim.pid()).kill().arg("--parent").arg(t.path("old.ckpt")).args(new);
    let dumped = dump.output("new.ckpt").ok()?;
    victim.wait_exit()?;
    ensure!(dumped.stderr.contains("written in full"), "{}", dumped.stderr);
    t.expect_good("new.ckpt")
}

fn not_an_image(t: &T) -> TestResult {
    let mut victim = t.victim("mem_later").start()?;
    let other = t.write("text", "not an image\n")?;
    let parent = |path: PathBuf| t.dump(victim.pid()).arg("--parent").arg(path);
    parent(other).refused(1, &["--parent", "not a ckpt image"])?;
    parent(t.path("missing")).refused(1, &["--parent", "missing"])?;
    t.tell("change")?;
    t.wait_file("changed")?;
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}
