//! Descriptors that processes of a tree share, send to each other, or have an end of each.

use ckpt_tests::{Scenarios, Suite, T, TestResult, ensure};
use std::fs::File;
use std::process::Stdio;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("tree_fds");
    suite.victim("tree_fd_flight", Scenarios::default());
    suite.victim("tree_fd_shared", Scenarios::tree());
    suite.victim("tree_fd_pending", Scenarios::tree());
    suite.victim("tree_fd_mail", Scenarios::tree());
    suite.victim("tree_fd_tcp", Scenarios::tree());
    suite.victim("tree_fd_tcp_full", Scenarios::tree());
    suite.test("outside_is_named_with_both_ends", outside);
    suite.test("standard_descriptors_of_children", stdio);
    suite.run()
}

/// Refused by name, both ends; with the options, the other ends are closed.
fn outside(t: &T) -> TestResult {
    let mut victim = t.victim("tree_fd_outside").start()?;
    let words =
        ["other end of this pipe is outside: fd ", "other end of this FIFO", "(outsider)", "unix-outside"];
    let refused = t.dump(victim.pid()).kill().refused(5, &words)?;
    let named = refused.stderr.matches("(outsider)").count();
    ensure!(named == 3, "{named} of 3 named:\n{}", refused.stderr);
    let root = format!("PID {} ", victim.pid());
    ensure!(!refused.stderr.contains(&root), "the root has none of them:\n{}", refused.stderr);
    t.dump(victim.pid()).kill().args(["--allow", "pipe-outside", "--allow", "unix-outside"]).ok()?;
    victim.wait_exit()?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

/// Pipes from and to the caller, at the dump and at the restore.
fn stdio(t: &T) -> TestResult {
    let mut victim =
        t.victim("tree_fd_stdio").with(|l| l.stdin(Stdio::piped()).stdout(Stdio::piped())).start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit()?;
    t.write("input", "y")?;
    let input = File::open(t.path("input"))?;
    let mut restored = t.restore("saved.ckpt").with(|l| l.stdin(input)).start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()?;
    let mut said: Vec<String> = restored.stdout().lines().map(str::to_owned).collect();
    said.sort();
    ensure!(said == ["child 0", "child 1", "got y", "root"], "{said:?}");
    // A file stays a file.
    let errors = t.read("tree_fd_stdio.err")?;
    ensure!(errors.lines().count() == 2, "{errors}");
    Ok(())
}
