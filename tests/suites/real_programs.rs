//! Programs of every runtime, dumped in the middle of their work, killed, and continued by running the
//! image: what they compute in the end must be what an uninterrupted run computes.

use ckpt_tests::*;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// What is run: the words of its command, once it is built into (or copied to) the test's directory.
type Prepare = fn(&T) -> anyhow::Result<Vec<OsString>>;

struct Program {
    name: &'static str,
    prepare: Prepare,
}

const PROGRAMS: &[Program] = &[
    Program { name: "python_hash_chain", prepare: python_chain },
    Program { name: "python_threads_numpy", prepare: python_threads },
    Program { name: "node_timers_workers", prepare: node },
    Program { name: "java_hashmap_g1", prepare: java },
    Program { name: "go_goroutines", prepare: go },
    Program { name: "rust_tokio", prepare: tokio },
    Program { name: "c_static", prepare: c_static },
    Program { name: "c_dynamic", prepare: c_dynamic },
    Program { name: "c_musl", prepare: c_musl },
];

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("real_programs");
    for Program { name, prepare } in PROGRAMS {
        suite.test(*name, |t| same_result(t, *prepare, None));
        suite.test(format!("{name}::in_place"), |t| same_result(t, *prepare, Some("new")));
        suite.test_as(Who::User, format!("{name}::user"), |t| same_result(t, *prepare, None));
    }
    suite.test("python_hash_chain::dumped_often", |t| dumped_often(t, python_chain));
    suite.test("go_goroutines::dumped_often", |t| dumped_often(t, go));
    suite.run()
}

/// A directory of the test for one run of a program (its `CKPT_DIR`).
fn run_dir(t: &T, name: &str) -> anyhow::Result<PathBuf> {
    let dir = t.path(name);
    std::fs::create_dir(&dir)?;
    t.who().own(&dir)?;
    Ok(dir)
}

fn start(t: &T, words: &[OsString], name: &str, dir: &Path) -> anyhow::Result<Proc> {
    t.launch(name, &words[0]).args(&words[1..]).env("CKPT_DIR", dir).start()
}

/// The result of a run that nobody interrupts.
fn expected(t: &T, words: &[OsString]) -> anyhow::Result<String> {
    let dir = run_dir(t, "uninterrupted")?;
    std::fs::write(dir.join("go"), "")?;
    start(t, words, "uninterrupted-run", &dir)?.expect_exit(0)?;
    t.read("uninterrupted/result")
}

fn wait_ready(t: &T, program: &mut Proc, dir: &Path) -> TestResult {
    t.wait_until("the program in the middle of its work", || {
        program.ensure_alive()?;
        Ok(dir.join("ready").exists())
    })
}

fn same_result(t: &T, prepare: Prepare, pid: Option<&str>) -> TestResult {
    let words = prepare(t)?;
    let _alone = one_java_at_a_time(&words);
    let expected = expected(t, &words)?;
    let dir = run_dir(t, "interrupted")?;
    let mut program = start(t, &words, "program", &dir)?;
    wait_ready(t, &mut program, &dir)?;
    t.dump(program.pid()).kill().ok()?;
    program.expect_signal(nix::sys::signal::Signal::SIGKILL)?;

    let mut restore = t.restore("saved.ckpt");
    if let Some(mode) = pid {
        restore = restore.pid(mode);
    }
    let mut restored = restore.start()?;
    std::fs::write(dir.join("go"), "")?;
    restored.expect_exit(0)?;
    compare(&t.read("interrupted/result")?, &expected)
}

/// Five images, each of a program that came from the one before, and then one that was only looked at.
fn dumped_often(t: &T, prepare: Prepare) -> TestResult {
    let words = prepare(t)?;
    let expected = expected(t, &words)?;
    let dir = run_dir(t, "interrupted")?;
    let mut program = start(t, &words, "program", &dir)?;
    wait_ready(t, &mut program, &dir)?;
    for _ in 0..5 {
        t.dump(program.pid()).kill().ok()?;
        program.wait_exit()?;
        program = t.restore("saved.ckpt").pid("new").start()?;
        t.wait_restored(&mut program)?;
    }
    t.dump(program.pid()).ok()?;
    std::fs::write(dir.join("go"), "")?;
    program.expect_exit(0)?;
    compare(&t.read("interrupted/result")?, &expected)
}

fn compare(result: &str, expected: &str) -> TestResult {
    if result == expected {
        return Ok(());
    }
    let line = result.lines().zip(expected.lines()).take_while(|(a, b)| a == b).count();
    bail!(
        "the result differs from an uninterrupted run's in line {}:\n{:?}\nexpected:\n{:?}",
        line + 1,
        result.lines().nth(line),
        expected.lines().nth(line)
    )
}

/// A starting JVM removes the performance data files (mapped shared) of those that were killed.
fn one_java_at_a_time(words: &[OsString]) -> Option<std::sync::MutexGuard<'static, ()>> {
    static JAVA: Mutex<()> = Mutex::new(());
    (words[0] == "java").then(|| JAVA.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("real").join(name)
}

/// Copies a source or a built program to where an ordinary user can reach it.
fn copied(t: &T, from: &Path) -> anyhow::Result<PathBuf> {
    let to = t.path(from.file_name().context("no file name")?);
    ckpt_tests::copy(from, &to)?;
    Ok(to)
}

/// Where built programs stay between tests.
fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Runs a compiler, one at a time, once for each program.
fn build(output: &Path, command: &mut Command) -> TestResult {
    static DONE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    let mut done = DONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if done.iter().any(|path| path == output) {
        return Ok(());
    }
    let run = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(run.status.success(), "{command:?}: {}\n{}", run.status, String::from_utf8_lossy(&run.stderr));
    done.push(output.to_owned());
    Ok(())
}

/// Debian's, which has numpy; another one may come first in PATH.
const PYTHON: &str = "/usr/bin/python3";

fn python(t: &T, script: &str) -> anyhow::Result<Vec<OsString>> {
    need(PYTHON)?;
    Ok(vec![PYTHON.into(), copied(t, &source(script))?.into()])
}

fn python_chain(t: &T) -> anyhow::Result<Vec<OsString>> {
    python(t, "chain.py")
}

fn python_threads(t: &T) -> anyhow::Result<Vec<OsString>> {
    let words = python(t, "threads.py")?;
    if !Command::new(PYTHON).args(["-c", "import numpy"]).output()?.status.success() {
        skip!("numpy is not installed for {PYTHON} (scripts/setup installs it)");
    }
    Ok(words)
}

fn node(t: &T) -> anyhow::Result<Vec<OsString>> {
    need("node")?;
    Ok(vec!["node".into(), copied(t, &source("workers.js"))?.into()])
}

fn java(t: &T) -> anyhow::Result<Vec<OsString>> {
    need("java")?;
    need("javac")?;
    let classes = built("java");
    build(&classes, Command::new("javac").arg("-d").arg(&classes).arg(source("BigMap.java")))?;
    for class in std::fs::read_dir(&classes)? {
        copied(t, &class?.path())?;
    }
    let options = ["-XX:+UseG1GC", "-Xmx768m", "-cp"].map(OsString::from);
    Ok([vec!["java".into()], options.to_vec(), vec![t.dir().into(), "BigMap".into()]].concat())
}

fn go(t: &T) -> anyhow::Result<Vec<OsString>> {
    need("go")?;
    let exe = built("goroutines");
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(&exe).arg(source("goroutines.go"));
    build(&exe, command.env("GOCACHE", built("gocache")).env("GO111MODULE", "off"))?;
    Ok(vec![copied(t, &exe)?.into()])
}

fn tokio(t: &T) -> anyhow::Result<Vec<OsString>> {
    let suite = std::env::current_exe()?;
    let profile = suite.parent().and_then(Path::parent).context("no target directory")?;
    let exe = profile.join("examples/tokio-app");
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--locked", "-p", "ckpt-tests", "--example", "tokio-app", "--profile"]);
    command.arg(if profile.ends_with("release") { "release" } else { "dev" });
    command.arg("--target-dir").arg(profile.parent().context("no target directory")?);
    build(&exe, command.current_dir(env!("CARGO_MANIFEST_DIR")))?;
    Ok(vec![copied(t, &exe)?.into()])
}

fn c(t: &T, compiler: &str, flags: &[&str], name: &str) -> anyhow::Result<Vec<OsString>> {
    need(compiler)?;
    let exe = built(name);
    let mut command = Command::new(compiler);
    build(&exe, command.args(["-O2", "-pthread"]).args(flags).arg("-o").arg(&exe).arg(source("compute.c")))?;
    Ok(vec![copied(t, &exe)?.into()])
}

fn c_static(t: &T) -> anyhow::Result<Vec<OsString>> {
    c(t, "gcc", &["-static"], "compute-static")
}

fn c_dynamic(t: &T) -> anyhow::Result<Vec<OsString>> {
    c(t, "gcc", &[], "compute-dynamic")
}

fn c_musl(t: &T) -> anyhow::Result<Vec<OsString>> {
    c(t, "musl-gcc", &[], "compute-musl")
}
