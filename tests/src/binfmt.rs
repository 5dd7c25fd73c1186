//! A suite with ckpt-restore as the kernel's handler of images, which others on this machine never see: in namespaces
//! of its own, as binfmt_misc belongs to a user namespace since Linux 6.7.

use crate::build;
use anyhow::{Context, bail, ensure};
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Set to 1: all images of a suite go through the handler. The suite that runs in the namespaces has it set to
/// "inside".
const VARIABLE: &str = "CKPT_TEST_BINFMT";

/// Mounts binfmt_misc, registers the handler `$2` by `$1`, becomes the rest. Run in a new mount namespace.
pub const REGISTER: &str = r#"
    mount -t binfmt_misc none /proc/sys/fs/binfmt_misc &&
    "$1" register --handler "$2" >/dev/null 2>&1 && "$1" status >/dev/null &&
    shift 2 && exec "$@""#;

/// Whether the suite is to run in the namespaces but does not yet.
pub fn is_wanted() -> bool {
    std::env::var(VARIABLE).is_ok_and(|v| v == "1")
}

/// Whether the suite runs there.
pub fn is_inside() -> bool {
    std::env::var(VARIABLE).is_ok_and(|v| v == "inside")
}

/// Runs this suite there.
pub fn run_suite() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(e) => {
            eprintln!("{VARIABLE}: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// All ids mean the same there, so that tests can be of two users; that takes root.
fn run() -> anyhow::Result<ExitCode> {
    ensure!(nix::unistd::geteuid().is_root(), "needs root");
    let (tool, handler) = (build::tool("ckpt-binfmt")?, build::tool("ckpt-restore")?);
    // Ids as large as usual: small ones cannot be told from other numbers. And a process group with an id in there.
    let inside = format!(
        "read -r _ && exec unshare --mount --ipc --pid --fork --kill-child --mount-proc setsid sh -c '\
         echo 10000 >/proc/sys/kernel/ns_last_pid && {REGISTER}' sh \"$@\""
    );
    let mut child = Command::new("unshare")
        .args(["--user", "sh", "-c", &inside, "sh"])
        .args([&tool, &handler])
        .args([std::env::current_exe()?])
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, "inside")
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot run unshare")?;
    let proc = format!("/proc/{}", child.id());
    let namespace = |of: &str| std::fs::read_link(format!("{of}/ns/user"));
    let own = namespace("/proc/self")?;
    while namespace(&proc).is_ok_and(|other| other == own) {
        if let Some(status) = child.try_wait()? {
            bail!("unshare: {status}");
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    for map in ["uid_map", "gid_map"] {
        let file = Path::new(&proc).join(map);
        std::fs::write(&file, "0 0 4294967295").with_context(|| file.display().to_string())?;
    }
    child.stdin.take().context("no stdin")?.write_all(b"\n")?;
    let status = child.wait()?;
    Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)))
}
