//! Descriptors: files, pipes, sockets, events; and logs that changed since the dump.

use ckpt_tests::{Scenarios, Suite, T, TestResult, procfs};
use std::fs;
use std::io::Write;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("files");
    let plain = Scenarios::default;
    suite.victim("fd_regular", plain().pids(&["ns"]));
    suite.victim("fd_deleted", plain());
    suite.victim("fd_hardlink", plain());
    suite.victim("fd_directory", plain());
    suite.victim("fd_locks", plain());
    suite.victim("fd_dev", plain());
    suite.victim("fd_pipe", plain());
    suite.victim("fd_event", plain());
    suite.forms("form_eventfd", plain());
    suite.victim("fd_epoll", plain().pids(&["ns"]));
    suite.victim("fd_socket", plain());
    suite.victim("fd_socketpair", plain());
    suite.victim("fd_unix", plain());
    suite.victim("fd_numbers", plain());
    suite.victim("fd_many", plain());
    suite.test("fd_locks::again-ns", locks_again);
    suite.test("tcp_connection_given_up", tcp_given_up);
    suite.test("log_that_has_grown", log_grown);
    suite.test("log_that_is_shorter", |t| log_changed(t, |t| t.write("log.txt", "short").map(drop)));
    suite.test("log_that_is_gone", |t| log_changed(t, |t| Ok(fs::remove_file(t.path("log.txt"))?)));
    suite.test("log_that_is_gone_elsewhere_by_fd", log_by_fd);
    suite.run()
}

/// Refused by default, with the option; with it, reset.
fn tcp_given_up(t: &T) -> TestResult {
    let mut victim = t.victim("fd_tcp").start()?;
    t.dump(victim.pid()).kill().args(["--tcp", "refuse"]).refused(
        5,
        &["TCP connection from 127.0.0.1", "(fd 3 of PID ", "(fd_tcp))", "--tcp repair", "--tcp reset"],
    )?;
    t.dump(victim.pid()).kill().arg("--allow").arg("tcp-established").ok()?;
    victim.wait_exit()?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

fn save(t: &T) -> TestResult {
    let mut victim = t.victim("fd_log").start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit().map(drop)
}

fn log_grown(t: &T) -> TestResult {
    save(t)?;
    fs::File::options().append(true).open(t.path("log.txt"))?.write_all(b"rotated by hand\n")?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()?;
    let log = t.read("log.txt")?;
    ckpt_tests::ensure!(log == "first line\nrotated by hand\nlast line\n", "the log is {log:?}");
    Ok(())
}

/// Refused by name, with the option; and goes on with that option.
fn log_changed(t: &T, change: impl Fn(&T) -> TestResult) -> TestResult {
    save(t)?;
    change(t)?;
    t.restore("saved.ckpt").refused(&["log.txt", "--ignore-changed-files"])?;
    let mut restored = t.restore("saved.ckpt").arg("--ignore-changed-files").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

/// `--fd N=PATH` gives another file instead.
fn log_by_fd(t: &T) -> TestResult {
    save(t)?;
    fs::remove_file(t.path("log.txt"))?;
    t.write("other.txt", "")?;
    let other = format!("3={}", t.path("other.txt").display());
    let mut restored = t.restore("saved.ckpt").arg("--fd").arg(other).start()?;
    t.go()?;
    restored.expect_exit(0)?;
    let other = t.read("other.txt")?;
    ckpt_tests::ensure!(other.ends_with("last line\n"), "other.txt is {other:?}");
    Ok(())
}

/// Seen from outside, a process below a supervisor has another pid than it knows: its locks are its own.
fn locks_again(t: &T) -> TestResult {
    let mut victim = t.victim("fd_locks").start()?;
    let mut pid = victim.pid();
    for _ in 0..2 {
        t.dump(pid).kill().ok()?;
        victim.wait_exit()?;
        victim = t.restore("saved.ckpt").pid("ns").start()?;
        t.ping()?;
        pid = procfs::program(victim.pid());
    }
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}
