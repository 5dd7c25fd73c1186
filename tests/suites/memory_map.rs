//! `--memory map`: memory stays mapped from the image, and is itself again when it is dumped again.

use ckpt_tests::{Scenarios, Suite, T, TestResult, Who, ensure, procfs};

fn map() -> Scenarios {
    Scenarios { restore_args: vec!["--memory", "map"], ..Scenarios::default() }
}

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("memory_map");
    suite.victim("mem_map", map().all_pids());
    for victim in ["mem_fork", "cpu_gpr", "thr_many", "thr_mutex", "sig_actions"] {
        suite.victim(victim, map());
    }
    let tree = || Scenarios { restore_args: vec!["--memory", "map"], ..Scenarios::tree() };
    suite.victim("tree_family", tree());
    suite.victim("tree_cow", tree());
    if std::env::var_os("CKPT_TEST_PLAIN").is_some() {
        return suite.run();
    }
    // They see the image in their maps; nothing of it is left by a second dump.
    for victim in [
        "mem_anon",
        "mem_zeros",
        "mem_stack",
        "mem_brk",
        "mem_flags",
        "mem_guard",
        "mem_prot",
        "mem_thp",
        "mem_many",
        "mem_awkward",
    ] {
        suite.again_only(victim, map());
    }
    for who in [Who::Me, Who::User] {
        let suffix = if who == Who::User { "::user" } else { "" };
        suite.test_as(who, format!("image_deleted{suffix}"), deleted);
        let modes: &[&str] =
            if who == Who::Me { &["auto", "new", "ns", "same"] } else { &["auto", "new", "ns"] };
        for &mode in modes {
            suite.test_as(who, format!("is_mapped::{mode}{suffix}"), move |t| is_mapped(t, mode));
        }
    }
    suite.test("unknown_mode", |t| {
        let mut victim = t.victim("counter").start()?;
        t.dump(victim.pid()).kill().ok()?;
        victim.wait_exit()?;
        t.restore("saved.ckpt").args(["--memory", "none"]).refused(&["--memory", "none", "eager"])
    });
    suite.test("compressed", |t| {
        let mut victim = t.victim("counter").start()?;
        t.dump(victim.pid()).args(["--compress"]).kill().ok()?;
        victim.wait_exit()?;
        t.restore("saved.ckpt").args(["--memory", "map"]).refused(&["--memory map", "compress", "eager"])
    });
    suite.run()
}

/// The victim insists on it.
fn is_mapped(t: &T, mode: &str) -> TestResult {
    let mut victim = t.victim("mem_map").args(["map"]).start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit()?;
    let mut restored = t.restore("saved.ckpt").args(["--memory", "map"]).pid(mode).start()?;
    t.go()?;
    let ended = restored.expect_exit(0);
    t.expect_ok().and(ended)
}

/// The image may be deleted while a program runs on it, which can be dumped all the same.
fn deleted(t: &T) -> TestResult {
    let mut victim = t.victim("mem_map").start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit()?;
    let mut first = t.restore("saved.ckpt").args(["--memory", "map"]).pid("new").start()?;
    t.wait_restored(&mut first)?;
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", first.pid()))?;
    ensure!(maps.contains("saved.ckpt"), "nothing is mapped:\n{maps}");
    std::fs::remove_file(t.path("saved.ckpt"))?;
    t.dump(first.pid()).output("second.ckpt").kill().ok()?;
    first.wait_exit()?;
    t.wait_gone(&procfs::descendants(first.pid()))?;
    let mut second = t.restore("second.ckpt").pid("new").start()?;
    t.go()?;
    let ended = second.expect_exit(0);
    t.expect_ok().and(ended)
}
