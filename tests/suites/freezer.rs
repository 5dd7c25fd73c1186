//! Frozen cgroups: `--freeze-cgroup`, and targets that are in one.

use ckpt_tests::{Context, Proc, Suite, T, TestResult, ensure, need_root, skip};
use std::path::{Path, PathBuf};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("freezer");
    suite.test("tree", tree);
    suite.test("frozen_before", frozen_before);
    suite.test("frozen_before_with_others", with_others);
    suite.test("frozen_above", frozen_above);
    suite.test("killed_meanwhile", killed);
    suite.test("version_1", version_1);
    suite.test("wrong_ones", wrong);
    suite.run()
}

/// A cgroup for the test; removed at its end, when the processes in it are gone.
struct Cgroup(PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.freeze"), "0");
        let _ = std::fs::write(self.0.join("freezer.state"), "THAWED");
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        // Busy until they have been reaped.
        for _ in 0..2000 {
            match std::fs::remove_dir(&self.0) {
                Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                _ => return,
            }
        }
    }
}

impl Cgroup {
    /// Where the freezer of this version is mounted.
    fn new(t: &T, version: u32) -> anyhow::Result<Self> {
        need_root()?;
        let places: &[&str] = match version {
            1 => &["/sys/fs/cgroup/freezer"],
            _ => &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
        };
        let probe = if version == 1 { "freezer.state" } else { "cgroup.freeze" };
        let name = t.dir().file_name().unwrap_or_default();
        for place in places {
            let dir = Path::new(place).join(format!("ckpt-{}", name.to_string_lossy()));
            if std::fs::create_dir(&dir).is_ok() {
                let made = Self(dir);
                if made.0.join(probe).exists() {
                    return Ok(made);
                }
            }
        }
        skip!("no cgroup of version {version} can be made in {places:?}");
    }

    fn take(&self, pid: i32) -> TestResult {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string())
            .context("moving a process into the cgroup")
    }

    fn freeze(&self, t: &T) -> TestResult {
        std::fs::write(self.0.join("cgroup.freeze"), "1")?;
        t.wait_until("frozen", || Ok(self.is_frozen()))
    }

    fn thaw(&self) -> TestResult {
        Ok(std::fs::write(self.0.join("cgroup.freeze"), "0")?)
    }

    fn is_frozen(&self) -> bool {
        std::fs::read_to_string(self.0.join("cgroup.events")).is_ok_and(|e| e.contains("frozen 1"))
    }

    fn child(&self, name: &str) -> anyhow::Result<Self> {
        let dir = self.0.join(name);
        std::fs::create_dir(&dir)?;
        Ok(Self(dir))
    }
}

fn counter(t: &T, cgroup: &Cgroup) -> anyhow::Result<Proc> {
    let victim = t.victim("counter").start()?;
    cgroup.take(victim.pid())?;
    Ok(victim)
}

fn end(t: &T, mut victim: Proc) -> TestResult {
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}

fn restored(t: &T) -> TestResult {
    std::fs::remove_file(t.path("result"))?;
    t.restore("saved.ckpt").start()?.expect_exit(0)?;
    t.expect_ok()
}

/// One that changes all the time; its image goes on, and so does it.
fn tree(t: &T) -> TestResult {
    let cgroup = Cgroup::new(t, 2)?;
    let victim = t.victim("fork_storm").args(["4", "10"]).start()?;
    // Those that are born meanwhile are born in it: once all are in, all stay.
    let all = || -> anyhow::Result<Vec<i32>> {
        let group =
            std::fs::read_dir("/proc")?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        Ok(group
            .filter(|pid| {
                nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(*pid)))
                    .ok()
                    .is_some_and(|g| g.as_raw() == victim.pid())
            })
            .collect())
    };
    let inside = |pid: i32| {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|c| c.contains(&*cgroup.0.file_name().unwrap_or_default().to_string_lossy()))
    };
    t.wait_until("all processes in the cgroup", || {
        let outside: Vec<i32> = all()?.into_iter().filter(|pid| !inside(*pid)).collect();
        outside.iter().for_each(|pid| drop(cgroup.take(*pid)));
        Ok(outside.is_empty())
    })?;
    t.dump(victim.pid()).arg("--freeze-cgroup").arg(&cgroup.0).ok()?;
    ensure!(!cgroup.is_frozen(), "still frozen");
    end(t, victim)?;
    std::fs::remove_file(t.path("go"))?;
    let restored = t.restore("saved.ckpt").pid("same").start()?;
    end(t, restored)
}

fn frozen_before(t: &T) -> TestResult {
    let cgroup = Cgroup::new(t, 2)?;
    let victim = counter(t, &cgroup)?;
    cgroup.freeze(t)?;
    let dir = cgroup.0.to_string_lossy().into_owned();
    t.dump(victim.pid()).refused(7, &["frozen by its cgroup", &dir, "--freeze-cgroup"])?;
    ensure!(cgroup.is_frozen(), "thawed by a refusal");
    t.dump(victim.pid()).arg("--freeze-cgroup").arg(&cgroup.0).ok()?;
    t.wait_until("frozen again", || Ok(cgroup.is_frozen()))?;
    cgroup.thaw()?;
    end(t, victim)?;
    restored(t)
}

fn with_others(t: &T) -> TestResult {
    let cgroup = Cgroup::new(t, 2)?;
    let other = t.launch("other", "sleep").arg("1000").start()?;
    cgroup.take(other.pid())?;
    let victim = counter(t, &cgroup)?;
    cgroup.freeze(t)?;
    let dump = || t.dump(victim.pid()).arg("--freeze-cgroup").arg(&cgroup.0);
    dump().refused(1, &["frozen before", &other.pid().to_string()])?;
    t.wait_until("frozen again", || Ok(cgroup.is_frozen()))?;
    cgroup.thaw()?;
    // Not frozen before: it stops for a moment, too.
    dump().ok()?;
    ensure!(!cgroup.is_frozen(), "still frozen");
    end(t, victim)?;
    restored(t)
}

fn frozen_above(t: &T) -> TestResult {
    let above = Cgroup::new(t, 2)?;
    let cgroup = above.child("below")?;
    let victim = counter(t, &cgroup)?;
    above.freeze(t)?;
    t.dump(victim.pid()).arg("--freeze-cgroup").arg(&cgroup.0).refused(1, &["above it is frozen"])?;
    t.dump(victim.pid()).arg("--freeze-cgroup").arg(&above.0).ok()?;
    t.wait_until("frozen again", || Ok(cgroup.is_frozen()))?;
    above.thaw()?;
    end(t, victim)?;
    restored(t)
}

fn killed(t: &T) -> TestResult {
    let cgroup = Cgroup::new(t, 2)?;
    let victim = counter(t, &cgroup)?;
    for point in ["after-seize", "after-freeze", "after-collect", "mid-write"] {
        let dump = t.dump(victim.pid()).arg("--freeze-cgroup").arg(&cgroup.0);
        let dumped = dump.env("CKPT_FAILPOINT", format!("{point}=kill")).run()?;
        ensure!(dumped.code.is_none(), "{point}: {dumped:?}");
        t.wait_until(&format!("{point}: thawed"), || Ok(!cgroup.is_frozen()))?;
        t.ping()?;
    }
    end(t, victim)
}

fn version_1(t: &T) -> TestResult {
    let cgroup = Cgroup::new(t, 1)?;
    let victim = counter(t, &cgroup)?;
    t.dump(victim.pid()).arg("--freeze-cgroup").arg(&cgroup.0).refused(1, &["version 1"])?;
    std::fs::write(cgroup.0.join("freezer.state"), "FROZEN")?;
    t.dump(victim.pid()).refused(7, &["frozen by its cgroup", "THAWED"])?;
    std::fs::write(cgroup.0.join("freezer.state"), "THAWED")?;
    end(t, victim)
}

fn wrong(t: &T) -> TestResult {
    let cgroup = Cgroup::new(t, 2)?;
    let victim = t.victim("counter").start()?;
    let refused =
        |dir: &Path, words: &[&str]| t.dump(victim.pid()).arg("--freeze-cgroup").arg(dir).refused(1, words);
    refused(&cgroup.0, &["is not in it"])?;
    refused(t.dir(), &["not a cgroup"])?;
    ensure!(!cgroup.is_frozen(), "frozen by a refusal");
    end(t, victim)
}
