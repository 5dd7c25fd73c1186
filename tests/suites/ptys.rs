//! Pseudo-terminals whose two ends are both inside the image, and sessions on them.

use ckpt_tests::{Scenarios, Suite, T, TestResult, Who};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("ptys");
    suite.victim("pty_pair", Scenarios::default().all_pids());
    suite.victim("pty_session", Scenarios::tree());
    suite.victim("pty_data", Scenarios::tree());
    if std::env::var_os("CKPT_TEST_PLAIN").is_none() {
        for (who, suffix) in [(Who::Me, ""), (Who::User, "-user")] {
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
