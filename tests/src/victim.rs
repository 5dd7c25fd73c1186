//! Starting victims.

use crate::build::{self, Variant};
use crate::{Launch, Proc, T, TestResult, Who};
use std::ffi::OsStr;

/// A victim about to be started.
#[derive(Debug)]
pub struct VictimLaunch<'t> {
    name: String,
    variant: Variant,
    wait_ready: bool,
    launch: Launch<'t>,
}

impl<'t> VictimLaunch<'t> {
    pub(crate) fn new(t: &'t T, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            variant: Variant::default(),
            wait_ready: true,
            launch: t.launch(name, t.path(name)).env("CKPT_DIR", t.dir()),
        }
    }

    pub fn variant(mut self, variant: Variant) -> Self {
        self.variant = variant;
        self
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

    /// Whatever else [`Launch`] can do.
    pub fn with(mut self, change: impl FnOnce(Launch<'t>) -> Launch<'t>) -> Self {
        self.launch = change(self.launch);
        self
    }

    /// Does not wait for the victim's `ready()`.
    pub fn no_wait(mut self) -> Self {
        self.wait_ready = false;
        self
    }

    /// Compiles it, starts it, and waits until it is ready to be dumped. A victim that cannot show its
    /// behaviour here (it calls `skip()`) skips the test.
    pub fn start(self) -> anyhow::Result<Proc> {
        let t = self.launch.t;
        let exe = build::victim(&self.name, self.variant)?;
        // Into the test's directory: the target directory may be closed to the ordinary user.
        crate::copy(&exe, &t.path(&self.name))?;
        let mut proc = self.launch.start()?;
        if self.wait_ready {
            wait_ready(t, &mut proc)?;
        }
        Ok(proc)
    }
}

/// Waits for `ready()`; skips the test when the victim says so.
fn wait_ready(t: &T, proc: &mut Proc) -> TestResult {
    t.wait_until("the victim's ready()", || {
        if t.path("ready").exists() {
            return Ok(true);
        }
        if let Some(status) = proc.try_exit()? {
            if status.code() == Some(77) {
                crate::skip!("{}", t.read("result")?.trim_start_matches("skip: "));
            }
            crate::bail!("the victim ended before it was ready: {status}\n{}", proc.stderr());
        }
        Ok(false)
    })
}
