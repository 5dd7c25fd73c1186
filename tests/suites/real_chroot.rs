//! Self-contained images: they run in a root directory that holds nothing but them.

use ckpt_tests::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("real_chroot");
    suite.test("c_dynamic", |t| {
        need("gcc")?;
        let exe = t.path("compute");
        let mut gcc = Command::new("gcc");
        let status = gcc.args(["-O2", "-pthread", "-o"]).arg(&exe).arg(source("compute.c")).status()?;
        ensure!(status.success(), "gcc: {status}");
        alone(t, &[&exe])
    });
    suite.test("python_numpy", |t| {
        let python = Path::new("/usr/bin/python3");
        if !Command::new(python).args(["-c", "import numpy"]).output().is_ok_and(|o| o.status.success()) {
            skip!("python3 with numpy is not installed (scripts/setup installs it)");
        }
        alone(t, &[python, &source("threads.py")])
    });
    suite.run()
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("real").join(name)
}

/// Dumps a program here, runs its image in an empty root, and compares the result.
///
/// The only thing that is there besides the image is the empty directory where the result will be: the
/// program names it by its path.
fn alone(t: &T, words: &[&Path]) -> TestResult {
    need_root()?;
    let start = |name: &str, dir: &Path| {
        let launch = t.launch(name, words[0]).args(&words[1..]).env("CKPT_DIR", dir).current_dir("/");
        launch.stdout(Stdio::null()).stderr(Stdio::null()).start()
    };
    let reference = t.path("uninterrupted");
    std::fs::create_dir(&reference)?;
    std::fs::write(reference.join("go"), "")?;
    start("uninterrupted-run", &reference)?.expect_exit(0)?;

    let dir = t.path("interrupted");
    std::fs::create_dir(&dir)?;
    let mut program = start("program", &dir)?;
    t.wait_until("the program in the middle of its work", || {
        program.ensure_alive()?;
        Ok(dir.join("ready").exists())
    })?;
    t.dump(program.pid()).kill().ok()?;
    program.wait_exit()?;

    let root = t.path("root");
    let inside = root.join(dir.strip_prefix("/")?);
    std::fs::create_dir_all(&inside)?;
    std::fs::rename(t.path("saved.ckpt"), root.join("saved.ckpt"))?;
    let launch = t.launch("restored", "chroot").arg(&root).arg("/saved.ckpt").arg("-v").current_dir("/");
    let mut restored = launch.start()?;
    std::fs::write(inside.join("go"), "")?;
    restored.expect_exit(0)?;
    let (seen, expected) = (std::fs::read(inside.join("result"))?, std::fs::read(reference.join("result"))?);
    ensure!(seen == expected, "the result differs: {}", String::from_utf8_lossy(&seen));
    Ok(())
}
