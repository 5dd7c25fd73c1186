//! Harness of the whole-system tests: start a victim, dump it, run the image, verify.
//!
//! A suite is a program (`tests/suites/NAME.rs`, `harness = false`):
//!
//! ```no_run
//! use ckpt_tests::*;
//!
//! fn main() -> std::process::ExitCode {
//!     let mut suite = Suite::new("example");
//!     // One victim (tests/victims/mem_anon.c) through the usual scenarios.
//!     suite.victim("mem_anon", Scenarios::default());
//!     // Or by hand:
//!     suite.test("by_hand", |t| {
//!         let mut victim = t.victim("mem_anon").start()?;
//!         t.dump(victim.pid()).kill().ok()?;
//!         victim.wait_exit()?;
//!         let mut again = t.restore("saved.ckpt").arg("--pid=new").start()?;
//!         t.go()?;
//!         again.expect_exit(0)
//!     });
//!     suite.run()
//! }
//! ```
//!
//! A test returns `anyhow::Result<()>`; `skip!("no huge pages here")` skips it, aloud. What a test
//! starts is killed when it ends. Its directory stays when it failed. Nothing here sleeps except the
//! poll interval of [`T::wait_until`].
//!
//! Environment: `CKPT_TEST_BIN_DIR` (use the programs there instead of building them),
//! `CKPT_TEST_PLAIN` (victims run without a dump, to see that they themselves are right),
//! `CKPT_TEST_DEADLINE` (seconds that a test may wait for one condition, default 90),
//! `CKPT_TEST_BINFMT=1` (as root: every image is restored by ckpt-restore as the kernel's handler, in namespaces of
//! the suite's own), `CKPT_TEST_KEEP` (keep the directories of tests that passed, too), `TMPDIR`.

pub mod binfmt;
mod build;
mod ckpt;
mod mounted;
mod network;
mod process;
pub mod procfs;
mod pty;
mod scenario;
mod suite;
mod victim;
pub mod view;
mod workdir;

pub use build::{Variant, tool, victim as victim_program};
pub use ckpt::{Dump, Dumped, Restore, failpoints};
pub use mounted::Mounted;
pub use process::{Launch, Proc};
pub use pty::Terminal;
pub use scenario::Scenarios;
pub use suite::{Suite, T, TestResult, Who};
pub use victim::VictimLaunch;
pub use workdir::WorkDir;

pub use anyhow::{Context, Error, anyhow, bail, ensure};

/// The error that means "skipped, for this reason". Made by [`skip!`].
#[derive(Debug)]
pub struct Skip(pub String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "skipped: {}", self.0)
    }
}

impl std::error::Error for Skip {}

/// Returns from the test: it is counted and printed as ignored, with the reason.
#[macro_export]
macro_rules! skip {
    ($($arg:tt)*) => {
        return Err($crate::Skip(format!($($arg)*)).into())
    };
}

/// Whether a command is in PATH.
pub fn have(command: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(command).is_file()))
}

/// Skips the test when a command is not installed.
pub fn need(command: &str) -> anyhow::Result<()> {
    if !have(command) {
        skip!("{command} is not installed (scripts/setup installs it)");
    }
    Ok(())
}

/// Skips the test unless it runs as root.
pub fn need_root() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        skip!("needs root");
    }
    Ok(())
}

/// Copies a program, replacing what is there. Not by ourselves: a process that another test starts
/// meanwhile would inherit our descriptor for a moment, and execve would fail with ETXTBSY.
pub fn copy(from: &std::path::Path, to: &std::path::Path) -> anyhow::Result<()> {
    let status = std::process::Command::new("cp").arg("--remove-destination").args([from, to]).status();
    let status = status.context("cannot run cp")?;
    ensure!(status.success(), "cannot copy {} to {}", from.display(), to.display());
    Ok(())
}
