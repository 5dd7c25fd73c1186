//! File systems that a test has for itself.

use crate::{T, TestResult, ensure, have, need_root, skip};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One in a file `disk` of the test's directory, mounted at `mnt`; unmounted when dropped.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// `mkfs`: the command that makes it (`mkfs.xfs`). Skips the test where there can be none.
    pub fn new(t: &T, mkfs: &str) -> anyhow::Result<Self> {
        need_root()?;
        if !have(mkfs) && !Path::new("/usr/sbin").join(mkfs).exists() {
            skip!("no {mkfs}");
        }
        let (file, dir) = (t.path("disk"), t.path("mnt"));
        std::fs::File::create(&file)?.set_len(1 << 30)?;
        run(Command::new(mkfs).arg("-q").arg(&file).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))?;
        std::fs::create_dir(&dir)?;
        if let Err(e) = run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&dir)) {
            skip!("cannot mount a file: {e}");
        }
        Ok(Self(dir))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(command: &mut Command) -> TestResult {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
