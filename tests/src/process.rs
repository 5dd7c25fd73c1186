//! Processes that a test starts: output in files of its directory, killed when dropped.

use crate::{T, Who, procfs};
use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// A command about to be started by [`T::launch`].
#[derive(Debug)]
pub struct Launch<'t> {
    pub(crate) t: &'t T,
    name: String,
    prefix: Vec<OsString>,
    wrapper: Vec<OsString>,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    dir: PathBuf,
    who: Who,
    own_group: bool,
}

impl<'t> Launch<'t> {
    pub(crate) fn new(t: &'t T, name: &str, program: impl AsRef<OsStr>) -> Self {
        Self {
            t,
            name: name.to_owned(),
            prefix: Vec::new(),
            wrapper: Vec::new(),
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            stdin: None,
            stdout: None,
            stderr: None,
            dir: t.dir().to_owned(),
            who: t.who(),
            own_group: true,
        }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs through another command that ends in exec, e.g. `["setarch", "-R"]`.
    pub fn wrapper<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.wrapper.extend(words.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Runs through another command, before the change to the test's user.
    pub(crate) fn prefix(mut self, words: impl IntoIterator<Item = OsString>) -> Self {
        self.prefix.extend(words);
        self
    }

    pub(crate) fn program(mut self, program: impl AsRef<OsStr>) -> Self {
        self.program = program.as_ref().to_owned();
        self
    }

    pub(crate) fn is_other_user(&self) -> bool {
        !self.who.prefix().is_empty()
    }

    /// Default: /dev/null.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// Default: `NAME.out` in the test's directory.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// Default: `NAME.err` in the test's directory.
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stderr = Some(stderr.into());
        self
    }

    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = dir.as_ref().to_owned();
        self
    }

    /// Other than the test's own [`T::who`].
    pub fn who(mut self, who: Who) -> Self {
        self.who = who;
        self
    }

    /// Stays in the process group of the suite (needed for `setsid`, which must not be a leader).
    pub fn same_group(mut self) -> Self {
        self.own_group = false;
        self
    }

    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words = self.prefix.clone();
        words.extend(self.who.prefix());
        words.extend(self.wrapper.iter().cloned());
        words.push(self.program.clone());
        words.extend(self.args.iter().cloned());
        words
    }

    /// Starts it. Its pid is the one of the program: every wrapper execs.
    pub fn start(self) -> anyhow::Result<Proc> {
        let words = self.words();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(&self.dir).envs(self.env.iter().cloned());
        command.env("HOME", self.t.dir());
        if self.own_group {
            command.process_group(0);
        }
        let out = self.t.path(format!("{}.out", self.name));
        let err = self.t.path(format!("{}.err", self.name));
        command.stdin(self.stdin.unwrap_or_else(Stdio::null));
        command.stdout(match self.stdout {
            Some(stdio) => stdio,
            None => log_file(&out, self.who)?.into(),
        });
        command.stderr(match self.stderr {
            Some(stdio) => stdio,
            None => log_file(&err, self.who)?.into(),
        });
        // A process that another test starts has, until it executes something, what we had open for writing.
        let child = self.t.wait_for("end of writing to it", || match command.spawn() {
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => Ok(None),
            started => Ok(Some(started)),
        });
        let child = child?.with_context(|| format!("cannot start {words:?}"))?;
        self.t.register(&self.name, child.id() as i32);
        Ok(Proc { t: self.t.handle(), name: self.name, out, err, child, status: None })
    }
}

/// A log that the process may open again by its name after a restore, whoever it is.
fn log_file(path: &Path, who: Who) -> anyhow::Result<File> {
    let file = File::options()
        .append(true)
        .create(true)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    who.own(path)?;
    Ok(file)
}

/// A child of the test.
#[derive(Debug)]
pub struct Proc {
    t: crate::suite::Handle,
    name: String,
    out: PathBuf,
    err: PathBuf,
    child: Child,
    status: Option<ExitStatus>,
}

impl Proc {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What went to its standard output so far (unless that was redirected).
    pub fn stdout(&self) -> String {
        read_lossy(&self.out)
    }

    pub fn stderr(&self) -> String {
        read_lossy(&self.err)
    }

    pub fn take_stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    pub fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            procfs::signal(self.pid(), signal);
        }
    }

    /// Status when it has ended; it is reaped then.
    pub fn try_exit(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
            if self.status.is_some() {
                self.t.not_reaped.borrow_mut().remove(&self.pid());
            }
        }
        Ok(self.status)
    }

    /// Waits until it ends, within the deadline.
    pub fn wait_exit(&mut self) -> anyhow::Result<ExitStatus> {
        let t = self.t.clone();
        let what = format!("the end of {} (pid {})", self.name, self.pid());
        t.wait_for(&what, || self.try_exit())
    }

    /// Waits until it ends, with this exit code.
    pub fn expect_exit(&mut self, code: i32) -> anyhow::Result<()> {
        let status = self.wait_exit()?;
        if status.code() != Some(code) {
            bail!(
                "{}: {status}, expected exit status {code}\nstdout: {}\nstderr: {}",
                self.name,
                self.stdout(),
                self.stderr()
            );
        }
        Ok(())
    }

    /// Waits until it ends, killed by this signal.
    pub fn expect_signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        let status = self.wait_exit()?;
        if status.signal() != Some(signal as i32) {
            bail!("{}: {status}, expected death by {signal}\nstderr: {}", self.name, self.stderr());
        }
        Ok(())
    }

    /// Waits until /proc shows this state (`T` is stopped).
    pub fn wait_state(&self, state: char) -> anyhow::Result<()> {
        let what = format!("{} (pid {}) in state {state}", self.name, self.pid());
        self.t.wait_until(&what, || Ok(procfs::state(self.pid()) == Some(state)))
    }

    /// Fails unless the process is there, neither stopped nor traced nor a zombie.
    pub fn ensure_alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.try_exit()? {
            bail!("{} has ended: {status}\nstderr: {}", self.name, self.stderr());
        }
        Ok(())
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        if self.status.is_none() {
            let below = procfs::descendants(self.pid());
            let _ = self.child.kill();
            for pid in below {
                procfs::signal(pid, Signal::SIGKILL);
            }
            let _ = self.child.wait();
            self.t.not_reaped.borrow_mut().remove(&self.pid());
        }
    }
}

pub(crate) fn read_lossy(path: &Path) -> String {
    std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
}
