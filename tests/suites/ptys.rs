//! Pseudo-terminals whose two ends are both inside the image, and sessions on them.

use ckpt_tests::{Scenarios, Suite, T, TestResult, Who, procfs};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("ptys");
    // The number of a pair that is gone for the moment is the next that anybody gets.
    suite.one_at_a_time();
    suite.victim("pty_pair", Scenarios::default().all_pids());
    suite.victim("pty_session", Scenarios::tree());
    suite.victim("pty_data", Scenarios::tree());
    suite.victim("fd_cloexec", Scenarios::default().pids(&["same"]));
    suite.victim("pty_own", Scenarios { twice: false, ..Scenarios::default() }.pids(&["same", "ns"]));
    if std::env::var_os("CKPT_TEST_PLAIN").is_none() {
        for (who, suffix) in [(Who::Me, ""), (Who::User, "-user")] {
            suite.test_as(who, format!("pty_input::refused{suffix}"), input);
            suite.test_as(who, format!("pty_session::outside{suffix}"), outside);
            suite.test_as(who, format!("pty_pair::number-in-use{suffix}"), number_in_use);
        }
    }
    suite.run()
}

/// Somebody else has the numbers by now.
fn number_in_use(t: &T) -> TestResult {
    let mut original = t.victim("pty_pair").env("CKPT_RENAMED", "1").start()?;
    t.dump(original.pid()).kill().ok()?;
    original.wait_exit()?;
    let open = || File::options().read(true).write(true).custom_flags(0o400).open("/dev/ptmx");
    let _taken = (0..12).map(|_| open()).collect::<Result<Vec<_>, _>>()?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

/// Unread input is refused by name, or left out.
fn input(t: &T) -> TestResult {
    let mut original = t.victim("pty_input").start()?;
    t.dump(original.pid()).refused(5, &["/dev/pts/", "6 bytes of input", "--allow pty-data"])?;
    let all = procfs::descendants(original.pid());
    t.dump(original.pid()).kill().args(["--allow", "pty-data"]).ok()?;
    original.wait_exit()?;
    t.wait_gone(&all)?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

/// The session on the terminal stays outside: refused by name.
fn outside(t: &T) -> TestResult {
    let original = t.victim("pty_session").start()?;
    let words = ["/dev/ptmx", "session", "outside the image", "--allow pty-outside"];
    t.dump(original.pid()).args(["--allow", "children"]).refused(5, &words).map(drop)
}
