//! CRIU, where there is one that works: the same process is dumped and restored by it.

use crate::victim::{Heart, now_ns};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

#[derive(Debug)]
pub struct Criu(PathBuf);

impl Criu {
    /// It, if it works here, and a line that says so, or why not.
    pub fn find(option: Option<&Path>) -> (Option<Self>, String) {
        let program = option.unwrap_or(Path::new("criu"));
        match Command::new(program).arg("check").stdout(Stdio::null()).stderr(Stdio::null()).status() {
            Ok(status) if status.success() => {
                (Some(Self(program.into())), format!("CRIU: {}", program.display()))
            }
            Ok(_) => (None, format!("{}: `check` fails on this kernel, left out", program.display())),
            Err(_) => (None, "no CRIU found, left out (give one with --criu PATH)".into()),
        }
    }

    fn run(&self, action: &str, dir: &Path, more: &[&str]) -> Result<()> {
        let images = dir.join("criu");
        std::fs::create_dir_all(&images)?;
        let status = Command::new(&self.0)
            .args([action, "--shell-job", "-v0", "-D"])
            .arg(&images)
            .args(more)
            .stdin(Stdio::null())
            .status()
            .context("cannot run CRIU")?;
        ensure!(status.success(), "criu {action}: {status}");
        Ok(())
    }

    /// Seconds of a dump that leaves the process running.
    pub fn dump(&self, pid: u32, dir: &Path) -> Result<f64> {
        let start = Instant::now();
        self.run("dump", dir, &["--leave-running", "-t", &pid.to_string()])?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds to the first heartbeat; the process has ended before, so that its ids are free.
    pub fn restore(&self, dir: &Path) -> Result<f64> {
        let heart = Heart::open(dir)?;
        heart.clear_first()?;
        let start = now_ns();
        let pidfile = dir.join("criu-pid");
        let _ = std::fs::remove_file(&pidfile);
        let path = pidfile.to_str().context("path of the work directory is not UTF-8")?;
        self.run("restore", dir, &["--restore-detached", "--pidfile", path])?;
        let beat = loop {
            match heart.first() {
                beat if beat > start => break beat,
                0 => std::thread::yield_now(),
                _ => heart.clear_first()?,
            }
        };
        let pid = std::fs::read_to_string(&pidfile)?.trim().parse()?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
        while Path::new(&format!("/proc/{pid}")).exists() {
            std::thread::yield_now();
        }
        Ok((beat - start) as f64 * 1e-9)
    }
}
