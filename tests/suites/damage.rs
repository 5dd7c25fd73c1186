//! Images that were truncated or changed: refused with exit status 125 and a sentence; never a crash,
//! never a program that runs on with wrong memory.

use ckpt_format::{Image, Meta, extent_flags};
use ckpt_tests::{Context, Error, Suite, T, TestResult, bail, ensure, need_root};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("damage");
    suite.test("truncated", truncated);
    suite.test("every_note", every_note);
    suite.test("page_data", page_data);
    suite.test("longer_than_it_was", longer);
    suite.test("missing_cpu_feature", missing_feature);
    suite.test("set_user_id_image", set_user_id);
    suite.run()
}

/// An image of a small victim, in memory.
struct Saved {
    bytes: Vec<u8>,
    meta: std::ops::Range<usize>,
}

fn save(t: &T) -> Result<Saved, Error> {
    let mut victim = t.victim("mem_file_private").start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit()?;
    let bytes = std::fs::read(t.path("saved.ckpt"))?;
    let note = notes(&bytes).context("the image has no PT_NOTE")?;
    Ok(Saved { bytes, meta: note })
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(bytes.get(at..at + N)?);
    Some(u64::from_le_bytes(wide))
}

/// File range of the metadata: the PT_NOTE segment that starts with our header, and the gap before it.
fn notes(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let (table, count) = (number::<8>(bytes, 32)? as usize, number::<2>(bytes, 56)? as usize);
    (0..count).map(|i| table + i * 56).find_map(|at| {
        let offset = (number::<8>(bytes, at + 8)? as usize).checked_sub(Meta::FIRST_NOTE)?;
        let len = number::<8>(bytes, at + 32)? as usize + Meta::FIRST_NOTE;
        let found = number::<4>(bytes, at)? == 4 && Meta::parse(bytes.get(offset..offset + len)?).is_ok();
        found.then_some(offset..offset + len)
    })
}

/// Writes the bytes as an image and runs it; gives status and messages.
fn run(t: &T, bytes: &[u8]) -> Result<(Option<i32>, Option<i32>, String), Error> {
    let path = t.path("damaged.ckpt");
    std::fs::write(t.path("bytes"), bytes)?;
    std::fs::set_permissions(t.path("bytes"), std::fs::Permissions::from_mode(0o700))?;
    ckpt_tests::copy(&t.path("bytes"), &path)?;
    let messages = t.path("damaged.err");
    let child = Command::new(&path)
        .args(["--pid", "new"])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&messages)?)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        // Not an executable any more.
        Err(e) => return Ok((Some(126), None, e.to_string())),
    };
    let ended = t.wait_for("the end of the damaged image", || Ok(child.try_wait()?));
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let status = ended?;
    Ok((status.code(), status.signal(), t.read("damaged.err")?))
}

fn refused(t: &T, what: &str, bytes: &[u8]) -> Result<String, Error> {
    let (code, signal, text) = run(t, bytes)?;
    if code != Some(125) || !text.starts_with("ckpt: ") {
        bail!("{what}: exit status {code:?}, signal {signal:?}, message {text:?}");
    }
    ensure!(!t.path("result").exists(), "{what}: the program ran");
    Ok(text)
}

fn truncated(t: &T) -> TestResult {
    let saved = save(t)?;
    t.go()?;
    let len = saved.bytes.len();
    let mut lengths: Vec<usize> = (0..40).map(|i| len * i / 40).collect();
    lengths.extend([1, 63, 64, 100, 4095, 4096, 4097, len - 1, len - 4096, saved.meta.start, saved.meta.end]);
    lengths.extend([saved.meta.start + 10, saved.meta.end - 1, saved.meta.end + 1]);
    for cut in lengths {
        let what = format!("truncated to {cut} of {len} bytes");
        // The stub and its records must be there to tell; before that it is the kernel's refusal.
        if cut >= saved.meta.end && saved.meta.start > 0 {
            let text = refused(t, &what, &saved.bytes[..cut])?;
            ensure!(text.contains("truncated"), "{what}: {text}");
        } else {
            let (code, signal, text) = run(t, &saved.bytes[..cut])?;
            ensure!(code != Some(0) && !t.path("result").exists(), "{what}: {code:?} {signal:?} {text}");
        }
    }
    Ok(())
}

fn every_note(t: &T) -> TestResult {
    let saved = save(t)?;
    t.go()?;
    let region = &saved.bytes[saved.meta.clone()];
    let meta = Meta::parse(region).map_err(|e| ckpt_tests::anyhow!("{e}"))?;
    let mut places = vec![Meta::FIRST_NOTE + 8, Meta::FIRST_NOTE + 14];
    let header = Meta::FIRST_NOTE + Meta::NOTE_HEADER;
    places.extend((0..296).step_by(7).map(|i| header + i));
    for entry in meta.directory() {
        let (start, len) = (entry.offset as usize, entry.len as usize);
        places.extend(
            [0, len / 3, len / 2, len.saturating_sub(1)].map(|i| start + i).iter().filter(|_| len > 0),
        );
    }
    for place in places {
        let mut bytes = saved.bytes.clone();
        bytes[saved.meta.start + place] ^= 0x41;
        refused(t, &format!("byte {place:#x} of the notes changed"), &bytes)?;
    }
    Ok(())
}

fn page_data(t: &T) -> TestResult {
    let saved = save(t)?;
    t.go()?;
    let region = &saved.bytes[saved.meta.clone()];
    let image = Image::parse(region).map_err(|e| ckpt_tests::anyhow!("{e}"))?;
    let mut extents: Vec<_> =
        image.extents.iter().filter(|e| e.flags & extent_flags::EMBEDDED_FILE == 0 && e.len > 0).collect();
    extents.dedup_by_key(|e| e.file_offset);
    ensure!(extents.len() > 3, "only {} extents", extents.len());
    for extent in extents.into_iter().take(40) {
        for at in [0, extent.len / 2, extent.len - 1] {
            let mut bytes = saved.bytes.clone();
            bytes[(extent.file_offset + at) as usize] ^= 1;
            refused(t, &format!("page data of {:#x} changed at {at:#x}", extent.addr), &bytes)?;
        }
    }
    Ok(())
}

/// Bytes behind the end do no harm.
fn longer(t: &T) -> TestResult {
    let mut saved = save(t)?;
    saved.bytes.extend([0x55; 5000]);
    t.go()?;
    let (code, signal, text) = run(t, &saved.bytes)?;
    ensure!(code == Some(0) || code == Some(125), "{code:?} {signal:?} {text}");
    Ok(())
}

/// An image from a CPU that has everything.
fn missing_feature(t: &T) -> TestResult {
    let mut saved = save(t)?;
    t.go()?;
    // words[4] is CPUID 7.0 edx: AMX, which few machines have.
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
    if cpuinfo.contains("amx_tile") {
        ckpt_tests::skip!("this CPU has AMX");
    }
    let header = saved.meta.start + Meta::FIRST_NOTE + Meta::NOTE_HEADER;
    let mut region = saved.bytes[saved.meta.clone()].to_vec();
    let meta = Meta::parse(&region).map_err(|e| ckpt_tests::anyhow!("{e}"))?;
    let mut changed = *meta.header();
    changed.cpu.words[4] |= 1 << 24;
    let dir_at = header - saved.meta.start + size_of_val(&changed);
    let dir = region[dir_at..dir_at + 40 * meta.directory().len()].to_vec();
    changed.checksum = Meta::header_checksum(&changed, &dir);
    region[dir_at - size_of_val(&changed)..dir_at].copy_from_slice(zerocopy::IntoBytes::as_bytes(&changed));
    saved.bytes[saved.meta.clone()].copy_from_slice(&region);
    let text = refused(t, "AMX needed", &saved.bytes)?;
    ensure!(text.contains("amx_tile") && text.contains("--ignore-cpu"), "{text}");
    let mut restored = t.restore("damaged.ckpt").arg("--ignore-cpu").start()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

/// A set-user-ID image would lend its owner's rights to whoever controls its arguments.
fn set_user_id(t: &T) -> TestResult {
    need_root()?;
    save(t)?;
    t.go()?;
    std::fs::set_permissions(t.path("saved.ckpt"), std::fs::Permissions::from_mode(0o4755))?;
    t.restore("saved.ckpt").who(ckpt_tests::Who::User).refused(&["set-user-id"])
}
