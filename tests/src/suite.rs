//! Suites and the context that each test gets.

use crate::{Dump, Launch, Restore, Skip, Terminal, VictimLaunch, WorkDir, procfs};
use anyhow::{Context, bail};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub type TestResult = anyhow::Result<()>;

/// Uid and gid of [`Who::User`] when the suite runs as root. Not 65534, which is also what ids that
/// have no mapping look like.
const USER: u32 = 1000;

/// On whose behalf a program is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever runs the suite.
    Me,
    /// An ordinary user without capabilities; the same as `Me` when that is not root.
    User,
}

impl Who {
    pub(crate) fn prefix(self) -> Vec<OsString> {
        let user = USER.to_string();
        match self {
            Self::User if nix::unistd::geteuid().is_root() => {
                ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "--inh-caps=-all", "--"]
                    .map(OsString::from)
                    .to_vec()
            }
            _ => Vec::new(),
        }
    }

    /// Gives a file or directory to this user.
    pub fn own(self, path: &Path) -> anyhow::Result<()> {
        if self == Self::User && nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(path, Some(USER), Some(USER))
                .with_context(|| format!("cannot chown {}", path.display()))?;
        }
        Ok(())
    }
}

/// The tests of one program.
#[derive(Debug)]
pub struct Suite {
    name: &'static str,
    trials: Vec<Trial>,
    alone: bool,
}

impl Suite {
    /// `name` is the cargo name of the test target: it appears in the command that repeats a test.
    pub fn new(name: &'static str) -> Self {
        Self { name, trials: Vec::new(), alone: false }
    }

    /// For tests that would be in each other's way.
    pub fn one_at_a_time(&mut self) -> &mut Self {
        self.alone = true;
        self
    }

    /// Adds a test that runs as whoever runs the suite.
    pub fn test(
        &mut self,
        name: impl Into<String>,
        body: impl FnOnce(&T) -> TestResult + Send + 'static,
    ) -> &mut Self {
        self.test_as(Who::Me, name, body)
    }

    /// Adds a test whose programs (victim, dumper, image) run as an ordinary user.
    pub fn test_as(
        &mut self,
        who: Who,
        name: impl Into<String>,
        body: impl FnOnce(&T) -> TestResult + Send + 'static,
    ) -> &mut Self {
        let name = name.into();
        let suite = self.name;
        let title = name.clone();
        self.trials.push(Trial::ignorable_test(title, move || run_one(suite, &name, who, body)));
        self
    }

    /// Runs what the command line selects (the options of `cargo test -- ...`).
    pub fn run(self) -> ExitCode {
        default_signals();
        close_inherited();
        if crate::binfmt::is_wanted() {
            return crate::binfmt::run_suite();
        }
        // Orphans become ours, to be reaped at once: some init takes a second, and their ids are wanted.
        let _ = nix::sys::prctl::set_child_subreaper(true);
        let mut args = Arguments::from_args();
        if self.alone {
            args.test_threads = Some(1);
        }
        // Not while a victim waits, which does not do so for ever. Tests say what failed.
        if !args.list {
            let _ = crate::build::tool("ckpt-dump");
        }
        libtest_mimic::run(&args, self.trials).exit_code()
    }
}

/// Names of a process that is to become the program: the image's, with the handler those of its restorer, too.
fn is_restoring(comm: &str) -> bool {
    let descriptor = comm.bytes().all(|b| b.is_ascii_digit());
    comm.ends_with(".ckpt") || comm.starts_with("memfd:") || comm.starts_with("ckpt-") || descriptor
}

/// What runs in the background of a script, or under nohup, ignores signals, and so would the victims: begins anew without
/// that.
fn default_signals() {
    use std::os::unix::process::CommandExt;
    const SIGNALS: [(u32, &str); 4] = [(1, "HUP"), (2, "INT"), (3, "QUIT"), (15, "TERM")];
    let ignored = procfs::status(std::process::id() as i32, "SigIgn");
    let ignored = ignored.and_then(|set| u64::from_str_radix(&set, 16).ok()).unwrap_or(0);
    let names: Vec<&str> =
        SIGNALS.iter().filter(|(n, _)| ignored & 1 << (n - 1) != 0).map(|(_, n)| *n).collect();
    if !names.is_empty() && std::env::var_os("CKPT_SIGNALS_RESET").is_none() {
        let mut again = std::process::Command::new("env");
        again.arg(format!("--default-signal={}", names.join(","))).arg("CKPT_SIGNALS_RESET=1");
        let error = again.args(std::env::args_os()).exec();
        eprintln!("cannot reset ignored signals: env: {error}");
    }
}

/// Closes what our caller left open beyond stdio: victims would inherit it.
fn close_inherited() {
    for (fd, _) in procfs::fds(std::process::id() as i32) {
        if fd > 2 {
            let _ = nix::unistd::close(fd);
        }
    }
}

fn run_one(
    suite: &str,
    name: &str,
    who: Who,
    body: impl FnOnce(&T) -> TestResult,
) -> Result<Completion, Failed> {
    let t = T::new(&name.replace(['/', ':', ' '], "_"), who).map_err(|e| format!("{e:#}"))?;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&t)));
    t.remove_sysv();
    let error = match outcome {
        Ok(Ok(())) => return Ok(Completion::Completed),
        Ok(Err(error)) => match error.downcast::<Skip>() {
            Ok(Skip(reason)) => {
                // Also when output is not shown otherwise: a skip must be seen.
                eprintln!("{suite}: {name}: skipped: {reason}");
                return Ok(Completion::ignored_with(reason));
            }
            Err(error) => format!("{error:#}"),
        },
        Err(panic) => match panic.downcast_ref::<String>() {
            Some(text) => text.clone(),
            None => panic.downcast_ref::<&str>().unwrap_or(&"panic").to_string(),
        },
    };
    t.0.dir.keep();
    Err(format!(
        "{error}\n\n{}\ndirectory: {}\nagain:     cargo test -p ckpt-tests --test {suite} -- --exact '{name}'",
        t.logs(),
        t.dir().display()
    )
    .into())
}

/// Context of a running test. Everything in it lives in the test's own directory.
#[derive(Debug)]
pub struct T(Rc<Inner>);

pub(crate) type Handle = Rc<Inner>;

#[derive(Debug)]
pub struct Inner {
    dir: WorkDir,
    who: Who,
    started: std::cell::RefCell<Vec<(String, i32)>>,
    /// Our own children.
    pub(crate) not_reaped: std::cell::RefCell<std::collections::HashSet<i32>>,
    counts: std::cell::RefCell<std::collections::HashMap<&'static str, u32>>,
    deadline: Duration,
}

impl Inner {
    /// Polls until `condition` gives a value; fails after the deadline, telling what was seen.
    pub fn wait_for<R>(
        &self,
        what: &str,
        mut condition: impl FnMut() -> anyhow::Result<Option<R>>,
    ) -> anyhow::Result<R> {
        let start = Instant::now();
        let mut interval = Duration::from_micros(200);
        loop {
            if let Some(value) = condition().with_context(|| format!("while waiting for {what}"))? {
                return Ok(value);
            }
            if start.elapsed() > self.deadline {
                bail!("no {what} after {:?}\n{}", self.deadline, self.describe());
            }
            std::thread::sleep(interval);
            interval = (interval * 2).min(Duration::from_millis(10));
        }
    }

    pub fn wait_until(
        &self,
        what: &str,
        mut condition: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        self.wait_for(what, || Ok(condition()?.then_some(())))
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for (name, pid) in self.started.borrow().iter() {
            text += &procfs::describe(name, *pid);
            for below in procfs::descendants(*pid) {
                text += &procfs::describe(&format!("  below {name}"), below);
            }
        }
        text
    }
}

impl T {
    fn new(name: &str, who: Who) -> anyhow::Result<Self> {
        let dir = WorkDir::new(name)?;
        who.own(dir.path())?;
        let seconds = std::env::var("CKPT_TEST_DEADLINE").ok().and_then(|s| s.parse().ok()).unwrap_or(90);
        Ok(Self(Rc::new(Inner {
            dir,
            who,
            started: std::cell::RefCell::default(),
            not_reaped: std::cell::RefCell::default(),
            counts: std::cell::RefCell::default(),
            deadline: Duration::from_secs(seconds),
        })))
    }

    /// Removes the System V objects that outlived those who made them (`sysv.h` of the victims).
    fn remove_sysv(&self) {
        let noted = std::fs::read_to_string(self.path("sysv")).unwrap_or_default();
        for (option, id) in noted.lines().filter_map(|line| line.split_once(' ')) {
            // Most are gone, and so it fails.
            let _ = std::process::Command::new("ipcrm").args([option, id]).output();
        }
    }

    pub(crate) fn handle(&self) -> Handle {
        self.0.clone()
    }

    pub(crate) fn register(&self, name: &str, pid: i32) {
        self.0.not_reaped.borrow_mut().insert(pid);
        self.0.started.borrow_mut().push((name.to_owned(), pid));
    }

    /// Numbers the logs of commands of the same kind.
    pub(crate) fn count(&self, kind: &'static str) -> u32 {
        let mut counts = self.0.counts.borrow_mut();
        let n = counts.entry(kind).or_default();
        *n += 1;
        *n
    }

    /// The test's directory: also CKPT_DIR of victims, current directory and HOME of everything.
    pub fn dir(&self) -> &Path {
        self.0.dir.path()
    }

    pub fn who(&self) -> Who {
        self.0.who
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir().join(name)
    }

    pub fn deadline(&self) -> Duration {
        self.0.deadline
    }

    /// Writes a file of the test's directory, owned by the test's user.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        self.who().own(&path)?;
        Ok(path)
    }

    /// Reads a file of the test's directory.
    pub fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.path(name);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn wait_until(&self, what: &str, condition: impl FnMut() -> anyhow::Result<bool>) -> TestResult {
        self.0.wait_until(what, condition)
    }

    pub fn wait_for<R>(
        &self,
        what: &str,
        condition: impl FnMut() -> anyhow::Result<Option<R>>,
    ) -> anyhow::Result<R> {
        self.0.wait_for(what, condition)
    }

    /// Waits for a file of the test's directory.
    pub fn wait_file(&self, name: &str) -> TestResult {
        self.wait_until(&format!("file {name}"), || Ok(self.path(name).exists()))
    }

    /// Any program. `name` names its logs.
    pub fn launch(&self, name: &str, program: impl AsRef<OsStr>) -> Launch<'_> {
        Launch::new(self, name, program)
    }

    /// `tests/victims/NAME.c`.
    pub fn victim(&self, name: &str) -> VictimLaunch<'_> {
        VictimLaunch::new(self, name)
    }

    /// `ckpt-dump PID -o saved.ckpt`.
    pub fn dump(&self, pid: i32) -> Dump<'_> {
        Dump::new(self, pid)
    }

    /// Runs an image of the test's directory.
    pub fn restore(&self, image: &str) -> Restore<'_> {
        Restore::new(self, image)
    }

    /// A new pseudo-terminal.
    pub fn terminal(&self) -> anyhow::Result<Terminal> {
        Terminal::open(self.handle())
    }

    /// Tells the victim to verify and to end.
    pub fn go(&self) -> TestResult {
        self.tell("go")
    }

    /// Creates an empty file in one step: a victim may take it away at once.
    pub fn tell(&self, name: &str) -> TestResult {
        let new = self.write(&format!(".{name}.new"), "")?;
        Ok(std::fs::rename(new, self.path(name))?)
    }

    /// Waits for a sign of life of a victim in `wait_go()`.
    pub fn ping(&self) -> TestResult {
        self.tell("ping")?;
        self.wait_file("pong")?;
        std::fs::remove_file(self.path("pong"))?;
        Ok(())
    }

    /// Waits until a process restored in place is itself: renamed, not traced, helper gone.
    pub fn wait_restored(&self, proc: &mut crate::Proc) -> TestResult {
        let pid = proc.pid();
        let me = procfs::exe_name(std::process::id() as i32);
        self.wait_until("the program in place of the image", || {
            proc.ensure_alive()?;
            // A child is known to its parent before its exec has changed its name.
            let before = procfs::exe_name(pid);
            let before = before == me || before.as_deref() == Some("setpriv");
            Ok(!before
                && procfs::comm(pid).is_some_and(|comm| !is_restoring(&comm))
                && procfs::status(pid, "TracerPid").as_deref() == Some("0")
                && procfs::group(pid) == [pid])
        })
    }

    /// Waits until nothing of a restored tree is traced any more.
    pub fn wait_untraced(&self, proc: &crate::Proc) -> TestResult {
        self.wait_until("the end of the trace", || {
            let traced = |pid: i32| procfs::status(pid, "TracerPid").is_some_and(|tracer| tracer != "0");
            Ok(!procfs::descendants(proc.pid()).into_iter().any(traced))
        })
    }

    /// Waits until these processes are gone, so that their ids are free; zombies are not.
    pub fn wait_gone(&self, pids: &[i32]) -> TestResult {
        self.wait_none(|| pids.iter().copied().filter(|&p| procfs::state(p).is_some()).collect())
    }

    /// The same for all that is in a process group, and what they may still make.
    pub fn wait_group_gone(&self, pgid: i32) -> TestResult {
        let of_group = |&p: &i32| procfs::stat_field(p, 5) == Some(pgid.into());
        self.wait_none(|| procfs::all().into_iter().filter(of_group).collect())
    }

    /// Waits until there are no such processes; reaps those that the suite has adopted.
    fn wait_none(&self, left: impl Fn() -> Vec<i32>) -> TestResult {
        let gone = self.wait_until("the end of all processes", || {
            let left = left();
            let own = self.0.not_reaped.borrow();
            left.iter().copied().filter(|pid| !own.contains(pid)).for_each(procfs::reap);
            Ok(left.is_empty())
        });
        gone.with_context(|| {
            left().into_iter().map(|p| procfs::describe("still there", p)).collect::<String>()
        })
    }

    /// Fails unless the victim wrote that all is well.
    pub fn expect_ok(&self) -> TestResult {
        let result = self.read("result").unwrap_or_else(|e| format!("{e:#}"));
        if result != "ok" {
            bail!("the victim says: {result}");
        }
        Ok(())
    }

    /// The ends of all logs, for the failure report.
    fn logs(&self) -> String {
        let mut text = String::new();
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(self.dir()).into_iter().flatten().flatten().map(|e| e.path()).collect();
        files.sort();
        for path in files {
            let is_log = path.extension().is_some_and(|e| e == "out" || e == "err" || e == "log");
            let content = if is_log { crate::process::read_lossy(&path) } else { String::new() };
            if content.is_empty() {
                continue;
            }
            let start = content.len().saturating_sub(3000);
            let start = (start..=content.len()).find(|&i| content.is_char_boundary(i)).unwrap_or(0);
            text += &format!("--- {}\n{}\n", path.display(), content[start..].trim_end());
        }
        text
    }
}
