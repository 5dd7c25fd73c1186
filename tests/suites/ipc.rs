//! System V IPC and POSIX message queues: by id, key and name, with contents and everything that is
//! attached to them.

use ckpt_tests::{Context, Error, Proc, Scenarios, Suite, T, TestResult, Who, ensure, procfs};
use nix::sys::signal::Signal;
use std::process::Command;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("ipc");
    let plain = Scenarios::default;
    suite.victim("sysv_shm", plain().all_pids());
    suite.victim("sysv_sem", plain().all_pids());
    suite.victim("sysv_msg", plain().all_pids());
    suite.victim("sysv_tree", Scenarios::tree());
    for victim in ["sysv_shm", "sysv_sem", "sysv_msg", "sysv_tree"] {
        // Another dump needs the rights over a namespace that is the program's own.
        let scenarios = if victim == "sysv_tree" { Scenarios::tree() } else { plain().all_pids() };
        let scenarios = Scenarios { user: false, ..scenarios.wrapper(&["unshare", "-i"]) };
        suite.victim_named(&format!("{victim}_own_namespace"), victim, scenarios);
    }
    suite.victim("mqueue", plain().all_pids());
    suite.victim("mqueue_tree", Scenarios::tree());
    let own = plain().all_pids().wrapper(&["unshare", "-i"]);
    suite.victim_named("mqueue_own_namespace", "mqueue", Scenarios { user: false, ..own });
    if std::env::var_os("CKPT_TEST_PLAIN").is_none() {
        for (who, name) in [(Who::Me, "root"), (Who::User, "user")] {
            suite.test_as(who, format!("made_again::{name}"), made_again);
        }
        suite.test_as(Who::User, "made_again_in_place::user", made_again_in_place);
        suite.test("ids_are_stolen", ids_are_stolen);
        suite.test("in_use", in_use);
        suite.test("key_in_use", key_in_use);
        suite.test("failed_restore", failed_restore);
        suite.test("undo_of_a_thread", |t| {
            let mut victim = t.victim("sysv_sem").args(["apart"]).start()?;
            t.dump(victim.pid()).refused(5, &["thread", "semaphore adjustments"])?;
            t.go()?;
            let ended = victim.expect_exit(0);
            t.expect_ok().and(ended)
        });
        suite.test("queue_in_use", queue_in_use);
        suite.test("queue_shared_outside", queue_shared_outside);
        suite.test("queue_that_signals", queue_that_signals);
        suite.test("queue_survives_a_killed_dump", queue_survives_a_killed_dump);
        suite.test("queue_of_a_failed_restore", queue_of_a_failed_restore);
    }
    suite.run()
}

/// Dumped and killed; what it left behind is removed.
fn dumped(t: &T) -> Result<String, Error> {
    let mut victim = t.victim("sysv_keep").start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.expect_signal(Signal::SIGKILL)?;
    let ids = t.read("ids")?;
    let removed = Command::new("ipcrm").args(ids.split(' ')).status().context("ipcrm")?;
    ensure!(removed.success(), "ipcrm {ids}: {removed}");
    Ok(ids)
}

fn verify(t: &T, mut restored: Proc) -> TestResult {
    t.ping()?;
    t.go()?;
    let ended = restored.expect_exit(0);
    t.expect_ok().and(ended)
}

/// Nothing is left of the objects: they are made with their ids, without privileges in a namespace.
fn made_again(t: &T) -> TestResult {
    dumped(t)?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.ping()?;
    t.wait_untraced(&restored)?;
    // Once more, from outside of its namespaces.
    t.dump(procfs::program(restored.pid())).output("again.ckpt").kill().ok()?;
    restored.wait_exit()?;
    verify(t, t.restore("again.ckpt").start()?)
}

fn made_again_in_place(t: &T) -> TestResult {
    ckpt_tests::need_root()?;
    dumped(t)?;
    t.restore("saved.ckpt").pid("new").refused(&["not permitted", "id", "--pid ns"])
}

/// Somebody else makes objects all the time, and gets the ids that were wished for.
fn ids_are_stolen(t: &T) -> TestResult {
    ckpt_tests::need_root()?;
    let images: Vec<String> = (0..8).map(|n| format!("{n}.ckpt")).collect();
    for image in &images {
        dumped(t)?;
        std::fs::rename(t.path("saved.ckpt"), t.path(image))?;
    }
    std::fs::remove_file(t.path("ready"))?;
    let mut thief = t.victim("sysv_thief").start()?;
    let mut started = Vec::new();
    for image in &images {
        let mut restored = t.restore(image).pid("new").start()?;
        t.wait_restored(&mut restored)?;
        started.push(restored);
    }
    t.go()?;
    started.iter_mut().try_for_each(|restored| restored.expect_exit(0))?;
    thief.expect_exit(0)?;
    t.expect_ok()
}

fn in_use(t: &T) -> TestResult {
    let mut victim = t.victim("sysv_keep").start()?;
    let pid = victim.pid();
    t.dump(pid).ok()?;
    let ids = t.read("ids")?;
    let shm = ids.split(' ').nth(1).unwrap_or("?");
    t.restore("saved.ckpt").pid("new").refused(&["in use", shm, &pid.to_string(), "sysv_keep"])?;
    t.restore("saved.ckpt").refused(&["in use"])?;
    // Both at the same time, each with its own.
    let restored = t.restore("saved.ckpt").pid("ns").start()?;
    verify(t, restored)?;
    victim.expect_exit(0)
}

/// Another segment has got the key.
fn key_in_use(t: &T) -> TestResult {
    let key = (0x4b00_0000 | std::process::id()).to_string();
    let mut victim = t.victim("sysv_keep").args([&key]).start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.expect_signal(Signal::SIGKILL)?;
    let ids = t.read("ids")?;
    ensure!(Command::new("ipcrm").args(ids.split(' ')).status()?.success(), "ipcrm {ids}");
    let binary = t.path("sysv_keep");
    let status = Command::new(&binary).args([&key, "leave"]).status().context("a second segment")?;
    ensure!(status.success(), "{status}");
    let refused = t.restore("saved.ckpt").refused(&["in the way", "ipcrm"]);
    let key = format!("{:#x}", key.parse::<u32>()?);
    ensure!(Command::new("ipcrm").args(["-M", &key]).status()?.success(), "ipcrm -M {key}");
    refused?;
    verify(t, t.restore("saved.ckpt").start()?)
}

/// What a restore made that failed later is removed again.
fn failed_restore(t: &T) -> TestResult {
    let ids = dumped(t)?;
    for mode in ["new", "same"] {
        t.restore("saved.ckpt").pid(mode).args(["--chdir", "/nonexistent"]).refused(&["/nonexistent"])?;
        for (list, column, id) in [("shm", 1, 1), ("sem", 1, 3), ("msg", 1, 5)] {
            let id = ids.split(' ').nth(id).unwrap_or("?");
            // The tracer removes it, when the process in front may have ended already.
            t.wait_until(&format!("the end of the {list} with id {id}, mode {mode}"), || {
                let text = std::fs::read_to_string(format!("/proc/sysvipc/{list}"))?;
                let mut found = text.lines().filter_map(|l| l.split_whitespace().nth(column));
                Ok(!found.any(|i| i == id))
            })?;
        }
    }
    verify(t, t.restore("saved.ckpt").start()?)
}

/// Somebody else has the queue open.
fn queue_in_use(t: &T) -> TestResult {
    let mut victim = t.victim("mqueue").args(["plain"]).start()?;
    t.dump(victim.pid()).ok()?;
    t.restore("saved.ckpt").pid("new").refused(&["message queue", "in use", "ckpt-a-"])?;
    let restored = t.restore("saved.ckpt").pid("ns").start()?;
    verify(t, restored)?;
    victim.expect_exit(0)
}

/// The child is left outside, and has the queue open.
fn queue_shared_outside(t: &T) -> TestResult {
    let mut victim = t.victim("mqueue_tree").start()?;
    let children = ["--allow", "children"];
    t.dump(victim.pid()).args(children).refused(5, &["message queue", "shared with", "mqueue_tree"])?;
    t.dump(victim.pid()).args(children).args(["--allow", "shared-outside"]).arg("--check").ok()?;
    t.go()?;
    let ended = victim.expect_exit(0);
    t.expect_ok().and(ended)
}

/// Its queues are removed again, of which the next one makes new ones.
fn queue_of_a_failed_restore(t: &T) -> TestResult {
    let mut victim = t.victim("mqueue").args(["fails"]).start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.expect_signal(Signal::SIGKILL)?;
    // A file system of its own is the only way to list and remove queues.
    let there = |what: &str| -> Result<bool, Error> {
        let script = format!("mount -t mqueue none /mnt && {what} /mnt/{}", t.read("name")?);
        let done = Command::new("unshare").args(["-m", "sh", "-c", &script]).status()?;
        Ok(done.success())
    };
    ckpt_tests::need_root()?;
    ensure!(there("test -e")? && there("rm")?, "the victim's queue is not there");
    t.restore("saved.ckpt").args(["--chdir", "/nonexistent"]).refused(&["/nonexistent"])?;
    ensure!(!there("test -e")?, "a queue is left");
    verify(t, t.restore("saved.ckpt").start()?)
}

fn queue_that_signals(t: &T) -> TestResult {
    let mut victim = t.victim("mqueue").args(["signal"]).start()?;
    t.dump(victim.pid()).refused(5, &["mq_notify", "--allow mq-notify"])?;
    t.dump(victim.pid()).kill().args(["--allow", "mq-notify"]).ok()?;
    victim.expect_signal(Signal::SIGKILL)?;
    verify(t, t.restore("saved.ckpt").start()?)
}

/// Whenever ckpt-dump is killed, no message is lost, and their order stays.
fn queue_survives_a_killed_dump(t: &T) -> TestResult {
    let mut victim = t.victim("mqueue").start()?;
    let start = std::time::Instant::now();
    t.dump(victim.pid()).ok()?;
    let whole = start.elapsed();
    for i in 0..60 {
        let mut dump = t.dump(victim.pid()).output(format!("{i}.ckpt")).start()?;
        let start = std::time::Instant::now();
        let delay = whole * i / 60;
        t.wait_until("a moment", || Ok(start.elapsed() >= delay))?;
        dump.signal(Signal::SIGKILL);
        dump.wait_exit()?;
    }
    t.ping()?;
    t.go()?;
    let ended = victim.expect_exit(0);
    t.expect_ok().and(ended)
}
