//! Process trees: who is whose child, what has ended, is stopped, leads or has left a group, and what
//! waits for whom.

use ckpt_tests::{Proc, Scenarios, Suite, T, TestResult, ensure, procfs};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("tree");
    let tree = Scenarios::tree;
    suite.victim("tree_family", tree());
    suite.victim_named("tree_deep_50", "tree_deep", tree().args(&["50"]));
    suite.victim_named("tree_wide_100", "tree_deep", tree().args(&["100", "wide"]));
    suite.victim("tree_zombies", tree());
    suite.victim("tree_stopped", tree());
    suite.victim("tree_subreaper", tree());
    suite.victim("tree_sessions", tree());
    suite.victim("tree_sigchld", tree());
    suite.victim("tree_signals", tree());
    suite.victim("tree_pdeathsig", tree());
    suite.victim("tree_exit_signal", tree());
    // An ordinary user's namespace has one user.
    suite.victim("tree_creds", Scenarios { user: false, pids: vec![], twice: false, ..tree() });
    // The dump waits until the child has left vfork(2).
    suite.victim("tree_vfork", tree());
    if std::env::var_os("CKPT_TEST_PLAIN").is_none() {
        suite.test("tree_cow::size", cow);
        suite.test("fork_storm::unharmed", storm_unharmed);
        for mode in ["same", "ns"] {
            suite.test(format!("fork_storm::{mode}"), move |t| storm(t, mode));
        }
        suite.test_as(ckpt_tests::Who::User, "fork_storm::user", |t| storm(t, "auto"));
    } else {
        suite.victim("tree_cow", tree());
        suite.victim_named("fork_storm", "fork_storm", tree().args(STORM));
    }
    suite.run()
}

/// Workers and tokens.
const STORM: &[&str] = &["8", "12"];

/// Pages that parent and children share are stored once.
fn cow(t: &T) -> TestResult {
    let mut original = t.victim("tree_cow").start()?;
    let all = procfs::descendants(original.pid());
    t.dump(original.pid()).kill().ok()?;
    original.wait_exit()?;
    t.wait_gone(&all)?;
    let size = t.image_size("saved.ckpt")?;
    ensure!(size < 80 << 20, "64 MiB in five processes became {} MiB", size >> 20);
    let mut restored = t.restore("saved.ckpt").start()?;
    go(t, &mut restored)
}

fn go(t: &T, proc: &mut Proc) -> TestResult {
    t.tell("ping")?;
    t.wait_until("sign of life", || {
        proc.ensure_alive()?;
        Ok(t.path("pong").exists())
    })?;
    std::fs::remove_file(t.path("pong"))?;
    t.go()?;
    proc.expect_exit(0)?;
    t.expect_ok()
}

/// Dumped again and again in full flight.
fn storm_unharmed(t: &T) -> TestResult {
    let mut victim = t.victim("fork_storm").args(STORM).start()?;
    for _ in 0..8 {
        t.dump(victim.pid()).ok()?;
        victim.ensure_alive()?;
    }
    go(t, &mut victim)
}

/// Each generation is dumped and killed, and its image becomes the next.
fn storm(t: &T, mode: &str) -> TestResult {
    let mut victim = t.victim("fork_storm").args(STORM).start()?;
    let mut pid = victim.pid();
    for _ in 0..3 {
        t.dump(pid).kill().ok()?;
        victim.wait_exit()?;
        // Zombies have ids, too, until init has seen to them.
        t.wait_group_gone(victim.pid())?;
        victim = t.restore("saved.ckpt").pid(mode).start()?;
        t.tell("ping")?;
        t.wait_until("sign of life", || {
            victim.ensure_alive()?;
            Ok(t.path("pong").exists())
        })?;
        std::fs::remove_file(t.path("pong"))?;
        t.wait_untraced(&victim)?;
        pid = procfs::program(victim.pid());
    }
    go(t, &mut victim)
}
