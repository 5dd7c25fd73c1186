//! `--memory lazy`: the program runs while its memory is being filled, and cannot tell.

use ckpt_tests::{Proc, Scenarios, Suite, T, TestResult, Variant, Who, bail, ensure, procfs};
use nix::sys::signal::Signal;
use std::os::unix::fs::FileExt;

const LAZY: [&str; 2] = ["--memory", "lazy"];
/// How often an image is run by the tests that race with its filling.
const ROUNDS: u32 = 3;

fn lazy() -> Scenarios {
    Scenarios { restore_args: LAZY.to_vec(), ..Scenarios::default() }
}

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("memory_lazy");
    suite.victim("mem_anon", lazy().all_pids().variants(&[Variant::Dynamic, Variant::Static, Variant::Musl]));
    suite.victim("mem_map", lazy().all_pids());
    for victim in [
        "mem_stack",
        "mem_brk",
        "mem_realloc",
        "mem_file_private",
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
        "cpu_gpr",
        "cpu_rseq",
        "thr_many",
        "thr_mutex",
        "thr_pi",
        "thr_altstack",
        "thr_state",
        "sig_actions",
        "sig_pending",
        "timer_storm",
        "timer_posix",
    ] {
        suite.victim(victim, lazy().pids(&["ns"]));
    }
    suite.victim("mem_identity", lazy().args(&["one", "two", "three four"]).pids(&["ns"]));
    let tree = || Scenarios { restore_args: LAZY.to_vec(), ..Scenarios::tree() };
    for victim in ["tree_family", "tree_cow", "tree_sessions", "tree_zombies", "tree_subreaper"] {
        suite.victim(victim, tree());
    }
    suite.victim("share_vm", Scenarios { args: vec!["plain"], ..tree() });
    if std::env::var_os("CKPT_TEST_PLAIN").is_some() {
        suite.test("fight::plain", fight_plain);
        return suite.run();
    }
    for (who, mode) in [(Who::Me, "same"), (Who::Me, "ns"), (Who::User, "auto")] {
        let suffix = if who == Who::User { "user" } else { mode };
        suite.test_as(who, format!("fight::{suffix}"), move |t| fight(t, mode));
        suite.test_as(who, format!("exec::{suffix}"), move |t| exec(t, mode));
        suite.test_as(who, format!("runs_before::{suffix}"), move |t| runs_before(t, mode));
        suite.test_as(who, format!("killed_helper::{suffix}"), move |t| killed(t, mode, "ckpt-fill"));
        suite.test_as(who, format!("killed_tracer::{suffix}"), move |t| killed(t, mode, "ckpt-lazy"));
        suite.test_as(who, format!("killed_program::{suffix}"), move |t| killed_program(t, mode));
        suite.test_as(who, format!("damaged::{suffix}"), move |t| damaged(t, mode));
    }
    suite.test_as(Who::User, "fight::compressed", |t| {
        dumped(t, &[], &["--compress"])?;
        fight_on(t, "auto")
    });
    suite.test_as(Who::User, "eagerly::new", |t| eagerly(t, "mem_anon", &[], "the program gets another id"));
    suite.test_as(Who::User, "eagerly::shared", |t| eagerly(t, "share_vm", &["plain"], "share their memory"));
    suite.run()
}

fn begin(t: &T) -> TestResult {
    let file = std::fs::OpenOptions::new().write(true).open(t.path("shared"))?;
    Ok(file.write_all_at(&[1], 0)?)
}

fn fight_plain(t: &T) -> TestResult {
    let mut victim = t.victim("mem_fight").start()?;
    begin(t)?;
    victim.expect_exit(0)?;
    t.expect_ok()
}

/// A victim, dumped and killed; what it waits for has happened since.
fn dumped(t: &T, args: &[&str], how: &[&str]) -> TestResult {
    let mut victim = t.victim("mem_fight").args(args).start()?;
    t.dump(victim.pid()).args(how).kill().ok()?;
    victim.wait_exit()?;
    begin(t)
}

fn image<'t>(t: &'t T, mode: &str) -> ckpt_tests::Restore<'t> {
    t.restore("saved.ckpt").args(LAZY).arg("--verbose").pid(mode)
}

fn filled(proc: &Proc) -> bool {
    proc.stderr().contains("all memory is there")
}

fn fight(t: &T, mode: &str) -> TestResult {
    dumped(t, &[], &[])?;
    fight_on(t, mode)
}

fn fight_on(t: &T, mode: &str) -> TestResult {
    for _ in 0..ROUNDS {
        let mut restored = image(t, mode).start()?;
        let ended = restored.expect_exit(0);
        t.expect_ok().and(ended)?;
        ensure!(filled(&restored), "not lazily: {}", restored.stderr());
        std::fs::remove_file(t.path("result"))?;
    }
    Ok(())
}

fn exec(t: &T, mode: &str) -> TestResult {
    dumped(t, &["exec"], &[])?;
    fight_on(t, mode)
}

/// What a thread has counted: 0 only counts, 1 makes system calls.
fn count(t: &T, thread: u64) -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open(t.path("shared"))?.read_exact_at(&mut bytes, 8 * (thread + 1))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Processes of that name below another one, or left behind by it.
fn named(restored: &Proc, name: &str) -> Vec<i32> {
    let mut below = procfs::descendants(restored.pid());
    below.retain(|p| procfs::comm(*p).as_deref() == Some(name) && procfs::state(*p) != Some('Z'));
    below
}

/// Lets the helpers go on; one more may have appeared since they were first seen.
fn let_go(restored: &Proc) {
    named(restored, "ckpt-fill").into_iter().for_each(|p| procfs::signal(p, Signal::SIGCONT));
}

/// A restore whose helpers have stopped before they began.
fn half_filled(t: &T, mode: &str) -> anyhow::Result<(Proc, Vec<i32>)> {
    dumped(t, &["waits", "64"], &[])?;
    let mut restored = image(t, mode).args(["--fail-point", "fill"]).start()?;
    let mut helpers = Vec::new();
    t.wait_until("stopped helpers, and a program that runs", || {
        restored.ensure_alive()?;
        helpers = named(&restored, "ckpt-fill");
        let stopped = helpers.iter().all(|p| procfs::state(*p) == Some('T'));
        Ok(!helpers.is_empty() && stopped && restored.stderr().contains("is being filled"))
    })?;
    Ok((restored, helpers))
}

/// The program's threads run while memory is missing; system calls wait for it; no trace is left afterwards.
fn runs_before(t: &T, mode: &str) -> TestResult {
    let (mut restored, _) = half_filled(t, mode)?;
    let program = procfs::program(restored.pid());
    for (thread, rounds) in [(0, 1000), (1, 100)] {
        let before = count(t, thread)?;
        t.wait_until("a thread that runs", || Ok(count(t, thread)? > before + rounds))?;
    }
    t.tell("ping")?;
    t.wait_until("a thread that is held at a system call", || Ok(procfs::state(program) == Some('t')))?;
    ensure!(!t.path("pong").exists(), "a system call has been made");
    ensure!(procfs::status(program, "TracerPid").as_deref() != Some("0"), "nobody traces it");
    t.wait_until("sign of life", || {
        let_go(&restored);
        restored.ensure_alive()?;
        Ok(t.path("pong").exists())
    })?;
    t.wait_until("the end of the trace", || {
        let_go(&restored);
        Ok(procfs::status(program, "TracerPid").as_deref() == Some("0")
            && procfs::threads(program).iter().all(|tid| {
                procfs::read(program, &format!("task/{tid}/status"))
                    .is_some_and(|s| s.lines().any(|l| l == "TracerPid:\t0"))
            })
            && procfs::descendants(restored.pid())
                .iter()
                .all(|p| !matches!(procfs::comm(*p).as_deref(), Some("ckpt-lazy" | "ckpt-fill"))))
    })?;
    let open = procfs::fds(program);
    ensure!(!open.iter().any(|(_, link)| link.to_string_lossy().contains("userfaultfd")), "{open:?}");
    let smaps = procfs::read(program, "smaps").unwrap_or_default();
    let registered = smaps.lines().any(|l| l.starts_with("VmFlags:") && l.split(' ').any(|f| f == "um"));
    ensure!(!registered, "still registered: {smaps}");
    t.go()?;
    let ended = restored.expect_exit(0);
    t.expect_ok().and(ended)
}

/// Whoever fills is killed: the program does not run on, and it is said why.
fn killed(t: &T, mode: &str, name: &str) -> TestResult {
    let (mut restored, _) = half_filled(t, mode)?;
    let program = procfs::program(restored.pid());
    let victims = named(&restored, name);
    let Some(&first) = victims.first() else { bail!("no {name}") };
    procfs::signal(first, Signal::SIGKILL);
    t.wait_until("a message", || {
        // The others have to see it.
        let_go(&restored);
        Ok(restored.stderr().contains("the program is killed"))
    })?;
    restored.expect_signal(Signal::SIGKILL)?;
    t.wait_until("the end of the program", || {
        Ok(matches!(procfs::state(program), None | Some('Z'))
            || procfs::comm(program).as_deref() != Some("mem_fight"))
    })?;
    ensure!(!t.path("pong").exists() && !t.path("result").exists(), "it has run on");
    Ok(())
}

/// The program is killed meanwhile: nobody is left.
fn killed_program(t: &T, mode: &str) -> TestResult {
    let (mut restored, helpers) = half_filled(t, mode)?;
    let below = procfs::descendants(restored.pid());
    ensure!(helpers.iter().all(|p| below.contains(p)), "helpers elsewhere: {helpers:?}");
    procfs::signal(procfs::program(restored.pid()), Signal::SIGKILL);
    restored.expect_signal(Signal::SIGKILL)?;
    t.wait_gone(&below)
}

/// Contents that are damaged are noticed when the program runs already: it is killed.
fn damaged(t: &T, mode: &str) -> TestResult {
    dumped(t, &["waits", "64"], &[])?;
    let image_path = t.path("saved.ckpt");
    let len = image_path.metadata()?.len();
    let file = std::fs::OpenOptions::new().write(true).open(&image_path)?;
    // In the middle of the large mapping.
    file.write_all_at(&[0xa5; 64], len / 2)?;
    drop(file);
    let mut restored = image(t, mode).start()?;
    restored.expect_signal(Signal::SIGKILL)?;
    t.wait_until("a message", || {
        let text = restored.stderr();
        Ok(text.contains("the program is killed") && text.contains("damaged"))
    })?;
    ensure!(!t.path("pong").exists() && !t.path("result").exists(), "it has run on");
    Ok(())
}

/// Where memory cannot be filled later it is read first, and that is said.
fn eagerly(t: &T, victim: &str, args: &[&str], why: &str) -> TestResult {
    let mut original = t.victim(victim).args(args).start()?;
    let below = procfs::descendants(original.pid());
    t.dump(original.pid()).kill().ok()?;
    original.wait_exit()?;
    t.wait_gone(&below)?;
    let mode = if args.is_empty() { "new" } else { "ns" };
    let mut restored = image(t, mode).start()?;
    t.ping()?;
    t.go()?;
    let ended = restored.expect_exit(0);
    t.expect_ok().and(ended)?;
    let text = restored.stderr();
    ensure!(text.contains("all memory is read before the program runs") && text.contains(why), "{text}");
    ensure!(!text.contains("is being filled"), "{text}");
    Ok(())
}
