//! Dumps of a long job: `--every`, `--on-signal`, `--keep`.

use ckpt_tests::{Context, Proc, Suite, T, TestResult, Who, ensure};
use nix::sys::signal::Signal;
use std::path::Path;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("periodic");
    for who in [Who::Me, Who::User] {
        let name = |test: &str| if who == Who::User { format!("{test}::user") } else { test.to_owned() };
        suite.test_as(who, name("every"), every);
        suite.test_as(who, name("on_signal"), on_signal);
        suite.test_as(who, name("on_signal_kill"), on_signal_kill);
    }
    suite.test("every_and_on_signal", both);
    suite.test("tried_again", tried_again);
    suite.test("first_one_refused", first_refused);
    suite.test("told_to_end", told_to_end);
    suite.test("ended_before_any", ended_before_any);
    suite.test("keep", keep);
    suite.test("usage", usage);
    suite.run()
}

fn number(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(path.metadata().ok()?.ino())
}

/// A dumper that waits for signals.
fn waiting(t: &T, pid: i32, args: &[&str]) -> anyhow::Result<Proc> {
    let dumper = t.dump(pid).args(args).start()?;
    t.wait_until("the dumper waits", || Ok(dumper.stderr().contains("waiting for a signal")))?;
    Ok(dumper)
}

fn end(t: &T, mut victim: Proc) -> TestResult {
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}

/// The images there are, without the newest.
fn older(t: &T) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(t.dir()).context("the test's directory")?;
    let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|n| n.contains("saved.ckpt.")).collect();
    names.sort();
    Ok(names)
}

fn every(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    let mut dumper = t.dump(victim.pid()).args(["--every", "1s", "--keep", "3"]).start()?;
    t.wait_until("three images and a fourth", || {
        Ok(dumper.stdout().lines().filter(|l| l.contains("saved.ckpt")).count() >= 4)
    })?;
    end(t, victim)?;
    dumper.expect_exit(0)?;
    ensure!(dumper.stderr().contains("has ended"), "{}", dumper.stderr());
    ensure!(older(t)? == ["saved.ckpt.1", "saved.ckpt.2"], "{:?}", older(t)?);
    for image in ["saved.ckpt", "saved.ckpt.1", "saved.ckpt.2"] {
        std::fs::remove_file(t.path("result"))?;
        t.restore(image).start()?.expect_exit(0)?;
        t.expect_ok()?;
    }
    Ok(())
}

fn on_signal(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    let mut dumper = waiting(t, victim.pid(), &["--on-signal", "USR1", "--on-signal", "sigterm"])?;
    ensure!(!t.path("saved.ckpt").exists(), "nobody has asked yet");
    for signal in [Signal::SIGUSR1, Signal::SIGTERM] {
        let before = number(&t.path("saved.ckpt"));
        dumper.signal(signal);
        t.wait_until("another image", || Ok(number(&t.path("saved.ckpt")) != before))?;
    }
    dumper.ensure_alive()?;
    dumper.signal(Signal::SIGINT);
    dumper.expect_exit(0)?;
    end(t, victim)?;
    std::fs::remove_file(t.path("result"))?;
    t.restore("saved.ckpt").start()?.expect_exit(0)?;
    t.expect_ok()
}

fn on_signal_kill(t: &T) -> TestResult {
    let mut victim = t.victim("counter").start()?;
    let mut dumper = waiting(t, victim.pid(), &["--on-signal", "TERM", "--kill"])?;
    dumper.signal(Signal::SIGTERM);
    dumper.expect_exit(0)?;
    victim.expect_signal(Signal::SIGKILL)?;
    ensure!(dumper.stdout().contains("killed"), "{}", dumper.stdout());
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

/// The last of the periodic ones is asked for, and kills.
fn both(t: &T) -> TestResult {
    let mut victim = t.victim("counter").start()?;
    let args = ["--every", "1h", "--on-signal", "10", "--kill"];
    let mut dumper = t.dump(victim.pid()).args(args).start()?;
    t.wait_until("the first image", || Ok(dumper.stdout().contains("running")))?;
    victim.ensure_alive()?;
    dumper.signal(Signal::SIGUSR1);
    dumper.expect_exit(0)?;
    victim.expect_signal(Signal::SIGKILL)
}

fn tried_again(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    std::fs::create_dir(t.path("sub"))?;
    let dumper = t.dump(victim.pid()).output("sub/saved.ckpt").args(["--every", "1s"]);
    let mut dumper = dumper.start()?;
    let dumps = |dumper: &Proc| dumper.stdout().lines().count();
    t.wait_until("the first image", || Ok(dumps(&dumper) > 0))?;
    std::fs::rename(t.path("sub"), t.path("away"))?;
    t.wait_until("a failed dump", || Ok(dumper.stderr().contains("cannot write")))?;
    let before = dumps(&dumper);
    std::fs::rename(t.path("away"), t.path("sub"))?;
    t.wait_until("another image", || Ok(dumps(&dumper) > before))?;
    end(t, victim)?;
    dumper.expect_exit(0)
}

fn first_refused(t: &T) -> TestResult {
    let mut victim = t.victim("odd").arg("userfaultfd").start()?;
    t.dump(victim.pid()).args(["--every", "1s", "--keep", "2"]).refused(5, &["userfaultfd"])?;
    victim.ensure_alive()
}

fn told_to_end(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    let mut dumper = waiting(t, victim.pid(), &["--on-signal", "USR2"])?;
    dumper.signal(Signal::SIGTERM);
    dumper.expect_exit(1)?;
    ensure!(!t.path("saved.ckpt").exists(), "nobody has asked for an image");
    end(t, victim)
}

fn ended_before_any(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    let mut dumper = waiting(t, victim.pid(), &["--on-signal", "USR1"])?;
    end(t, victim)?;
    dumper.expect_exit(3)?;
    ensure!(!t.path("saved.ckpt").exists(), "an image of what?");
    Ok(())
}

/// Also of single dumps, and whoever reads the old one goes on to do so.
fn keep(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    let mut numbers = Vec::new();
    for _ in 0..4 {
        t.dump(victim.pid()).args(["--keep", "3"]).ok()?;
        numbers.insert(0, number(&t.path("saved.ckpt")));
    }
    let now = ["saved.ckpt", "saved.ckpt.1", "saved.ckpt.2"].map(|name| number(&t.path(name)));
    ensure!(now[..] == numbers[..3], "{now:?} {numbers:?}");
    ensure!(older(t)?.len() == 2, "{:?}", older(t)?);
    end(t, victim)
}

fn usage(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    for (args, word) in [
        (&["--every", "soon"][..], "10m"),
        (&["--every", "1ms"], "1s"),
        (&["--every", "1h", "--kill"], "--on-signal"),
        (&["--on-signal", "KILL"], "waited for"),
        (&["--on-signal", "SIGNOTHING"], "not a signal"),
        (&["--every", "1h", "--check"], "cannot be used with"),
        (&["--keep", "0"], "0 is not in"),
    ] {
        let dumped = t.dump(victim.pid()).args(args).run()?;
        ensure!(dumped.code == Some(2) && dumped.stderr.contains(word), "{args:?}: {dumped:?}");
    }
    end(t, victim)
}
