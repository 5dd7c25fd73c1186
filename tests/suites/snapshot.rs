//! `--snapshot`: as exact as any dump, of one instant, and unseen by the program, whatever becomes of ckpt-dump.

use ckpt_tests::{Error, Proc, Scenarios, Suite, T, TestResult, Who, bail, ensure, procfs};
use nix::sys::signal::Signal;
use std::os::unix::fs::FileExt;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("snapshot");
    let snapshot = || Scenarios { dump_args: vec!["--snapshot"], ..Scenarios::default() };
    for victim in [
        "mem_anon",
        "mem_stack",
        "mem_brk",
        "mem_realloc",
        "mem_file_private",
        "mem_file_shared",
        "mem_anon_shared",
        "mem_memfd",
        "mem_reserve",
        "mem_thp",
        "mem_hugetlb",
        "mem_guard",
        "mem_flags",
        "mem_zeros",
        "mem_fork",
        "mem_many",
        "mem_awkward",
        "mem_prot",
        "mem_growsdown",
        "thr_many",
        "snap_unseen",
    ] {
        suite.victim(victim, snapshot().once());
    }
    suite.victim("mem_identity", snapshot().args(&["one", "two", "three four"]).once());
    suite.victim_named("snap_unseen_subreaper", "snap_unseen", snapshot().args(&["subreaper"]).once());
    suite.victim("snap_count", snapshot());
    // All calls are made one by one.
    suite.victim("thr_caught", snapshot());
    let tree = || Scenarios { dump_args: vec!["--snapshot"], ..Scenarios::tree() };
    suite.victim("tree_family", tree());
    suite.victim("snap_pair", tree());
    if std::env::var_os("CKPT_TEST_PLAIN").is_some() {
        return suite.run();
    }
    for who in [Who::Me, Who::User] {
        let suffix = if who == Who::User { "::user" } else { "" };
        suite.test_as(who, format!("goes_on_meanwhile{suffix}"), goes_on);
        suite.test_as(who, format!("unseen_meanwhile{suffix}"), |t| unseen(t, &[]));
    }
    suite.test("unseen_meanwhile::subreaper", |t| unseen(t, &["subreaper"]));
    suite.test("ends_meanwhile", ends);
    for point in ["copy-helper", "copy-born", "copy-made", "running", "mid-write", "after-write"] {
        for victim in ["thr_many", "thr_caught", "tree_family"] {
            suite.test(format!("fault::{point}::{victim}"), move |t| fault(t, point, victim, false));
            suite.test(format!("fault::{point}::{victim}::killed"), move |t| fault(t, point, victim, true));
        }
    }
    suite.test("a_subreaper_with_children_is_refused", subreaper);
    suite.run()
}

/// A word of what snap_count tells.
fn beat(t: &T, index: u64) -> Result<u64, Error> {
    let mut bytes = [0; 8];
    std::fs::File::open(t.path("beat"))?.read_exact_at(&mut bytes, index * 8)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Starts a dump with `--snapshot` that stops itself as soon as the target goes on.
fn stopped_dump(t: &T, victim: &Proc) -> Result<Proc, Error> {
    let dump = t.dump(victim.pid()).arg("--snapshot").env("CKPT_FAILPOINT", "running=stop").start()?;
    t.wait_until("the dump at its fail point", || match procfs::state(dump.pid()) {
        Some('T') => Ok(true),
        Some('Z') | None => bail!("ckpt-dump ended: {}", dump.stderr()),
        _ => Ok(false),
    })?;
    Ok(dump)
}

/// The program runs on while there is no image yet, and the image is of the instant before.
fn goes_on(t: &T) -> TestResult {
    let mut victim = t.victim("snap_count").start()?;
    let mut dump = stopped_dump(t, &victim)?;
    let then = beat(t, 0)?;
    ensure!(!t.path("saved.ckpt").exists(), "the image is there already");
    t.wait_until("the program counting on", || {
        victim.ensure_alive()?;
        Ok(beat(t, 0)? > then + 1000)
    })?;
    dump.signal(Signal::SIGCONT);
    dump.expect_exit(0)?;
    victim.signal(Signal::SIGKILL);
    victim.wait_exit()?;
    let last = beat(t, 0)?;
    std::fs::File::options().write(true).open(t.path("beat"))?.write_all_at(&[0; 8], 8)?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.wait_until("the restored program counting", || {
        restored.ensure_alive()?;
        Ok(beat(t, 1)? != 0)
    })?;
    let first = beat(t, 1)?;
    ensure!(
        first <= then + 1,
        "the image begins at {first}, the program was let go before {then}, ended at {last}"
    );
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

/// The program verifies that nothing of the copy is to be seen while it exists.
fn unseen(t: &T, args: &[&'static str]) -> TestResult {
    let mut victim = t.victim("snap_unseen").args(args.iter().copied()).start()?;
    let mut dump = stopped_dump(t, &victim)?;
    ensure!(copies(t, &[victim.pid()]).len() == 1, "there is no copy: {:?}", copies(t, &[victim.pid()]));
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()?;
    dump.signal(Signal::SIGCONT);
    dump.expect_exit(0)?;
    no_copies(t, &[])
}

/// The program ends, and its image is written all the same.
fn ends(t: &T) -> TestResult {
    let mut victim = t.victim("snap_count").start()?;
    let mut dump = stopped_dump(t, &victim)?;
    victim.signal(Signal::SIGKILL);
    victim.wait_exit()?;
    dump.signal(Signal::SIGCONT);
    dump.expect_exit(0)?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.ping()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

/// Processes that run a program of the test's directory, but these.
fn copies(t: &T, known: &[i32]) -> Vec<i32> {
    let here = |pid: &i32| {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        exe.parent() == Some(t.dir()) && !exe.ends_with("ckpt-dump")
    };
    procfs::all().into_iter().filter(|pid| !known.contains(pid)).filter(here).collect()
}

fn no_copies(t: &T, known: &[i32]) -> TestResult {
    t.wait_until("the end of the copies", || Ok(copies(t, known).is_empty()))
}

/// Nothing is left of a dump that failed or was killed; the program is unharmed.
fn fault(t: &T, point: &str, victim: &'static str, kill: bool) -> TestResult {
    let mut victim = t.victim(victim).start()?;
    let known = copies(t, &[]);
    let value = if kill { format!("{point}=kill") } else { point.to_owned() };
    let dumped = t.dump(victim.pid()).arg("--snapshot").env("CKPT_FAILPOINT", value).run()?;
    ensure!(dumped.code.is_none() == kill && dumped.code != Some(0), "{dumped:?}");
    ensure!(!t.path("saved.ckpt").exists(), "an image of a dump that failed");
    t.wait_untraced(&victim)?;
    no_copies(t, &known)?;
    t.ping()?;
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}

fn subreaper(t: &T) -> TestResult {
    let mut victim = t.victim("tree_subreaper").start()?;
    t.dump(victim.pid()).arg("--snapshot").refused(5, &["snapshot", "subreaper"])?;
    t.wait_untraced(&victim)?;
    t.ping()?;
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}
