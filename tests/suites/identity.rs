//! A restored program is a command like any other: exit status, signals, stdio, job control; nothing
//! of ours is left.

use ckpt_tests::{Context, Error, Proc, Suite, T, TestResult, Who, bail, ensure, need_root, procfs};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const MODES: &[&str] = &["new", "same", "ns"];

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("identity");
    for &mode in MODES {
        suite.test(format!("exit_status::{mode}"), move |t| {
            let mut restored = restore(t, "ends", &["exit"], mode)?;
            t.go()?;
            restored.expect_exit(7)
        });
        for (how, signal) in [
            ("term", Signal::SIGTERM),
            ("segv", Signal::SIGSEGV),
            ("kill", Signal::SIGKILL),
            ("abort", Signal::SIGABRT),
        ] {
            suite.test(format!("death_by_{how}::{mode}"), move |t| {
                let mut restored = restore(t, "ends", &[how], mode)?;
                t.go()?;
                restored.expect_signal(signal)
            });
        }
        suite.test(format!("signals_are_forwarded::{mode}"), move |t| forwarded(t, mode));
        suite.test(format!("killed_from_outside::{mode}"), move |t| killed(t, mode));
        suite.test(format!("stop_and_continue::{mode}"), move |t| stop_continue(t, mode));
        suite.test(format!("job_control::{mode}"), move |t| job_control(t, mode));
        suite.test(format!("stdio_redirected::{mode}"), move |t| stdio(t, mode));
        suite.test(format!("nothing_left_behind::{mode}"), move |t| nothing_left(t, mode));
    }
    suite.test_as(Who::User, "stdio_as_user", |t| stdio(t, "auto"));
    suite.test("pipeline", pipeline);
    suite.test("pid_same_keeps_ids", same_ids);
    suite.test("pid_same_is_refused_while_taken", taken);
    suite.test("pid_ns_while_the_original_runs", beside_original);
    suite.test("verbose_tells_the_mode", verbose);
    suite.test("two_copies_at_once", two_copies);
    suite.test("help", help);
    suite.test("bad_options", bad_options);
    suite.test("stopped_option", stopped);
    suite.test("chdir_option", chdir);
    suite.test("image_is_private_and_executable", mode_bits);
    suite.test("readelf", readelf);
    suite.test("again_50_times", fifty_times);
    suite.run()
}

/// Dumps and kills a victim.
fn save(t: &T, victim: &str, args: &[&str]) -> Result<i32, Error> {
    let mut original = t.victim(victim).args(args).start()?;
    t.dump(original.pid()).kill().ok()?;
    original.expect_signal(Signal::SIGKILL)?;
    Ok(original.pid())
}

/// Runs its image until it shows a sign of life.
fn run(t: &T, mode: &str) -> Result<Proc, Error> {
    let mut restored = t.restore("saved.ckpt").pid(mode).start()?;
    t.tell("ping")?;
    t.wait_until("sign of life", || {
        restored.ensure_alive()?;
        Ok(t.path("pong").exists())
    })?;
    fs::remove_file(t.path("pong"))?;
    Ok(restored)
}

fn restore(t: &T, victim: &str, args: &[&str], mode: &str) -> Result<Proc, Error> {
    save(t, victim, args)?;
    run(t, mode)
}

fn forwarded(t: &T, mode: &str) -> TestResult {
    let mut restored = restore(t, "ends", &["signals"], mode)?;
    for signal in [Signal::SIGUSR1, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        restored.signal(signal);
        t.wait_file(&format!("signal-{}", signal as i32))?;
    }
    t.go()?;
    restored.expect_exit(0)
}

fn killed(t: &T, mode: &str) -> TestResult {
    let mut restored = restore(t, "ends", &["exit"], mode)?;
    let below = procfs::descendants(restored.pid());
    restored.signal(Signal::SIGKILL);
    restored.expect_signal(Signal::SIGKILL)?;
    // The suite adopts the program. Before somebody reaps it the init of its namespace cannot end.
    t.wait_gone(&below)
}

fn stop_continue(t: &T, mode: &str) -> TestResult {
    let mut restored = restore(t, "ends", &["exit"], mode)?;
    // Not SIGSTOP: a supervisor cannot forward that one before it is stopped itself.
    restored.signal(Signal::SIGTSTP);
    t.wait_until("all processes stopped", || {
        let mut all = procfs::descendants(restored.pid());
        all.retain(|&pid| procfs::comm(pid).as_deref() == Some("ends"));
        all.push(restored.pid());
        Ok(all.iter().all(|&pid| procfs::state(pid) == Some('T')))
    })?;
    restored.signal(Signal::SIGCONT);
    t.ping()?;
    t.go()?;
    restored.expect_exit(7)
}

/// An interactive shell stops it by Ctrl-Z, continues it by `fg`, ends it by Ctrl-C.
fn job_control(t: &T, mode: &str) -> TestResult {
    if mode == "same" {
        need_root()?;
    }
    save(t, "ends", &["exit"])?;
    let terminal = t.terminal()?;
    let shell = t.launch("shell", "bash").args(["--norc", "--noprofile", "-i"]).env("PS1", "READY> ");
    let _shell = terminal.attach(shell)?.start()?;
    terminal.expect("READY> ")?;
    for keys in ["\x1a", "\x1a", "\x03"] {
        let command =
            if terminal.output().contains("Stopped") { "fg\n" } else { "./saved.ckpt --pid MODE\n" };
        terminal.clear();
        terminal.send(&command.replace("MODE", mode))?;
        t.ping()?;
        terminal.send(keys)?;
        if keys == "\x1a" {
            terminal.expect("Stopped")?;
        }
        terminal.expect("READY> ")?;
    }
    terminal.send("echo status=$?\n")?;
    terminal.expect("status=130")?;
    terminal.send("jobs; echo no-more-jobs\n")?;
    ensure!(!terminal.expect("\rno-more-jobs")?.contains("Running"), "a job is left");
    terminal.send("exit\n")
}

/// The stdio of the shell that runs the image, not that of the original.
fn stdio(t: &T, mode: &str) -> TestResult {
    let (theirs, ours) = std::io::pipe()?;
    let (outside, their_out) = std::io::pipe()?;
    let mut original = t.victim("fd_stdio").arg("3").with(|l| l.stdin(theirs).stdout(their_out)).start()?;
    t.dump(original.pid()).kill().ok()?;
    original.wait_exit()?;
    drop((ours, outside));
    t.write("input", "one\ntwo\nthree")?;
    let input = fs::File::open(t.path("input"))?;
    let output = fs::File::create(t.path("output"))?;
    let mut restored = t.restore("saved.ckpt").pid(mode).with(|l| l.stdin(input).stdout(output)).start()?;
    t.go()?;
    restored.expect_exit(3)?;
    let output = t.read("output")?;
    ensure!(output == "<one\n<two\n<three", "the output is {output:?}");
    Ok(())
}

fn pipeline(t: &T) -> TestResult {
    let (theirs, ours) = std::io::pipe()?;
    let (outside, their_out) = std::io::pipe()?;
    let mut original = t.victim("fd_stdio").with(|l| l.stdin(theirs).stdout(their_out)).start()?;
    t.dump(original.pid()).kill().ok()?;
    original.wait_exit()?;
    drop((ours, outside));
    t.go()?;
    let script = "seq 3 | ./saved.ckpt | tr '\\n' , > output; echo ${PIPESTATUS[*]}";
    let mut shell = t.launch("shell", "bash").args(["-c", script]).start()?;
    shell.expect_exit(0)?;
    ensure!(shell.stdout() == "0 0 0\n", "the statuses are {:?}", shell.stdout());
    let output = t.read("output")?;
    ensure!(output == "<1,<2,<3,", "the output is {output:?}");
    Ok(())
}

fn nothing_left(t: &T, mode: &str) -> TestResult {
    let mut original = t.victim("ends").arg("exit").start()?;
    let before = (procfs::fds(original.pid()), names(t)?);
    t.dump(original.pid()).kill().ok()?;
    original.wait_exit()?;
    let mut restored = run(t, mode)?;
    let mut pid = restored.pid();
    if mode == "new" {
        t.wait_restored(&mut restored)?;
        ensure!(procfs::descendants(pid).is_empty(), "children: {:?}", procfs::descendants(pid));
    } else {
        let below = procfs::descendants(pid);
        pid = procfs::program(pid);
        // The program, and one helper that ends it when the supervisor is killed.
        ensure!(below.len() <= 2, "below the supervisor: {below:?}");
        ensure!(below.iter().all(|&p| procfs::state(p) != Some('Z')), "a zombie among {below:?}");
    }
    let after = procfs::fds(pid);
    let ours = |link: &std::path::Path| link.to_string_lossy().contains("saved.ckpt");
    ensure!(!after.iter().any(|(_, link)| ours(link)), "the image is still open: {after:?}");
    ensure!(
        before.0.iter().map(|f| f.0).eq(after.iter().map(|f| f.0)),
        "descriptors: {:?} became {after:?}",
        before.0
    );
    let maps = procfs::read(pid, "maps").unwrap_or_default();
    ensure!(!maps.contains("saved.ckpt"), "the image is still mapped:\n{maps}");
    ensure!(procfs::state(pid) != Some('t'), "still traced");
    t.go()?;
    restored.expect_exit(7)?;
    t.wait_until("end of all processes of the group", || Ok(procfs::group(restored.pid()).is_empty()))?;
    let mut left = names(t)?;
    left.retain(|name| !before.1.contains(name));
    left.retain(|name| !["saved.ckpt", "go", "result"].contains(&name.as_str()) && !name.contains("1."));
    ensure!(left.is_empty(), "files: {left:?}");
    Ok(())
}

/// Files of the test's directory.
fn names(t: &T) -> Result<Vec<String>, Error> {
    Ok(fs::read_dir(t.dir())?.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
}

fn same_ids(t: &T) -> TestResult {
    let mut original = t.victim("thr_many").arg("5").start()?;
    let threads = procfs::threads(original.pid());
    t.dump(original.pid()).kill().ok()?;
    original.wait_exit()?;
    let mut restored = run(t, "same")?;
    let now = procfs::threads(original.pid());
    ensure!(now == threads, "thread ids {threads:?} became {now:?}");
    ensure!(procfs::descendants(restored.pid()).contains(&original.pid()), "it is not our child");
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

fn taken(t: &T) -> TestResult {
    let mut original = t.victim("counter").start()?;
    t.dump(original.pid()).ok()?;
    let pid = original.pid().to_string();
    t.restore("saved.ckpt").pid("same").refused(&[&pid, "--pid"])?;
    t.ping()?;
    t.go()?;
    original.expect_exit(0)?;
    t.expect_ok()
}

fn beside_original(t: &T) -> TestResult {
    let mut original = t.victim("counter").start()?;
    t.dump(original.pid()).ok()?;
    let mut restored = t.restore("saved.ckpt").pid("ns").start()?;
    t.wait_until("the copy in its own pid namespace", || {
        restored.ensure_alive()?;
        let nspid = |pid: &i32| procfs::status(*pid, "NSpid").unwrap_or_default();
        let wanted = original.pid().to_string();
        Ok(procfs::descendants(restored.pid())
            .iter()
            .any(|p| nspid(p).split_whitespace().last() == Some(&wanted)))
    })?;
    t.go()?;
    restored.expect_exit(0)?;
    original.expect_exit(0)?;
    t.expect_ok()
}

fn verbose(t: &T) -> TestResult {
    save(t, "counter", &[])?;
    let mut restored = t.restore("saved.ckpt").arg("--verbose").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    let said = restored.stderr();
    ensure!(said.contains("ckpt: "), "--verbose says {said:?}");
    ensure!(["same", "new", "ns"].iter().any(|m| said.contains(m)), "--verbose says {said:?}");
    Ok(())
}

fn two_copies(t: &T) -> TestResult {
    save(t, "counter", &[])?;
    let mut one = t.restore("saved.ckpt").pid("new").start()?;
    let mut two = t.restore("saved.ckpt").pid("new").start()?;
    t.go()?;
    one.expect_exit(0)?;
    two.expect_exit(0)?;
    t.expect_ok()
}

fn help(t: &T) -> TestResult {
    let pid = save(t, "counter", &["with", "arguments"])?;
    let mut help = t.restore("saved.ckpt").arg("--help").start()?;
    help.expect_exit(0)?;
    let text = help.stdout();
    let options = ["--pid", "--help", "--verbose", "--stopped", "--fd", "--chdir", "--ignore-changed-files"];
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    for word in ["counter", "with arguments", &pid.to_string(), host.trim()].iter().chain(&options) {
        ensure!(text.contains(word), "--help does not mention {word:?}:\n{text}");
    }
    Ok(())
}

fn bad_options(t: &T) -> TestResult {
    save(t, "counter", &[])?;
    t.restore("saved.ckpt").arg("--no-such-option").refused(&["--no-such-option", "--help"])?;
    t.restore("saved.ckpt").pid("banana").refused(&["banana", "same", "ns"])?;
    t.restore("saved.ckpt").arg("--pid").refused(&["--pid"])?;
    t.restore("saved.ckpt").arg("--fd").arg("x").refused(&["--fd"])?;
    t.restore("saved.ckpt").arg("--chdir").arg("/no/such/dir").refused(&["/no/such/dir"])
}

fn stopped(t: &T) -> TestResult {
    save(t, "counter", &[])?;
    let mut restored = t.restore("saved.ckpt").pid("new").arg("--stopped").start()?;
    t.wait_until("the stopped program", || {
        restored.ensure_alive()?;
        Ok(procfs::comm(restored.pid()).as_deref() == Some("counter")
            && procfs::state(restored.pid()) == Some('T'))
    })?;
    restored.signal(Signal::SIGCONT);
    t.ping()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

fn chdir(t: &T) -> TestResult {
    save(t, "counter", &[])?;
    fs::create_dir(t.path("below"))?;
    let mut restored = t.restore("saved.ckpt").pid("new").arg("--chdir").arg(t.path("below")).start()?;
    t.ping()?;
    let cwd = fs::read_link(format!("/proc/{}/cwd", restored.pid()))?;
    ensure!(cwd == t.path("below"), "the directory is {}", cwd.display());
    t.go()?;
    restored.expect_exit(0)
}

fn mode_bits(t: &T) -> TestResult {
    save(t, "counter", &[])?;
    let mode = fs::metadata(t.path("saved.ckpt"))?.permissions().mode() & 0o7777;
    ensure!(mode == 0o700, "the image has mode {mode:o}");
    Ok(())
}

fn readelf(t: &T) -> TestResult {
    ckpt_tests::need("readelf")?;
    save(t, "counter", &[])?;
    let output = Command::new("readelf").args(["-lSnW"]).arg(t.path("saved.ckpt")).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && errors.is_empty(), "readelf: {errors}");
    ensure!(!text.to_lowercase().contains("warning"), "readelf warns:\n{text}");
    for word in ["EXEC", "LOAD", "NOTE", "GNU_STACK", "CKPT", "CORE", "stack", "heap"] {
        ensure!(text.contains(word), "readelf does not show {word}:\n{text}");
    }
    let loads = text.lines().filter(|l| l.trim_start().starts_with("LOAD")).count();
    ensure!((4..=73).contains(&loads), "{loads} PT_LOADs");
    Ok(())
}

/// No growth and no drift, in place, as the ordinary user.
fn fifty_times(t: &T) -> TestResult {
    let mut current = t.victim("mem_anon").start()?;
    let sizes = |t: &T, pid: i32| -> Result<(usize, usize, u64), Error> {
        let maps = procfs::read(pid, "maps").context("no maps")?.lines().count();
        Ok((maps, procfs::fds(pid).len(), t.image_size("saved.ckpt").unwrap_or(0)))
    };
    let mut first = None;
    for round in 0..50 {
        t.dump(current.pid()).kill().ok().with_context(|| format!("round {round}"))?;
        current.wait_exit()?;
        current = t.restore("saved.ckpt").pid("new").start()?;
        t.ping().with_context(|| format!("round {round}"))?;
        t.wait_restored(&mut current)?;
        let now = sizes(t, current.pid())?;
        if round == 0 {
            // The first image may still differ: the restored process has other page states.
            continue;
        }
        let (maps, fds, size) = *first.get_or_insert(now);
        if now.0 != maps || now.1 != fds || now.2.abs_diff(size) > 64 << 10 {
            bail!("round {round}: (VMAs, descriptors, image size) {:?} became {now:?}", (maps, fds, size));
        }
    }
    t.go()?;
    current.expect_exit(0)?;
    t.expect_ok()
}
