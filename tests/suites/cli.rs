//! The options of `ckpt-dump`, and who may dump whom.

use ckpt_tests::{Proc, Suite, T, TestResult, Who, ensure, need_root, procfs};
use nix::sys::signal::Signal;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("cli");
    suite.test("leave_stopped", leave_stopped);
    suite.test("json", json);
    suite.test("quiet_and_verbose", quiet_and_verbose);
    suite.test("help_and_version", help_and_version);
    suite.test("overwrites_an_old_image", overwrite);
    suite.test("overwrites_the_image_that_it_runs_from", overwrite_running);
    suite.test("interrupted", interrupted);
    suite.test("interrupted_with_kill", interrupted_with_kill);
    suite.test("two_dumps_at_once", two_at_once);
    for victim in ["counter", "thr_mutex", "fd_regular", "proc_attributes"] {
        suite.test(format!("root_dumps_and_restores_a_users_{victim}"), move |t| as_root(t, victim));
    }
    suite.test("no_embed_is_smaller", no_embed);
    suite.test("no_verify", |t| {
        save(t)?;
        finish(t, t.restore("saved.ckpt").arg("--no-verify").start()?)
    });
    suite.test("by_another_name", |t| {
        save(t)?;
        std::fs::rename(t.path("saved.ckpt"), t.path("a name, with spaces"))?;
        finish(t, t.restore("a name, with spaces").start()?)
    });
    suite.test("by_a_link_in_path", |t| {
        save(t)?;
        std::os::unix::fs::symlink(t.path("saved.ckpt"), t.path("link"))?;
        let path = format!("{}:/usr/bin:/bin", t.dir().display());
        finish(t, t.launch("shell", "sh").args(["-c", "exec link"]).env("PATH", path).start()?)
    });
    suite.test("without_proc", without_proc);
    suite.test("stdio_closed", |t| {
        save(t)?;
        finish(t, t.launch("shell", "sh").args(["-c", "exec ./saved.ckpt <&- >&- 2>&-"]).start()?)
    });
    suite.run()
}

fn finish(t: &T, mut proc: Proc) -> TestResult {
    t.tell("ping")?;
    t.wait_until("sign of life", || {
        proc.ensure_alive()?;
        Ok(t.path("pong").exists())
    })?;
    t.go()?;
    proc.expect_exit(0)?;
    t.expect_ok()
}

fn save(t: &T) -> TestResult {
    let mut victim = t.victim("counter").start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit().map(drop)
}

fn leave_stopped(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    t.dump(victim.pid()).arg("--leave-stopped").ok()?;
    ensure!(procfs::state(victim.pid()) == Some('T'), "it is not stopped");
    ensure!(procfs::status(victim.pid(), "TracerPid").as_deref() == Some("0"), "it is traced");
    victim.signal(Signal::SIGCONT);
    finish(t, victim)
}

fn json(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    let dumped = t.dump(victim.pid()).arg("--json").ok()?;
    let fields = ["\"pid\"", "\"threads\"", "\"image\"", "\"image_bytes\"", "\"pause_seconds\""];
    for field in fields {
        ensure!(dumped.stdout.contains(field), "no {field} in {}", dumped.stdout);
    }
    ensure!(dumped.stdout.starts_with('{') && dumped.stdout.trim_end().ends_with('}'), "{}", dumped.stdout);
    ensure!(dumped.stdout.lines().count() == 1, "more than one line: {}", dumped.stdout);
    finish(t, victim)
}

fn quiet_and_verbose(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    let quiet = t.dump(victim.pid()).arg("-q").ok()?;
    ensure!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "-q says {quiet:?}");
    let normal = t.dump(victim.pid()).ok()?;
    ensure!(normal.stdout.lines().count() == 1 && normal.stderr.is_empty(), "it says {normal:?}");
    let verbose = t.dump(victim.pid()).arg("-v").ok()?;
    ensure!(verbose.stderr.lines().count() >= 1, "-v says {verbose:?}");
    finish(t, victim)
}

fn help_and_version(t: &T) -> TestResult {
    let tool = ckpt_tests::tool("ckpt-dump")?;
    for (option, words) in [("--help", &["--kill", "--check", "--allow", "-o"][..]), ("--version", &["0."])] {
        let output = std::process::Command::new(&tool).arg(option).current_dir(t.dir()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{option}: {}", output.status);
        for word in words {
            ensure!(text.contains(word), "{option} does not mention {word}:\n{text}");
        }
    }
    Ok(())
}

fn overwrite(t: &T) -> TestResult {
    t.write("saved.ckpt", "old")?;
    save(t)?;
    finish(t, t.restore("saved.ckpt").start()?)
}

/// The running image is not changed: the new one takes its name.
fn overwrite_running(t: &T) -> TestResult {
    save(t)?;
    let mut first = t.restore("saved.ckpt").pid("ns").start()?;
    t.ping()?;
    let pid = procfs::program(first.pid());
    t.dump(pid).kill().ok()?;
    first.wait_exit()?;
    finish(t, t.restore("saved.ckpt").pid("new").start()?)
}

/// SIGTERM or SIGINT at any moment: no image, no harm.
fn interrupted(t: &T) -> TestResult {
    let mut victim = t.victim("thr_busy").start()?;
    for (round, signal) in
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().cycle().take(12).enumerate()
    {
        let mut dump = t.dump(victim.pid()).start()?;
        let start = std::time::Instant::now();
        t.wait_until("a moment", || Ok(start.elapsed().as_millis() >= 2 * round as u128))?;
        dump.signal(signal);
        let status = dump.wait_exit()?;
        match status.code() {
            Some(0) => std::fs::remove_file(t.path("saved.ckpt"))?,
            // By the signal: it came before ckpt-dump was prepared for it.
            Some(1) | None => ensure!(!t.path("saved.ckpt").exists(), "an image in spite of {signal}"),
            Some(code) => ckpt_tests::bail!("exit status {code} after {signal}: {}", dump.stderr()),
        }
        victim.ensure_alive()?;
    }
    let left: Vec<_> = std::fs::read_dir(t.dir())?.flatten().map(|e| e.file_name()).collect();
    ensure!(!left.iter().any(|n| n.to_string_lossy().contains("saved.ckpt")), "left behind: {left:?}");
    finish(t, victim)
}

/// With --kill: a complete image and no process, or no image and the process; never neither.
fn interrupted_with_kill(t: &T) -> TestResult {
    let mut victim = t.victim("thr_busy").start()?;
    for round in 0..12u128 {
        let mut dump = t.dump(victim.pid()).kill().start()?;
        let start = std::time::Instant::now();
        t.wait_until("a moment", || Ok(start.elapsed().as_millis() >= 4 * round))?;
        dump.signal(if round % 2 == 0 { Signal::SIGTERM } else { Signal::SIGINT });
        if dump.wait_exit()?.code() == Some(0) {
            victim.expect_signal(Signal::SIGKILL)?;
            victim = t.restore("saved.ckpt").pid("new").start()?;
            t.ping()?;
            t.wait_restored(&mut victim)?;
            std::fs::remove_file(t.path("saved.ckpt"))?;
        } else {
            ensure!(!t.path("saved.ckpt").exists(), "an image without success: {}", dump.stderr());
            victim.ensure_alive()?;
        }
    }
    finish(t, victim)
}

fn two_at_once(t: &T) -> TestResult {
    let victim = t.victim("thr_busy").start()?;
    for _ in 0..5 {
        let mut one = t.dump(victim.pid()).output("one.ckpt").start()?;
        let mut two = t.dump(victim.pid()).output("two.ckpt").start()?;
        let codes = [one.wait_exit()?.code(), two.wait_exit()?.code()];
        // Who comes second is told who came first.
        let fine = |code: &Option<i32>| matches!(code, Some(0 | 7));
        ensure!(codes.iter().all(fine), "exit statuses {codes:?}\n{}{}", one.stderr(), two.stderr());
        ensure!(codes.contains(&Some(0)), "none succeeded\n{}{}", one.stderr(), two.stderr());
    }
    finish(t, victim)
}

/// Root is confined here like in a container: it has no CAP_SYS_RESOURCE, perhaps.
fn as_root(t: &T, victim: &str) -> TestResult {
    need_root()?;
    Who::User.own(t.dir())?;
    let mut original = t.victim(victim).who(Who::User).start()?;
    t.dump(original.pid()).kill().ok()?;
    original.wait_exit()?;
    finish(t, t.restore("saved.ckpt").start()?)
}

fn no_embed(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    t.dump(victim.pid()).output("thick.ckpt").ok()?;
    t.dump(victim.pid()).output("thin.ckpt").arg("--no-embed").ok()?;
    let (thick, thin) = (t.image_size("thick.ckpt")?, t.image_size("thin.ckpt")?);
    ensure!(thin < thick / 2, "{thin} bytes with --no-embed, {thick} without");
    let mut restored = t.restore("thin.ckpt").pid("new").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

/// Where /proc is not mounted, the image finds itself by its name.
fn without_proc(t: &T) -> TestResult {
    need_root()?;
    save(t)?;
    let script = "mount -t tmpfs none /proc || exit 99; exec ./saved.ckpt --pid new";
    let mut shell = t.launch("shell", "unshare").args(["-m", "sh", "-c", script]).start()?;
    t.go()?;
    let status = shell.wait_exit()?;
    if status.code() == Some(99) {
        ckpt_tests::skip!("cannot mount here: {}", shell.stderr());
    }
    ensure!(status.code() == Some(0), "{status}: {}", shell.stderr());
    t.expect_ok()
}
