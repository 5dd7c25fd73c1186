//! All or nothing: whatever goes wrong with one process of many, the tree that was dumped is unharmed, and
//! of a tree that cannot be restored nothing remains.

use ckpt_tests::{Context, Error, Proc, Suite, T, TestResult, Who, ensure, failpoints, need_root, procfs};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("tree_faults");
    for name in failpoints() {
        let name: &'static str = name.leak();
        suite.test(format!("fault::{name}"), move |t| fault(t, name, false));
        suite.test(format!("fault::{name}::killed"), move |t| fault(t, name, true));
    }
    suite.test("unsupported_in_a_grandchild", unsupported);
    suite.test("child_killed_while_dumped", vanished);
    for mode in ["same", "ns"] {
        suite.test(format!("file_of_a_grandchild_missing::{mode}"), move |t| missing(t, mode));
        suite.test(format!("one_killed_while_restored::{mode}"), move |t| killed(t, mode, false));
        suite.test(format!("supervisor_killed_while_restored::{mode}"), move |t| killed(t, mode, true));
    }
    suite.test_as(Who::User, "file_of_a_grandchild_missing::user", |t| missing(t, "auto"));
    suite.test_as(Who::User, "process_limit", limit);
    suite.run()
}

fn files(t: &T) -> Result<Vec<String>, Error> {
    Ok(std::fs::read_dir(t.dir())?.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
}

/// The tree goes on as if nothing had been.
fn unharmed(t: &T, mut victim: Proc, status: i32) -> TestResult {
    t.tell("ping")?;
    t.wait_until("sign of life of the target", || {
        victim.ensure_alive()?;
        Ok(t.path("pong").exists())
    })?;
    t.go()?;
    victim.expect_exit(status)?;
    t.expect_ok()
}

fn fault(t: &T, name: &str, kill: bool) -> TestResult {
    let victim = t.victim("tree_family").start()?;
    let before = files(t)?;
    let value = if kill { format!("{name}=kill") } else { name.to_owned() };
    let dumped = t.dump(victim.pid()).env("CKPT_FAILPOINT", value).run()?;
    if kill {
        ensure!(dumped.code.is_none(), "it was not killed: {dumped:?}");
    } else {
        ensure!(matches!(dumped.code, Some(1..=7)), "exit status {:?}: {}", dumped.code, dumped.stderr);
    }
    let mut left = files(t)?;
    left.retain(|f| !before.contains(f) && !f.starts_with("dump1."));
    ensure!(left.is_empty(), "left behind: {left:?}");
    t.wait_untraced(&victim)?;
    t.wait_until("the end of the trace", || {
        Ok(procfs::status(victim.pid(), "TracerPid").as_deref() == Some("0"))
    })?;
    unharmed(t, victim, 0)
}

/// The refusal says which process it is about.
fn unsupported(t: &T) -> TestResult {
    let victim = t.victim("tree_ends").args(["exit", "odd"]).start()?;
    let grandchild = t.read("grandchild")?;
    t.dump(victim.pid()).refused(5, &[&grandchild, "fd 43"])?;
    t.wait_untraced(&victim)?;
    unharmed(t, victim, 7)
}

/// An error, or a complete image; never a hang, and the others go on.
fn vanished(t: &T) -> TestResult {
    for delay in [0u64, 1, 2, 4, 8, 15] {
        let mut victim = t.victim("tree_deep").args(["20", "wide"]).start()?;
        let children = procfs::descendants(victim.pid());
        let mut dump = t.dump(victim.pid()).start()?;
        moment(t, delay)?;
        procfs::signal(children[children.len() / 2], Signal::SIGKILL);
        let status = dump.wait_exit()?;
        ensure!(
            matches!(status.code(), Some(0 | 1 | 3 | 7)),
            "killed after {delay} ms: {status}\n{}",
            dump.stderr()
        );
        ensure!(
            t.path("saved.ckpt").exists() == (status.code() == Some(0)),
            "{status}, but the image is (not) there"
        );
        t.wait_untraced(&victim)?;
        t.ping().context("the root after the end of a child")?;
        victim.ensure_alive()?;
        std::fs::remove_file(t.path("ready"))?;
        let _ = std::fs::remove_file(t.path("saved.ckpt"));
    }
    Ok(())
}

fn moment(t: &T, milliseconds: u64) -> TestResult {
    let start = Instant::now();
    t.wait_until("a moment", || Ok(start.elapsed() >= Duration::from_millis(milliseconds)))
}

/// Dumps and kills.
fn save(t: &T, victim: &str, args: &[&str]) -> TestResult {
    let mut original = t.victim(victim).args(args).start()?;
    let mut all = procfs::descendants(original.pid());
    all.push(original.pid());
    t.dump(original.pid()).kill().ok()?;
    original.expect_signal(Signal::SIGKILL)?;
    t.wait_gone(&all)
}

/// Processes of the victim, other than the test's own children.
fn left(comm: &str, before: &[i32]) -> Vec<i32> {
    let is =
        |pid: &i32| procfs::comm(*pid).is_some_and(|c| c == comm || c == "saved.ckpt" || c == "ckpt-init");
    procfs::all().into_iter().filter(|pid| !before.contains(pid)).filter(is).collect()
}

/// Runs an image that must be refused: nothing of it stays.
fn nothing_stays(t: &T, mode: &str, words: &[&str]) -> TestResult {
    let before = files(t)?;
    let mut image = t.restore("saved.ckpt").pid(mode).start()?;
    let group = image.pid();
    image.expect_exit(125)?;
    let said = image.stderr().to_lowercase();
    for word in words {
        ensure!(said.contains(&word.to_lowercase()), "the message does not mention {word:?}:\n{said}");
    }
    t.wait_until("the end of all processes of the restore", || Ok(procfs::group(group).is_empty()))?;
    let mut now = files(t)?;
    now.retain(|name| !before.contains(name) && !name.starts_with("restore"));
    ensure!(now.is_empty(), "files are left: {now:?}");
    Ok(())
}

fn missing(t: &T, mode: &str) -> TestResult {
    if mode == "same" {
        need_root()?;
    }
    save(t, "tree_ends", &["exit", "file"])?;
    let grandchild = t.read("grandchild")?;
    std::fs::rename(t.path("precious"), t.path("elsewhere"))?;
    nothing_stays(t, mode, &["precious", "no such file"])?;
    // With it, all is well again.
    std::fs::rename(t.path("elsewhere"), t.path("precious"))?;
    let restored = t.restore("saved.ckpt").pid(mode).start()?;
    unharmed(t, restored, 7).with_context(|| format!("grandchild {grandchild}"))
}

/// A limit that is met in the middle.
fn limit(t: &T) -> TestResult {
    need_root()?;
    save(t, "tree_deep", &["100", "wide"])?;
    // What other tests run as this user counts, too.
    let others = procfs::all().into_iter().filter(|&p| {
        procfs::status(p, "Uid").is_some_and(|uid| uid.split_whitespace().next() == Some("1000"))
    });
    let most = format!("--nproc={}", others.count() + 40);
    let mut image = t.restore("saved.ckpt").with(|l| l.wrapper(["prlimit", &most])).start()?;
    let group = image.pid();
    image.expect_exit(125)?;
    let said = image.stderr().to_lowercase();
    ensure!(said.contains("limit") || said.contains("temporarily unavailable"), "the message is {said}");
    t.wait_until("the end of all processes of the restore", || Ok(procfs::group(group).is_empty()))?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

/// If the restore was complete when its supervisor died, the children of the root (which dies with it) go on, as
/// if the root itself had been killed at home: all of them, or none.
fn kill_late(t: &T, group: i32) -> TestResult {
    let sleeps = |&p: &i32| procfs::read(p, "syscall").is_some_and(|call| call.starts_with("230 "));
    t.wait_until("the end of all processes, or of none", || {
        let left = procfs::group(group);
        let late = left.len() == 30 && left.iter().all(sleeps);
        if late {
            left.iter().for_each(|&pid| procfs::signal(pid, Signal::SIGKILL));
        }
        Ok(late || left.is_empty())
    })
}

/// One process of many (or the one in front) dies in the middle of the restore: none runs.
fn killed(t: &T, mode: &str, supervisor: bool) -> TestResult {
    if mode == "same" {
        need_root()?;
    }
    save(t, "tree_deep", &["30", "wide"])?;
    let mut failed = 0;
    for wanted in [1usize, 5, 12, 25, 31] {
        let mut image = t.restore("saved.ckpt").pid(mode).start()?;
        let (group, mut seen) = (image.pid(), Vec::new());
        t.wait_until("some processes of the tree", || {
            seen = procfs::descendants(group);
            Ok(seen.len() >= wanted || image.try_exit()?.is_some())
        })?;
        // In a namespace, its init is nobody's task.
        let victim = if supervisor { Some(group) } else { seen.last().copied() };
        victim.into_iter().for_each(|pid| procfs::signal(pid, Signal::SIGKILL));
        if supervisor {
            image.expect_signal(Signal::SIGKILL)?;
            if mode == "same" {
                kill_late(t, group)?;
            }
            t.wait_group_gone(group)?;
            t.wait_gone(&seen)?;
            continue;
        }
        let over = t.wait_for("the end of the restore", || {
            if let Some(status) = image.try_exit()? {
                return Ok(Some(status.code()));
            }
            // Too late: it was the program's process.
            Ok(t.path("pong").exists().then_some(None).or_else(|| {
                t.tell("ping").ok()?;
                None
            }))
        })?;
        let _ = std::fs::remove_file(t.path("ping"));
        let _ = std::fs::remove_file(t.path("pong"));
        match over {
            Some(code) => {
                ensure!(code == 125, "exit status {code}: {}", image.stderr());
                failed += 1;
                t.wait_gone(&seen)?;
                ensure!(left("tree_deep", &[]).iter().all(|p| !seen.contains(p)), "processes are left");
            }
            None => {
                let all = procfs::descendants(group);
                image.signal(Signal::SIGKILL);
                image.wait_exit()?;
                all.iter().for_each(|&pid| procfs::signal(pid, Signal::SIGKILL));
                t.wait_gone(&all)?;
            }
        }
    }
    ensure!(supervisor || failed > 0, "never in time to kill it while it was restored");
    Ok(())
}
