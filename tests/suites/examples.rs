//! `examples/`: each shows what it says, as root and as an ordinary user.

use ckpt_tests::{Context, Error, Suite, T, TestResult, Who, bail, ensure};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Those that need nothing but programs in PATH. `self-checkpoint` needs a compiler for Rust, and has its own suite.
const ALL: [&str; 6] =
    ["batch-system", "bug-report", "from-scratch", "jvm-ten-times", "periodic", "python-job"];
const ELSEWHERE: [&str; 1] = ["self-checkpoint"];

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("examples");
    // Some wait for a moment in the life of a program.
    suite.one_at_a_time();
    suite.test("all_are_here", |_| all_are_here());
    for name in ALL {
        suite.test_as(Who::Me, name, move |t| run(t, name));
        suite.test_as(Who::User, format!("{name}-user"), move |t| run(t, name));
    }
    suite.run()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// Every folder has a transcript and is in the index.
fn all_are_here() -> TestResult {
    let index = std::fs::read_to_string(folder().join("README.md"))?;
    for entry in std::fs::read_dir(folder())? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let name = entry.file_name().into_string().ok().context("a name")?;
        ensure!(ALL.contains(&&*name) || ELSEWHERE.contains(&&*name), "{name} is not tested");
        ensure!(entry.path().join("README.md").exists(), "{name} has no README.md");
        ensure!(index.contains(&format!("({name}/README.md)")), "{name} is not in examples/README.md");
        let mode = entry.path().join("run").metadata().context("no run")?.permissions().mode();
        ensure!(mode & 0o111 == 0o111, "{name}/run cannot be executed");
    }
    Ok(())
}

/// A copy of the examples and programs, as the repository may be closed to the user.
fn copy(t: &T, name: &str) -> Result<PathBuf, Error> {
    let to = t.path("examples");
    std::fs::create_dir_all(to.join(name))?;
    for (from, to) in [(folder(), to.clone()), (folder().join(name), to.join(name))] {
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                ckpt_tests::copy(&entry.path(), &to.join(entry.file_name()))?;
            }
        }
    }
    let bin = t.path("bin");
    std::fs::create_dir(&bin)?;
    for tool in ["ckpt-dump", "ckpt-info"] {
        ckpt_tests::copy(&ckpt_tests::tool(tool)?, &bin.join(tool))?;
    }
    Ok(bin)
}

fn run(t: &T, name: &str) -> TestResult {
    let bin = copy(t, name)?;
    let tmp = t.path("tmp");
    std::fs::create_dir(&tmp)?;
    t.who().own(&tmp)?;
    let path = std::env::var("PATH").context("PATH")?;
    let example = t.launch("example", t.path("examples").join(name).join("run"));
    let example = example.env("PATH", format!("{}:{path}", bin.display())).env("TMPDIR", &tmp);
    let mut example = example.env("CKPT_TEST_DEADLINE", t.deadline().as_secs().to_string()).start()?;
    // Each step has that deadline; an example has several.
    let began = std::time::Instant::now();
    let status = loop {
        match t.wait_for("the end of the example", || example.try_exit()) {
            Err(e) if began.elapsed() > 5 * t.deadline() => return Err(e),
            Err(_) => example.ensure_alive()?,
            Ok(status) => break status,
        }
    };
    if status.code() == Some(77) {
        ckpt_tests::skip!("{}", example.stderr().trim().trim_start_matches("skipped: "));
    }
    if !status.success() {
        bail!("{status}\n{}\n{}", example.stdout(), example.stderr());
    }
    let left = std::fs::read_dir(&tmp)?.count();
    // The JVM names directories of its own below /tmp.
    ensure!(left == 0, "files are left in {}", tmp.display());
    Ok(())
}
