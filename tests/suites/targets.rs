//! Which process is meant (--name, --pidfile), and what is written down of a dump (--log, --json).

use ckpt_tests::{Context, Proc, Suite, T, TestResult, Variant, ensure, tool, victim_program};
use serde_json::Value;
use std::process::{Command, Output};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("targets");
    suite.test("by_name", by_name);
    suite.test("by_a_name_that_several_have", several);
    suite.test("by_pidfile", by_pidfile);
    suite.test("none_or_two_targets", usage);
    suite.test("log", log);
    suite.test("errors_as_json", errors_as_json);
    suite.test("to_a_pipe", to_a_pipe);
    suite.test("to_a_pipe_that_nobody_reads", nobody_reads);
    suite.test("to_a_terminal", to_a_terminal);
    suite.run()
}

fn dump(t: &T, args: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(tool("ckpt-dump")?);
    command.args(args).current_dir(t.dir()).output().context("cannot run ckpt-dump")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// A victim with a name that nobody else has.
fn named(t: &T, name: &str) -> anyhow::Result<Proc> {
    let path = t.path(name);
    if !path.exists() {
        ckpt_tests::copy(&victim_program("counter", Variant::Dynamic)?, &path)?;
    }
    let victim = t.launch(name, &path).env("CKPT_DIR", t.dir()).start()?;
    t.wait_file("ready")?;
    Ok(victim)
}

fn unique(what: &str) -> String {
    format!("{what}{}", std::process::id())
}

fn end(t: &T, mut victim: Proc) -> TestResult {
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}

fn by_name(t: &T) -> TestResult {
    // Longer than the 15 bytes that the kernel keeps.
    let name = unique("a-quite-long-name-");
    let victim = named(t, &name)?;
    let output = dump(t, &["--name", &name, "-o", "saved.ckpt"])?;
    ensure!(output.status.success(), "{}", said(&output));
    ensure!(said(&output).contains(&format!("PID {} ", victim.pid())), "{}", said(&output));
    let output = dump(t, &["--name", &unique("nobody"), "-o", "none.ckpt"])?;
    ensure!(
        output.status.code() == Some(3) && said(&output).contains("no process is called"),
        "{}",
        said(&output)
    );
    ensure!(!t.path("none.ckpt").exists(), "an image of nothing");
    end(t, victim)
}

fn several(t: &T) -> TestResult {
    let name = unique("twin");
    let first = named(t, &name)?;
    std::fs::remove_file(t.path("ready"))?;
    let second = named(t, &name)?;
    let output = dump(t, &["--name", &name, "--check"])?;
    let text = said(&output);
    ensure!(output.status.code() == Some(3), "{text}");
    ensure!([&first, &second].iter().all(|p| text.contains(&p.pid().to_string())), "{text}");
    end(t, first)?;
    end(t, second)
}

fn by_pidfile(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    t.write("service.pid", format!("{}\n", victim.pid()))?;
    let output = dump(t, &["--pidfile", "service.pid", "-o", "saved.ckpt"])?;
    ensure!(output.status.success() && t.path("saved.ckpt").exists(), "{}", said(&output));
    t.write("other.pid", "no number")?;
    let output = dump(t, &["--pidfile", "other.pid", "--check"])?;
    ensure!(
        output.status.code() == Some(1) && said(&output).contains("holds no process id"),
        "{}",
        said(&output)
    );
    end(t, victim)
}

fn usage(t: &T) -> TestResult {
    for args in
        [&["-o", "x"][..], &["1", "--name", "init", "-o", "x"], &["--name", "x", "--pidfile", "y", "--check"]]
    {
        let output = dump(t, args)?;
        ensure!(output.status.code() == Some(2), "{args:?}: {}", said(&output));
    }
    Ok(())
}

fn log(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    let pid = victim.pid().to_string();
    let output = dump(t, &[&pid, "-q", "-o", "saved.ckpt", "--log", "dump.log"])?;
    ensure!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
    let output = dump(t, &[&pid, "-o", "missing/saved.ckpt", "--log", "dump.log"])?;
    ensure!(output.status.code() == Some(6), "{}", said(&output));
    let log = t.read("dump.log")?;
    for word in ["begin ", "info ", "debug ", "done ", "exit status 0", "error ", "missing/", "exit status 6"]
    {
        ensure!(log.contains(word), "no {word:?} in\n{log}");
    }
    // All that was seen: threads, memory, descriptors.
    for word in
        [format!("thread {pid} (counter): in system call"), "[heap] own".into(), "descriptors: 0 = #0".into()]
    {
        ensure!(log.contains(&word), "no {word:?} in\n{log}");
    }
    end(t, victim)
}

fn errors_as_json(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    let output = dump(t, &[&victim.pid().to_string(), "--json", "-o", "missing/saved.ckpt"])?;
    let all: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(all["exit_status"] == 6 && all["pid"] == victim.pid(), "{all}");
    ensure!(all["error"].as_str().is_some_and(|e| e.contains("missing/saved.ckpt")), "{all}");
    end(t, victim)
}

/// As over ssh: whoever reads makes a file of it, and runs that.
fn to_a_pipe(t: &T) -> TestResult {
    let mut victim = t.victim("counter").start()?;
    let tool = tool("ckpt-dump")?;
    let script = "\"$0\" \"$1\" -o - --kill | (cat > saved.ckpt; chmod 700 saved.ckpt)";
    let mut shell = Command::new("sh");
    let output =
        shell.args(["-c", script]).arg(tool).arg(victim.pid().to_string()).current_dir(t.dir()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("-> standard output") && said.contains("killed"), "{said}");
    victim.wait_exit()?;
    let restored = t.restore("saved.ckpt").start()?;
    end(t, restored)
}

fn nobody_reads(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    let tool = tool("ckpt-dump")?;
    let script = "(\"$0\" \"$1\" -o - --kill; echo $? > status) | exec true";
    let mut shell = Command::new("sh");
    let output =
        shell.args(["-c", script]).arg(tool).arg(victim.pid().to_string()).current_dir(t.dir()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(t.read("status")?.trim() == "6" && said.contains("standard output"), "{said}");
    end(t, victim)
}

fn to_a_terminal(t: &T) -> TestResult {
    let victim = t.victim("counter").start()?;
    let tool = tool("ckpt-dump")?;
    let command = format!("{} {} -o -", tool.display(), victim.pid());
    let output =
        Command::new("script").args(["-qec", &command, "/dev/null"]).current_dir(t.dir()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(2) && said.contains("not for a terminal"), "{said}");
    end(t, victim)
}
