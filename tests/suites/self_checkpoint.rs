//! Programs that save themselves with libckpt: tests/self/NAME.c.

use ckpt_tests::{Context, Error, Launch, Suite, T, TestResult, Who, ensure, have, need, procfs, skip, tool};
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("self_checkpoint");
    for (who, suffix) in [(Who::Me, ""), (Who::User, "-user")] {
        let mut test = |name: &str, body: fn(&T) -> TestResult| {
            suite.test_as(who, format!("{name}{suffix}"), body);
        };
        test("once", |t| once(t, Linked::Shared, &[]));
        test("once::static_library", |t| once(t, Linked::Static, &[]));
        test("once::subreaper", |t| once(t, Linked::Shared, &["subreaper"]));
        test("rounds", rounds);
        test("threads", threads);
        test("both", both);
        test("hooks", hooks);
        test("memory", memory);
        test("files", files);
        test("errors", errors);
        test("forks", forks);
    }
    suite.test("killed_dumper", killed_dumper);
    suite.test("killed_in_the_midst", killed_in_the_midst);
    suite.test("init", init);
    suite.test("installed", installed);
    suite.test("embedded", embedded);
    suite.test("terminal", terminal);
    suite.test("example", example);
    suite.run()
}

/// How a program gets the library.
#[derive(Clone, Copy)]
enum Linked {
    Shared,
    Static,
}

fn library() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../library")
}

/// Compiles tests/self/NAME.c into the test's directory.
fn compile(t: &T, name: &str, linked: Linked) -> Result<PathBuf, Error> {
    let built = tool("ckpt-dump")?.parent().context("its directory")?.to_owned();
    let out = t.path(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("self/{name}.c"));
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-I"]);
    cc.arg(library()).arg("-o").arg(&out).arg(source);
    match linked {
        Linked::Static => cc.arg(built.join("libckpt.a")).args(["-ldl", "-lm"]),
        Linked::Shared => {
            let lib = t.path("libckpt.so.0");
            if !lib.exists() {
                std::os::unix::fs::symlink(built.join("libckpt.so"), &lib)?;
            }
            cc.arg(lib).arg("-Wl,-rpath,$ORIGIN")
        }
    };
    run(&mut cc)?;
    Ok(out)
}

fn run(command: &mut Command) -> TestResult {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn program<'t>(t: &'t T, name: &str, linked: Linked) -> Result<Launch<'t>, Error> {
    let launch = t.launch(name, compile(t, name, linked)?);
    Ok(launch.env("CKPT_DUMP", tool("ckpt-dump")?))
}

/// What a program has printed, and what was printed by all that was restored from it: into the same file.
fn printed(t: &T, name: &str) -> Result<Vec<String>, Error> {
    Ok(t.read(&format!("{name}.out"))?.lines().map(str::to_owned).collect())
}

/// It ends well, and nothing is left.
fn ends(t: &T, mut proc: ckpt_tests::Proc) -> TestResult {
    let group = proc.pid();
    let ended = proc.expect_exit(0);
    ended.and_then(|()| t.wait_group_gone(group)).and_then(|()| nothing_left(t))
}

/// No half-written image.
fn nothing_left(t: &T) -> TestResult {
    for entry in std::fs::read_dir(t.dir())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(!name.contains(".tmp"), "{name} was left behind");
    }
    Ok(())
}

fn restore(t: &T, image: &str) -> TestResult {
    ends(t, t.restore(image).start()?)
}

fn once(t: &T, linked: Linked, args: &[&str]) -> TestResult {
    let launch = program(t, "once", linked)?.arg("saved.ckpt").args(args);
    ends(t, launch.start()?)?;
    ensure!(printed(t, "once")? == ["saved 1"], "{:?}", printed(t, "once")?);
    // As often as one likes, in all ways.
    let modes: &[&str] = if t.who() == Who::Me { &["auto", "new", "ns", "same"] } else { &["auto", "new"] };
    for (n, mode) in modes.iter().enumerate() {
        ends(t, t.restore("saved.ckpt").pid(mode).start()?)?;
        let all = printed(t, "once")?;
        ensure!(all.len() == n + 2 && all[n + 1] == "restored 1", "--pid {mode}: {all:?}");
    }
    Ok(())
}

fn rounds(t: &T) -> TestResult {
    ends(t, program(t, "rounds", Linked::Shared)?.start()?)?;
    restore(t, "round2.ckpt")?;
    // Made by the one above.
    restore(t, "round3.ckpt")?;
    restore(t, "round1.ckpt")?;
    let expected = [
        ["1 saved", "2 saved", "3 saved"].as_slice(),
        &["2 restored", "3 saved"],
        &["3 restored"],
        &["1 restored", "2 saved", "3 saved"],
    ];
    let all = printed(t, "rounds")?;
    ensure!(all == expected.concat(), "{all:?}");
    Ok(())
}

fn threads(t: &T) -> TestResult {
    ends(t, program(t, "threads", Linked::Shared)?.arg("saved.ckpt").start()?)?;
    restore(t, "saved.ckpt")?;
    ends(t, t.restore("saved.ckpt").pid("new").start()?)?;
    let all = printed(t, "threads")?;
    ensure!(all == ["saved", "restored", "restored"], "{all:?}");
    Ok(())
}

fn both(t: &T) -> TestResult {
    ends(t, program(t, "both", Linked::Shared)?.start()?)?;
    // In the image of the first, the second waits for its turn, and has it then.
    restore(t, "both0.ckpt")?;
    restore(t, "both1.ckpt")?;
    let all = printed(t, "both")?;
    ensure!(all.len() == 3 && all[0] == "saved saved", "{all:?}");
    ensure!(all[1].starts_with("restored ") && all[2].ends_with(" restored"), "{all:?}");
    Ok(())
}

fn hooks(t: &T) -> TestResult {
    ends(t, program(t, "hooks", Linked::Shared)?.arg("saved.ckpt").start()?)?;
    restore(t, "saved.ckpt")?;
    let expected = [
        ["before b", "before a", "after a 1", "after b 1", "saved"].as_slice(),
        &["before b", "before a", "after a 0", "after b 0", "failed"],
        &["restored a 1", "restored b 1", "restored"],
    ];
    let all = printed(t, "hooks")?;
    ensure!(all == expected.concat(), "{all:?}");
    Ok(())
}

fn memory(t: &T) -> TestResult {
    t.write("script", "2\n3\n1\n1\n3\n")?;
    ends(t, program(t, "memory", Linked::Shared)?.arg("script").start()?)?;
    let all = printed(t, "memory")?;
    let expected = ["step 3", "step 2", "step 3", "step 1", "step 1", "step 3", "end"];
    ensure!(all == expected, "{all:?}");
    Ok(())
}

fn files(t: &T) -> TestResult {
    ends(t, program(t, "files", Linked::Shared)?.args(["saved.ckpt", "other.ckpt"]).start()?)?;
    let all = printed(t, "files")?;
    ensure!(all == ["going back", "restored"], "{all:?}");
    Ok(())
}

/// The only line that it prints with these arguments.
fn error(t: &T, change: impl FnOnce(Launch<'_>) -> Launch<'_>) -> Result<String, Error> {
    let log = t.path("errors.out");
    if log.exists() {
        std::fs::remove_file(&log)?;
    }
    ends(t, change(program(t, "errors", Linked::Shared)?).start()?)?;
    Ok(printed(t, "errors")?.join("\n"))
}

fn errors(t: &T) -> TestResult {
    let said = error(t, |l| l.arg("no/such/saved.ckpt"))?;
    ensure!(said.starts_with("-1 ") && said.contains("directory does not exist"), "{said}");
    let said = error(t, |l| l.arg("saved.ckpt").env("CKPT_DUMP", "/no/ckpt-dump"))?;
    ensure!(said.starts_with("-1 ") && said.contains("CKPT_DUMP"), "{said}");
    let said = error(t, |l| l.arg("saved.ckpt").env("CKPT_DUMP", "/bin/true"))?;
    ensure!(said.starts_with("-1 ") && said.contains("without a word"), "{said}");
    let said = error(t, |l| l.arg("saved.ckpt").arg("--no-such-option"))?;
    ensure!(said.starts_with("-1 ") && said.contains("--no-such-option"), "{said}");
    let said = error(t, |l| l.arg("saved.ckpt").env("CKPT_FAILPOINT", "before-rename"))?;
    ensure!(said.starts_with("-1 ") && said.contains("fail point"), "{said}");
    ensure!(!t.path("saved.ckpt").exists(), "an image of a failed checkpoint");
    // A pipe to a process that is not saved.
    let (ours, its) = std::os::unix::net::UnixStream::pair()?;
    fn outside(l: Launch<'_>) -> Launch<'_> {
        l.arg("saved.ckpt").wrapper(["sh", "-c", "exec \"$@\" 5<&0 </dev/null", "sh"])
    }
    let with = its.try_clone()?;
    let said = error(t, |l| outside(l).stdin(std::os::fd::OwnedFd::from(with)))?;
    ensure!(
        said.starts_with("-2 PID ") && said.contains("fd 5") && said.contains("--allow unix-outside"),
        "{said}"
    );
    ensure!(!t.path("saved.ckpt").exists(), "an image of a refused checkpoint");
    let said =
        error(t, |l| outside(l).args(["--allow", "unix-outside"]).stdin(std::os::fd::OwnedFd::from(its)))?;
    ensure!(said == "0 saved", "{said}");
    drop(ours);
    Ok(())
}

fn forks(t: &T) -> TestResult {
    ends(t, program(t, "forks", Linked::Shared)?.start()?)?;
    let all = printed(t, "forks")?;
    ensure!(all == ["ok"], "{all:?}");
    Ok(())
}

/// Whatever becomes of ckpt-dump, the program runs on.
fn killed_dumper(t: &T) -> TestResult {
    for place in ["after-freeze", "after-collect", "mid-write", "before-rename"] {
        let said = error(t, |l| l.arg("saved.ckpt").env("CKPT_FAILPOINT", format!("{place}=kill")))?;
        ensure!(said.starts_with("-1 ") && said.contains("was it killed"), "{place}: {said}");
        ensure!(!t.path("saved.ckpt").exists(), "{place}: an image of a failed checkpoint");
    }
    Ok(())
}

/// The program ends while it is dumped: so does ckpt-dump.
fn killed_in_the_midst(t: &T) -> TestResult {
    let mut proc = program(t, "errors", Linked::Shared)?
        .arg("saved.ckpt")
        .env("CKPT_FAILPOINT", "after-open=stop")
        .start()?;
    let pid = proc.pid().to_string();
    let dumps = |of: i32| {
        procfs::comm(of).as_deref() == Some("ckpt-dump")
            && procfs::read(of, "cmdline").is_some_and(|line| line.trim_end_matches('\0').ends_with(&pid))
    };
    let dumper = t.wait_for("ckpt-dump, stopped", || {
        Ok(procfs::all().into_iter().find(|of| dumps(*of) && procfs::state(*of) == Some('T')))
    })?;
    proc.signal(nix::sys::signal::Signal::SIGKILL);
    proc.expect_signal(nix::sys::signal::Signal::SIGKILL)?;
    procfs::signal(dumper, nix::sys::signal::Signal::SIGCONT);
    t.wait_gone(&[dumper])?;
    nothing_left(t)
}

/// PID 1 of a namespace would adopt ckpt-dump.
fn init(t: &T) -> TestResult {
    ckpt_tests::need_root()?;
    let mut proc = program(t, "errors", Linked::Shared)?
        .arg("saved.ckpt")
        .wrapper(["unshare", "--pid", "--fork", "--mount-proc"])
        .start()?;
    proc.expect_exit(0)?;
    let all = printed(t, "errors")?;
    ensure!(all.len() == 1 && all[0].contains("PID 1"), "{all:?}");
    Ok(())
}

/// By the script that installs it, found by pkg-config.
fn installed(t: &T) -> TestResult {
    need("pkg-config")?;
    if !have("install") {
        skip!("no install(1)");
    }
    let built = tool("ckpt-dump")?.parent().context("its directory")?.to_owned();
    let script = library().join("install");
    run(Command::new(&script).arg("--from").arg(&built).arg(t.path("prefix")))?;
    let pkg_config = |args: &[&str]| -> Result<Vec<String>, Error> {
        let output = Command::new("pkg-config")
            .args(args)
            .arg("ckpt")
            .env("PKG_CONFIG_PATH", t.path("prefix/lib/pkgconfig"))
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect())
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("self/rounds.c");
    let rpath = format!("-Wl,-rpath,{}", t.path("prefix/lib").display());
    let out = t.path("rounds");
    run(Command::new("cc")
        .arg("-o")
        .arg(&out)
        .arg(&source)
        .args(pkg_config(&["--cflags", "--libs"])?)
        .arg(rpath))?;
    let launch = t.launch("rounds", &out).env("CKPT_DUMP", tool("ckpt-dump")?);
    ends(t, launch.start()?)?;
    // All of it in the program.
    let whole = t.path("whole");
    run(Command::new("cc")
        .args(["-static", "-o"])
        .arg(&whole)
        .arg(&source)
        .args(pkg_config(&["--cflags", "--libs", "--static"])?))?;
    ends(t, t.launch("whole", &whole).env("CKPT_DUMP", tool("ckpt-dump")?).start()?)?;
    restore(t, "round1.ckpt")?;
    let all = printed(t, "whole")?;
    ensure!(all.len() == 6 && all[3] == "1 restored", "{all:?}");
    Ok(())
}

/// examples/self-checkpoint, with what is built here.
fn example(t: &T) -> TestResult {
    let bin = tool("ckpt-dump")?.parent().context("its directory")?.to_owned();
    let tmp = t.path("tmp");
    std::fs::create_dir(&tmp)?;
    let script = library().join("../examples/self-checkpoint/run");
    let mut example =
        t.launch("example", script).env("CKPT_EXAMPLES_BIN", bin).env("TMPDIR", &tmp).start()?;
    let status = example.wait_exit()?;
    if status.code() == Some(77) {
        skip!("{}", example.stderr().trim());
    }
    ensure!(status.success(), "{status}\n{}\n{}", example.stdout(), example.stderr());
    ensure!(std::fs::read_dir(&tmp)?.count() == 0, "files are left in {}", tmp.display());
    Ok(())
}

/// A library with ckpt-dump inside needs no other.
fn embedded(t: &T) -> TestResult {
    let dumper = tool("ckpt-dump")?;
    let profile = dumper.parent().context("its directory")?;
    let (name, target) = (profile.file_name().context("profile")?, profile.parent().context("target")?);
    let name = if name == "debug" { "dev".into() } else { name.to_owned() };
    let target = target.join("embed");
    run(Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "-p", "ckpt", "--lib", "--profile"])
        .arg(name)
        .arg("--target-dir")
        .arg(&target)
        .current_dir(library())
        .env("CKPT_EMBED", &dumper))?;
    let built = target.join(profile.file_name().context("profile")?).join("libckpt.so");
    let lib = t.path("libckpt.so.0");
    // Instead of the usual one.
    std::os::unix::fs::symlink(built, &lib)?;
    t.write("script", "2\n3\n1\n")?;
    let alone = |name: &str| -> Result<_, Error> {
        Ok(t.launch(name, compile(t, name, Linked::Shared)?).env("PATH", "/nowhere"))
    };
    ends(t, alone("memory")?.arg("script").start()?)?;
    let all = printed(t, "memory")?;
    ensure!(all == ["step 3", "step 2", "step 3", "step 1", "end"], "{all:?}");
    ends(t, alone("once")?.arg("saved.ckpt").start()?)?;
    restore(t, "saved.ckpt")?;
    ensure!(printed(t, "once")? == ["saved 1", "restored 1"], "{:?}", printed(t, "once")?);
    Ok(())
}

/// In the foreground of a terminal it stays there.
fn terminal(t: &T) -> TestResult {
    need("bash")?;
    compile(t, "memory", Linked::Shared)?;
    t.write("script", "1\n3\n")?;
    let terminal = t.terminal()?;
    let shell = t.launch("shell", "bash").args(["--norc", "-i"]).env("CKPT_DUMP", tool("ckpt-dump")?);
    let mut shell = terminal.attach(shell)?.start()?;
    terminal.send("./memory script; echo status-$?-of-it\n")?;
    let all = terminal.expect("status-0-of-it")?;
    ensure!(all.contains("step 3\r\nstep 1\r\nstep 3\r\nend\r\n"), "{all}");
    // It stays the shell's job.
    t.write("script", "1\n")?;
    terminal.send("./memory script | cat; exit 7\n")?;
    shell.expect_exit(7)
}
