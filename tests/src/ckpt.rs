//! `ckpt-dump` and images as commands.

use crate::{Launch, Proc, T, TestResult, Who, build};
use anyhow::{Context, bail, ensure};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

/// `ckpt-dump` about to be run.
#[derive(Debug)]
pub struct Dump<'t> {
    launch: Launch<'t>,
    image: PathBuf,
    pid: i32,
}

/// What a run of `ckpt-dump` gave.
#[derive(Debug)]
pub struct Dumped {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub image: PathBuf,
}

impl<'t> Dump<'t> {
    pub(crate) fn new(t: &'t T, pid: i32) -> Self {
        let n = t.count("dump");
        Self { launch: t.launch(&format!("dump{n}"), "ckpt-dump"), image: t.path("saved.ckpt"), pid }
    }

    /// Default `saved.ckpt` in the test's directory.
    pub fn output(mut self, image: impl Into<PathBuf>) -> Self {
        let image = image.into();
        self.image = if image.is_absolute() { image } else { self.launch.t.path(image) };
        self
    }

    pub fn kill(self) -> Self {
        self.arg("--kill")
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.launch = self.launch.arg(arg);
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.launch = self.launch.args(args);
        self
    }

    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.launch = self.launch.env(key, value);
        self
    }

    pub fn who(mut self, who: Who) -> Self {
        self.launch = self.launch.who(who);
        self
    }

    pub fn with(mut self, change: impl FnOnce(Launch<'t>) -> Launch<'t>) -> Self {
        self.launch = change(self.launch);
        self
    }

    /// Starts it without waiting.
    pub fn start(self) -> anyhow::Result<Proc> {
        let tool = build::tool("ckpt-dump")?;
        let t = self.launch.t;
        let program = if self.launch.is_other_user() {
            // The target directory may be closed to that user.
            let copy = t.path("ckpt-dump");
            if !copy.exists() {
                crate::copy(&tool, &copy)?;
            }
            copy
        } else {
            tool
        };
        let launch = self.launch.program(program);
        launch.arg(self.pid.to_string()).arg("-o").arg(&self.image).start()
    }

    /// Runs it to its end, whatever that is.
    pub fn run(self) -> anyhow::Result<Dumped> {
        let image = self.image.clone();
        let mut proc = self.start()?;
        let status = proc.wait_exit()?;
        Ok(Dumped { code: status.code(), stdout: proc.stdout(), stderr: proc.stderr(), image })
    }

    /// Runs it; fails unless it succeeds.
    pub fn ok(self) -> anyhow::Result<Dumped> {
        let dumped = self.run()?;
        if dumped.code != Some(0) {
            bail!("ckpt-dump: exit status {:?}\n{}", dumped.code, dumped.stderr);
        }
        Ok(dumped)
    }

    /// Runs it; fails unless it refuses with this exit code, words (any case) in its message, and
    /// leaves no file.
    pub fn refused(self, code: i32, words: &[&str]) -> anyhow::Result<Dumped> {
        let t_dir = self.launch.t.dir();
        let dumped = self.run()?;
        let text = dumped.stderr.to_lowercase();
        if dumped.code != Some(code) {
            bail!("ckpt-dump: exit status {:?}, expected {code}\n{}", dumped.code, dumped.stderr);
        }
        for word in words {
            if !text.contains(&word.to_lowercase()) {
                bail!("ckpt-dump: the message does not mention {word:?}:\n{}", dumped.stderr);
            }
        }
        if !text.contains("ckpt-dump: ") || text.contains("panicked") {
            bail!("ckpt-dump: no proper message:\n{}", dumped.stderr);
        }
        if let Some(parent) = dumped.image.parent() {
            let name = dumped.image.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
                let found = entry.file_name().to_string_lossy().into_owned();
                let stray = parent == t_dir && (found.contains(".tmp") || found.contains("partial"));
                if found.contains(&name) || stray {
                    bail!("ckpt-dump: left {found} behind");
                }
            }
        }
        Ok(dumped)
    }
}

/// An image about to be run.
#[derive(Debug)]
pub struct Restore<'t> {
    launch: Launch<'t>,
    same: bool,
}

impl<'t> Restore<'t> {
    pub(crate) fn new(t: &'t T, image: &str) -> Self {
        let n = t.count("restore");
        Self { launch: t.launch(&format!("restore{n}"), t.path(image)), same: false }
    }

    /// `auto`, `same`, `new` or `ns`.
    pub fn pid(mut self, mode: &str) -> Self {
        self.same = mode == "same";
        self.arg("--pid").arg(mode)
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.launch = self.launch.arg(arg);
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.launch = self.launch.args(args);
        self
    }

    pub fn who(mut self, who: Who) -> Self {
        self.launch = self.launch.who(who);
        self
    }

    pub fn with(mut self, change: impl FnOnce(Launch<'t>) -> Launch<'t>) -> Self {
        self.launch = change(self.launch);
        self
    }

    /// Starts it. `--pid same` needs a privilege: skips the test of an ordinary user.
    pub fn start(self) -> anyhow::Result<Proc> {
        if self.same {
            crate::need_root()?;
        }
        self.launch.start()
    }

    /// Runs the image; fails unless it refuses (exit status 125) with these words in its message.
    pub fn refused(self, words: &[&str]) -> TestResult {
        let mut proc = self.launch.start()?;
        let status = proc.wait_exit()?;
        let text = proc.stderr();
        if status.code() != Some(125) || !text.contains("ckpt: ") {
            bail!("image: {status}, expected a refusal (125)\n{text}");
        }
        for word in words {
            if !text.to_lowercase().contains(&word.to_lowercase()) {
                bail!("image: the message does not mention {word:?}:\n{text}");
            }
        }
        Ok(())
    }
}

impl T {
    /// Fails unless all checksums of an image are right, and it goes on as it should.
    pub fn expect_good(&self, image: &str) -> TestResult {
        let info = Command::new(build::tool("ckpt-info")?).arg("--verify").arg(self.path(image)).output()?;
        ensure!(info.status.success(), "{info:?}");
        let mut restored = self.restore(image).pid("ns").start()?;
        self.go()?;
        let ended = restored.expect_exit(0);
        self.expect_ok().and(ended)
    }

    /// Size of an image in bytes.
    pub fn image_size(&self, image: &str) -> anyhow::Result<u64> {
        Ok(self.path(image).metadata().with_context(|| format!("no {image}"))?.len())
    }
}

/// Names of the dumper's fail points, as documented in its source.
pub fn failpoints() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../dumper/src/failpoint.rs");
    let source = std::fs::read_to_string(path).unwrap_or_default();
    let doc: Vec<&str> = source.lines().take_while(|l| l.starts_with("//!")).collect();
    let doc = doc.join(" ");
    let names = doc.split_once("Names").map_or("", |(_, names)| names);
    let names = names.split('`').skip(1).step_by(2).filter(|name| !name.contains('#'));
    // These are not passed by every dump.
    let some = ["copy-", "running", "open-", "track-"];
    let names = names.filter(|name| !some.iter().any(|prefix| name.starts_with(prefix)));
    // Those inside of calls are passed several times: the first call maps our memory.
    names
        .flat_map(|name| match name.starts_with("call-") || name.starts_with("batch-") {
            true => vec![name.to_owned(), format!("{name}#3")],
            false => vec![name.to_owned()],
        })
        .collect()
}
