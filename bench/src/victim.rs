//! The programs under measurement: built once, driven through a shared page.

use crate::workloads::Workload;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Executables that the benchmarks use.
#[derive(Debug)]
pub struct Tools {
    pub dump: PathBuf,
    pub workload: PathBuf,
    pub limits: PathBuf,
}

impl Tools {
    /// Compiles the victims with `cc -static`, and `ckpt-dump` with cargo in release mode.
    pub fn build(dir: &Path) -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let compile = |name: &str| -> Result<PathBuf> {
            let out = dir.join(name);
            let source = manifest.join("victims").join(format!("{name}.c"));
            let status = Command::new("cc")
                .args(["-O2", "-static", "-pthread", "-o"])
                .arg(&out)
                .arg(&source)
                .status()
                .context("cannot run cc; install gcc and libc6-dev")?;
            ensure!(status.success(), "cc failed on {}", source.display());
            Ok(out)
        };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["build", "--release", "-q", "-p", "ckpt-dump"])
            .current_dir(manifest)
            .status()
            .context("cannot run cargo to build ckpt-dump")?;
        ensure!(status.success(), "building ckpt-dump failed");
        let dump = target_dir()?.join("release").join("ckpt-dump");
        ensure!(dump.exists(), "{} was not built", dump.display());
        Ok(Self { dump, workload: compile("workload")?, limits: compile("limits")? })
    }

    /// Bytes of the stub's segments in an image.
    pub fn stub_bytes() -> Result<u64> {
        Ok(elf_writer::stub::Stub::built_in()?.len())
    }

    /// Seconds printed by the limits program.
    pub fn limit(&self, args: &[&str]) -> Result<f64> {
        let output = Command::new(&self.limits).args(args).output()?;
        ensure!(output.status.success(), "limits {args:?} failed");
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }
}

/// The directory of this executable's profile's parent: cargo's target directory.
fn target_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    exe.parent().and_then(Path::parent).map(Path::to_path_buf).context("no target directory")
}

/// CLOCK_MONOTONIC in ns, as the victim's heartbeat.
pub fn now_ns() -> u64 {
    let t = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC");
    t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64
}

/// The page that the victim shares with us, read and written through its file.
#[derive(Debug)]
pub struct Heart {
    file: File,
}

impl Heart {
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("heart");
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        Ok(Self { file })
    }

    fn word(&self, index: u64) -> u64 {
        let mut bytes = [0; 8];
        match self.file.read_exact_at(&mut bytes, index * 8) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(_) => 0,
        }
    }

    /// Time of the last heartbeat, in ns of CLOCK_MONOTONIC.
    pub fn beat(&self) -> u64 {
        self.word(0)
    }

    pub fn ready(&self) -> bool {
        self.word(3) == 1
    }

    /// Has the victim note its next beat; [`Self::first`] gives it.
    pub fn clear_first(&self) -> Result<()> {
        Ok(self.file.write_all_at(&[0; 8], 32)?)
    }

    /// The first beat since [`Self::clear_first`], 0 before it.
    pub fn first(&self) -> u64 {
        self.word(4)
    }

    /// A new generation: whoever runs on from now on counts itself once.
    pub fn call_the_roll(&self) -> Result<()> {
        let generation = self.word(5) + 1;
        self.file.write_all_at(&0u64.to_le_bytes(), 48)?;
        Ok(self.file.write_all_at(&generation.to_le_bytes(), 40)?)
    }

    /// How many have counted themselves.
    pub fn up(&self) -> u64 {
        self.word(6)
    }

    /// Waits for the first beat after `since`.
    pub fn beat_after(&self, since: u64) -> Result<u64> {
        wait_for("a heartbeat", || Some(self.beat()).filter(|b| *b > since))
    }

    /// Has the victim do one of the limits and returns its time in seconds.
    pub fn ask(&self, what: u8) -> Result<f64> {
        self.request(what)?;
        wait_for("the victim's own measurement", || self.is_answered().then_some(()))?;
        Ok(self.word(2) as f64 * 1e-9)
    }

    /// As [`Self::ask`], without waiting.
    pub fn request(&self, what: u8) -> Result<()> {
        Ok(self.file.write_all_at(&u64::from(what).to_le_bytes(), 8)?)
    }

    pub fn is_answered(&self) -> bool {
        self.word(1) == 0
    }

    /// When it had read all of its memory (`t`), as [`now_ns`].
    pub fn answered_at(&self) -> u64 {
        self.word(7)
    }
}

/// Busy-waits: what is measured here is shorter than a sleep.
fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if start.elapsed() > Duration::from_secs(120) {
            bail!("waited 120 s for {what}");
        }
        std::hint::spin_loop();
    }
}

/// A running workload, killed when dropped.
#[derive(Debug)]
pub struct Running {
    pub child: Child,
    pub heart: Heart,
}

impl Running {
    pub fn start(tools: &Tools, dir: &Path, w: &Workload) -> Result<Self> {
        let heart_path = dir.join("heart");
        let _ = std::fs::remove_file(&heart_path);
        let heart = Heart::open(dir)?;
        let child = Command::new(&tools.workload)
            .arg(dir)
            .args([w.bytes.to_string(), w.pages.into(), w.vmas.to_string(), w.threads.to_string()])
            .args([w.fds.to_string(), w.processes.to_string(), w.reserved.to_string()])
            .stdin(Stdio::null())
            .spawn()?;
        let running = Self { child, heart };
        wait_for("the victim to be ready", || running.heart.ready().then_some(()))?;
        Ok(running)
    }
}

impl Running {
    /// Ends it, and waits until its ids are free.
    pub fn end(&mut self) {
        end_tree(&mut self.child);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Kills a child of ours, and all below it, and waits until their ids are free: the program may outlive a supervisor
/// that is killed.
pub fn end_tree(child: &mut Child) {
    let below = descendants(child.id());
    let _ = child.kill();
    let _ = child.wait();
    for pid in &below {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
    let patience = Instant::now() + Duration::from_millis(300);
    // They are ours now (PR_SET_CHILD_SUBREAPER): the init of some containers reaps but now and then.
    let is_there = |pid: &u32| {
        let _ = waitpid(Pid::from_raw(pid.cast_signed()), Some(WaitPidFlag::WNOHANG));
        Path::new(&format!("/proc/{pid}")).exists()
    };
    while below.iter().any(is_there) && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn descendants(pid: u32) -> Vec<u32> {
    let mut all = children(pid);
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        all.extend(children(*pid));
        at += 1;
    }
    all
}

pub fn children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|c| c.parse().ok()).collect()
}
