//! A restored tree is one command: exit status, signals, job control, ids; nothing of it or of ours is left.

use ckpt_tests::{Error, Proc, Suite, T, TestResult, Who, ensure, need_root, procfs};
use nix::sys::signal::Signal;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("tree_identity");
    for mode in ["same", "ns"] {
        suite.test(format!("exit_status::{mode}"), move |t| {
            let mut restored = restore(t, &["exit"], mode)?;
            t.go()?;
            restored.expect_exit(7)
        });
        for (how, signal) in [("term", Signal::SIGTERM), ("segv", Signal::SIGSEGV), ("kill", Signal::SIGKILL)]
        {
            suite.test(format!("death_by_{how}::{mode}"), move |t| {
                let mut restored = restore(t, &[how], mode)?;
                t.go()?;
                restored.expect_signal(signal)
            });
        }
        suite.test(format!("signals_are_forwarded::{mode}"), move |t| forwarded(t, mode));
        suite.test(format!("supervisor_killed::{mode}"), move |t| supervisor_killed(t, mode));
        suite.test(format!("root_stopped::{mode}"), move |t| root_stopped(t, mode));
        suite.test(format!("terminal::{mode}"), move |t| terminal(t, mode));
        suite.test(format!("nothing_left_behind::{mode}"), move |t| nothing_left(t, mode));
    }
    suite.test_as(Who::User, "terminal::user", |t| terminal(t, "auto"));
    suite.test_as(Who::User, "supervisor_killed::user", |t| supervisor_killed(t, "auto"));
    suite.test("same_while_the_original_runs", beside_original);
    suite.test("same_while_one_id_is_taken", taken);
    suite.test("ns_twice_beside_the_original", twice);
    suite.test("new_is_refused", |t| {
        save(t, &["exit"])?;
        t.restore("saved.ckpt").pid("new").refused(&["--pid", "same", "ns"])
    });
    suite.run()
}

/// Dumps and kills the victim; gives the ids of all its processes.
fn save(t: &T, args: &[&str]) -> Result<Vec<i32>, Error> {
    let mut original = t.victim("tree_ends").args(args).start()?;
    let mut all = procfs::descendants(original.pid());
    all.push(original.pid());
    t.dump(original.pid()).kill().ok()?;
    original.expect_signal(Signal::SIGKILL)?;
    t.wait_gone(&all)?;
    Ok(all)
}

/// Waits until the root of a tree answers.
fn alive(t: &T, proc: &mut Proc) -> TestResult {
    t.tell("ping")?;
    t.wait_until("sign of life", || {
        proc.ensure_alive()?;
        Ok(t.path("pong").exists())
    })?;
    std::fs::remove_file(t.path("pong"))?;
    Ok(())
}

fn run(t: &T, mode: &str) -> Result<Proc, Error> {
    let mut restored = t.restore("saved.ckpt").pid(mode).start()?;
    alive(t, &mut restored)?;
    t.wait_untraced(&restored)?;
    Ok(restored)
}

fn restore(t: &T, args: &[&str], mode: &str) -> Result<Proc, Error> {
    save(t, args)?;
    run(t, mode)
}

/// The program's processes below a supervisor.
fn program(restored: &Proc) -> Vec<i32> {
    let ours = |pid: &i32| procfs::comm(*pid).is_some_and(|comm| comm == "tree_ends" || comm == "grandchild");
    procfs::descendants(restored.pid()).into_iter().filter(ours).collect()
}

/// To the root alone: a signal that is sent to the command is sent to one process.
fn forwarded(t: &T, mode: &str) -> TestResult {
    let mut restored = restore(t, &["signals"], mode)?;
    for signal in [Signal::SIGUSR1, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        restored.signal(signal);
        t.wait_file(&format!("signal-{}", signal as i32))?;
        ensure!(!t.path(format!("signal-{}-child", signal as i32)).exists(), "{signal} went to a child, too");
    }
    t.go()?;
    restored.expect_exit(0)
}

/// In a namespace nothing can stay; with the ids of old, at least not the root.
fn supervisor_killed(t: &T, mode: &str) -> TestResult {
    let mut restored = restore(t, &["exit"], mode)?;
    let mut below = program(&restored);
    ensure!(below.len() == 4, "the tree has {} processes", below.len());
    restored.signal(Signal::SIGKILL);
    restored.expect_signal(Signal::SIGKILL)?;
    if mode == "same" {
        // The others are orphans, as if the root itself had been killed.
        let others = below.split_off(1);
        t.wait_gone(&below)?;
        others.iter().for_each(|&pid| procfs::signal(pid, Signal::SIGKILL));
        return Ok(());
    }
    t.wait_gone(&below)
}

/// The supervisor stops with the root, and both are continued through it.
fn root_stopped(t: &T, mode: &str) -> TestResult {
    let mut restored = restore(t, &["exit"], mode)?;
    let root = procfs::program(restored.pid());
    procfs::signal(root, Signal::SIGSTOP);
    restored.wait_state('T')?;
    for &pid in program(&restored).iter().filter(|&&pid| pid != root) {
        ensure!(procfs::state(pid) != Some('T'), "process {pid} is stopped, too");
    }
    restored.signal(Signal::SIGCONT);
    alive(t, &mut restored)?;
    t.go()?;
    restored.expect_exit(7)
}

/// Ctrl-Z, fg, resizing and Ctrl-C reach the root and its children, in a terminal whose other end is outside.
fn terminal(t: &T, mode: &str) -> TestResult {
    if mode == "same" {
        need_root()?;
    }
    save(t, &["signals"])?;
    let terminal = t.terminal()?;
    let shell = t.launch("shell", "bash").args(["--norc", "--noprofile", "-i"]).env("PS1", "READY> ");
    let shell = terminal.attach(shell)?.start()?;
    terminal.expect("READY> ")?;
    terminal.clear();
    terminal.send(&format!("./saved.ckpt --pid {mode}\n"))?;
    t.ping()?;
    let all = program(&shell);
    ensure!(all.len() == 4, "the tree has {} processes", all.len());
    let group = all;
    terminal.send("\x1a")?;
    terminal.expect("Stopped")?;
    // All but the one in a session of its own.
    let stopped = || group.iter().filter(|&&pid| procfs::state(pid) == Some('T')).count();
    t.wait_until("three processes stopped", || Ok(stopped() == 3))?;
    terminal.expect("READY> ")?;
    terminal.clear();
    terminal.send("fg\n")?;
    t.ping()?;
    t.wait_until("none stopped", || Ok(stopped() == 0))?;
    let told = |signal: Signal| -> TestResult {
        t.wait_file(&format!("signal-{}", signal as i32))?;
        t.wait_file(&format!("signal-{}-child", signal as i32))?;
        std::fs::remove_file(t.path(format!("signal-{}", signal as i32)))?;
        std::fs::remove_file(t.path(format!("signal-{}-child", signal as i32)))?;
        Ok(())
    };
    // What the restore itself or the shell may have caused.
    for name in ["signal-28", "signal-28-child"] {
        let _ = std::fs::remove_file(t.path(name));
    }
    terminal.resize(33, 99)?;
    told(Signal::SIGWINCH)?;
    terminal.send("\x03")?;
    told(Signal::SIGINT)?;
    terminal.clear();
    t.go()?;
    terminal.expect("READY> ")?;
    terminal.clear();
    terminal.send("echo status=$?; jobs; echo no-more\n")?;
    // Once typed, once printed.
    t.wait_until("the list of jobs", || Ok(terminal.output().matches("no-more").count() == 2))?;
    let said = terminal.output();
    ensure!(said.contains("status=0"), "{said:?}");
    ensure!(!said.contains("Running") && !said.contains("Stopped"), "a job is left: {said:?}");
    t.wait_gone(&group)?;
    terminal.send("exit\n")
}

fn nothing_left(t: &T, mode: &str) -> TestResult {
    let original = t.victim("tree_ends").args(["exit", "file"]).start()?;
    let numbers = |pid: i32| procfs::fds(pid).into_iter().map(|(n, _)| n).collect::<Vec<_>>();
    let mut before: Vec<_> = procfs::descendants(original.pid()).into_iter().map(numbers).collect();
    before.sort();
    let mut gone = procfs::descendants(original.pid());
    gone.push(original.pid());
    t.dump(original.pid()).kill().ok()?;
    drop(original);
    t.wait_gone(&gone)?;
    let mut restored = run(t, mode)?;
    let below = procfs::descendants(restored.pid());
    let tree = program(&restored);
    // Four processes, and one that ends them when the supervisor is killed.
    ensure!(tree.len() == 4 && below.len() <= 5, "below the supervisor: {below:?}");
    let mut after: Vec<_> = tree[1..].iter().map(|&pid| numbers(pid)).collect();
    after.sort();
    ensure!(before == after, "descriptors of the children: {before:?} became {after:?}");
    for &pid in &tree {
        ensure!(procfs::state(pid) != Some('t'), "still traced");
        let maps = procfs::read(pid, "maps").unwrap_or_default();
        ensure!(!maps.contains("saved.ckpt"), "the image is still mapped:\n{maps}");
        let links = procfs::fds(pid);
        let ours = links.iter().any(|(_, link)| link.to_string_lossy().contains("saved.ckpt"));
        ensure!(!ours, "the image is still open: {links:?}");
    }
    t.go()?;
    restored.expect_exit(7)?;
    t.wait_gone(&below)
}

/// The original holds all ids: the message names one of them, and who has it.
fn beside_original(t: &T) -> TestResult {
    let mut original = t.victim("tree_ends").arg("exit").start()?;
    t.dump(original.pid()).ok()?;
    let pid = original.pid().to_string();
    t.restore("saved.ckpt").pid("same").refused(&[&pid, "tree_ends", "--pid"])?;
    alive(t, &mut original)?;
    t.go()?;
    original.expect_exit(7)
}

/// One id of many, that of the grandchild, belongs to somebody else now.
fn taken(t: &T) -> TestResult {
    need_root()?;
    save(t, &["exit"])?;
    let id = t.read("grandchild")?;
    std::fs::remove_file(t.path("ready"))?;
    let mut taker = t.victim("take_pid").arg(&id).start()?;
    t.restore("saved.ckpt").pid("same").refused(&[&id, "the taker", "--pid"])?;
    ensure!(procfs::group(taker.pid()).len() == 2, "the refusal left something behind, or killed the taker");
    // Without a choice it takes another way.
    let mut restored = run(t, "auto")?;
    t.go()?;
    restored.expect_exit(7)?;
    taker.expect_exit(0)
}

fn twice(t: &T) -> TestResult {
    let mut original = t.victim("tree_ends").arg("exit").start()?;
    t.dump(original.pid()).ok()?;
    let mut one = t.restore("saved.ckpt").pid("ns").start()?;
    let mut two = t.restore("saved.ckpt").pid("ns").start()?;
    t.wait_until("two whole trees", || {
        one.ensure_alive()?;
        two.ensure_alive()?;
        Ok(program(&one).len() == 4 && program(&two).len() == 4)
    })?;
    t.wait_untraced(&one)?;
    t.wait_untraced(&two)?;
    t.go()?;
    one.expect_exit(7)?;
    two.expect_exit(7)?;
    original.expect_exit(7)
}
