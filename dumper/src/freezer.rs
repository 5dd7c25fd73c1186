//! Stopping a whole cgroup at once (`--freeze-cgroup`), and seeing that one is stopped. Only version 2: tasks
//! frozen by it can be traced, and stop for us, while they are (Documentation/admin-guide/cgroup-v2.rst,
//! cgroup.freeze; kernel/signal.c, do_freezer_trap, Linux 6.18).

use crate::sys::guard::LastWill;
use anyhow::{Context, Result, bail};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a cgroup may take to freeze: as for threads, only uninterruptible sleep takes longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A frozen cgroup. Dropping it makes it what it was before, and so does our death.
#[derive(Debug)]
pub struct Freezer {
    dir: PathBuf,
    was_frozen: bool,
    /// Makes it what it was should we be killed.
    guard: LastWill,
}

impl Freezer {
    /// Freezes the cgroup at `dir`, which process `root` must be in and we must not, and waits until it is.
    ///
    /// # Errors
    /// With a remedy; the cgroup is what it was.
    pub fn freeze(dir: &Path, root: i32) -> Result<Self> {
        let shown = dir.display();
        let state = dir.join("cgroup.freeze");
        if dir.join("freezer.state").exists() {
            bail!(
                "--freeze-cgroup {shown}: a freezer of cgroup version 1, of which tasks cannot be traced; leave the option out"
            );
        }
        let before = fs::read_to_string(&state).with_context(|| {
            format!("--freeze-cgroup {shown}: not a cgroup (version 2) that can be frozen")
        })?;
        let members =
            members(dir).with_context(|| format!("--freeze-cgroup {shown}: listing its processes"))?;
        if members.contains(&(std::process::id() as i32)) {
            bail!("--freeze-cgroup {shown}: ckpt-dump itself is in it; run it from elsewhere");
        }
        if !members.contains(&root) {
            bail!("--freeze-cgroup {shown}: PID {root} is not in it; see /proc/{root}/cgroup");
        }
        let was_frozen = before.trim() == "1";
        let file = fs::File::options().write(true).open(&state).with_context(|| not_permitted(&state))?;
        let will = if was_frozen { b"1" } else { b"0" };
        let guard = LastWill::new(file, will)
            .context("starting a process that thaws the cgroup should we be killed")?;
        let freezer = Self { dir: dir.into(), was_frozen, guard };
        freezer.write(true)?;
        freezer.wait_frozen()?;
        Ok(freezer)
    }

    fn write(&self, frozen: bool) -> Result<()> {
        let state = self.dir.join("cgroup.freeze");
        fs::write(&state, if frozen { "1" } else { "0" }).with_context(|| not_permitted(&state))
    }

    fn wait_frozen(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_frozen(&self.dir) {
            if Instant::now() > deadline {
                let (dir, s) = (self.dir.display(), PATIENCE.as_secs());
                bail!(
                    "--freeze-cgroup {dir}: not frozen after {s} s; a process in it is in uninterruptible sleep"
                );
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Thaws it, now that all processes of the tree are stopped by us: they could not run system calls for us.
    ///
    /// # Errors
    /// When it was frozen before, and others than `tree` would run; when an ancestor is frozen as well.
    pub fn thaw(&self, tree: &HashSet<i32>) -> Result<()> {
        let dir = self.dir.display();
        if self.was_frozen {
            let others: Vec<i32> =
                members(&self.dir)?.into_iter().filter(|pid| !tree.contains(pid)).collect();
            if let Some(other) = others.first() {
                bail!(
                    "--freeze-cgroup {dir}: it was frozen before, and PID {other}, which is not dumped, would run on \
                     meanwhile; thaw it yourself (echo 0 > {dir}/cgroup.freeze)"
                );
            }
        }
        self.write(false)?;
        if is_frozen(&self.dir) {
            bail!("--freeze-cgroup {dir}: a cgroup above it is frozen; name that one");
        }
        Ok(())
    }

    /// What it was before: before anybody is let go.
    pub fn restore(&mut self) {
        self.guard.execute();
    }
}

fn not_permitted(state: &Path) -> String {
    format!(
        "--freeze-cgroup: writing {}; it must be yours (systemd: Delegate=yes), or be root",
        state.display()
    )
}

fn is_frozen(dir: &Path) -> bool {
    let events = fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "frozen 1")
}

/// Processes in it and all below it.
fn members(dir: &Path) -> std::io::Result<HashSet<i32>> {
    let mut all: HashSet<i32> =
        fs::read_to_string(dir.join("cgroup.procs"))?.lines().filter_map(|l| l.parse().ok()).collect();
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            // One that has just gone has no processes.
            all.extend(members(&entry.path()).unwrap_or_default());
        }
    }
    Ok(all)
}

/// The frozen cgroup that process `pid` is in, and what thaws it. Looks only where cgroups are usually mounted.
#[must_use]
pub fn frozen_by(pid: i32) -> Option<(PathBuf, &'static str)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let below = |root: &str| Path::new(root).join(path.trim_start_matches('/'));
        if controllers.is_empty() {
            let dirs = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(below);
            return dirs.into_iter().find(|dir| is_frozen(dir)).map(|dir| {
                (dir, "--freeze-cgroup with its directory, or echo 0 > cgroup.freeze there (docker unpause)")
            });
        }
        let dir = below("/sys/fs/cgroup/freezer");
        let state =
            (controllers == "freezer").then(|| fs::read_to_string(dir.join("freezer.state")).ok())??;
        (state.trim() != "THAWED").then_some((dir, "echo THAWED > freezer.state there (docker unpause)"))
    })
}
