//! The directory of one test.

use anyhow::Context;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A fresh directory under TMPDIR; removed on drop unless [`WorkDir::keep`] was called.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    keep: std::cell::Cell<bool>,
}

impl WorkDir {
    /// Makes `TMPDIR/ckpt-tests/PID-N-NAME`, reachable by other users.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let parent = std::env::temp_dir().join(format!("ckpt-tests-{}", nix::unistd::geteuid()));
        std::fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
        // One that was kept may be of a suite with the same id: in a namespace that is 1.
        let path = loop {
            let n = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{}-{n}-{name}", std::process::id()));
            match std::fs::create_dir(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).with_context(|| format!("cannot make {}", path.display())),
                Ok(()) => break path,
            }
        };
        Ok(Self { path, keep: std::cell::Cell::new(std::env::var_os("CKPT_TEST_KEEP").is_some()) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the directory for a look at it.
    pub fn keep(&self) {
        self.keep.set(true);
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if !self.keep.get() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
