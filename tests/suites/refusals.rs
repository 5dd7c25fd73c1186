//! What cannot be done is refused in a sentence, with the documented exit code; the target goes on
//! unharmed and nothing partial is left.

use ckpt_tests::{
    Context, Dumped, Error, Proc, Suite, T, TestResult, Who, bail, ensure, failpoints, need, need_root,
    procfs,
};
use nix::sys::signal::Signal;
use std::process::Command;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("refusals");
    suite.test("no_such_process", |t| t.dump(4_194_303).refused(3, &["4194303"]).map(drop));
    suite.test("usage", usage);
    suite.test("kernel_thread", kernel_thread);
    suite.test("zombie", zombie);
    suite.test("already_traced", traced);
    suite.test("thirty_two_bits", thirty_two_bits);
    suite.test("not_permitted", not_permitted);
    suite.test("another_user_is_not_permitted", |t| {
        let victim = t.victim("counter").start()?;
        copy_for_user(t)?;
        t.dump(victim.pid()).who(Who::User).output("/tmp/never.ckpt").refused(4, &["permi"])?;
        unharmed(t, victim)
    });
    suite.test_as(Who::User, "unwritable_directory", |t| {
        need_root()?;
        let victim = t.victim("counter").start()?;
        t.dump(victim.pid()).output("/usr/saved.ckpt").refused(6, &["/usr", "permission denied"])?;
        unharmed(t, victim)
    });
    suite.test("no_such_directory", |t| {
        let victim = t.victim("counter").start()?;
        t.dump(victim.pid()).output("none/saved.ckpt").refused(6, &["none", "no such file"])?;
        unharmed(t, victim)
    });
    suite.test("full_disk", full_disk);
    for (kind, word) in [
        ("userfaultfd", "fd 41"),
        ("io_uring", "fd 42"),
        ("perf", "fd 43"),
        ("pidfd", "fd 44"),
        ("tcp", "fd 45"),
        ("scm_rights", "in a message for fd 48"),
        ("netlink", "messages that wait in a netlink socket"),
        ("packet", "it has a ring"),
        ("bpf", "fd 37"),
        ("secret", "memfd_secret"),
        ("cwd", "directory"),
        ("uts", "namespace"),
        ("net", "namespace"),
        ("user", "namespace"),
        ("ldt", "modify_ldt"),
        ("ioports", "ports"),
        ("own_files", "descriptor table of its own"),
        ("own_directory", "directories of its own"),
        ("huge_memfd", "fd 35"),
        ("console", "virtual console"),
        ("dnotify", "dnotify"),
        ("pressure", "pressure stall trigger"),
        ("other_process", "file of another process"),
    ] {
        suite.test(format!("unsupported_{kind}"), move |t| {
            let victim = t.victim("odd").arg(kind).start()?;
            let args: &[&str] = if kind == "tcp" { &["--tcp", "refuse"] } else { &[] };
            t.dump(victim.pid()).args(args).refused(5, &[word])?;
            unharmed(t, victim)
        });
    }
    suite.test("leader_gone", |t| {
        // Saved in full, or refused; the harness cannot tell which is right.
        let mut victim = t.victim("leader_gone").start()?;
        let dumped = t.dump(victim.pid()).arg("--kill").run()?;
        if dumped.code != Some(0) {
            ensure!(matches!(dumped.code, Some(5 | 7)), "{dumped:?}");
            return unharmed(t, victim);
        }
        victim.wait_exit()?;
        let restored = t.restore("saved.ckpt").start()?;
        unharmed(t, restored)
    });
    suite.test("pipe_to_the_outside", |t| {
        let (theirs, _ours) = std::io::pipe()?;
        let script = format!("exec 5<&0 </dev/null; exec {}", t.path("counter").display());
        let victim = t.victim("counter").with(|l| l.wrapper(["sh", "-c", &script]).stdin(theirs)).start()?;
        t.dump(victim.pid()).refused(5, &["fd 5", "pipe"])?;
        unharmed(t, victim)
    });
    suite.test("check_lists_all_obstacles", check_all);
    suite.test("check_lists_all_of_a_tree", |t| check_tree(t, &[]));
    suite.test_as(Who::User, "check_lists_all_of_a_tree_with_a_sandbox", |t| check_tree(t, &["seccomp"]));
    suite.test("check_writes_nothing", |t| {
        let victim = t.victim("counter").start()?;
        let dumped = t.dump(victim.pid()).arg("--check").ok()?;
        ensure!(!dumped.image.exists(), "--check wrote an image");
        unharmed(t, victim)
    });
    suite.test("target_that_dies_meanwhile", vanished);
    suite.test("existing_image_survives_a_refusal", |t| {
        let victim = t.victim("odd").arg("perf").start()?;
        t.write("saved.ckpt", "precious")?;
        let dumped = t.dump(victim.pid()).run()?;
        ensure!(dumped.code == Some(5), "{dumped:?}");
        ensure!(t.read("saved.ckpt")? == "precious", "the old file is gone");
        unharmed(t, victim)
    });
    for name in failpoints() {
        let name: &'static str = name.leak();
        suite.test(format!("fault::{name}"), move |t| fault(t, name, false, false));
        // --kill kills only when the image is complete.
        suite.test(format!("fault::{name}::with_kill"), move |t| fault(t, name, false, true));
        suite.test(format!("fault::{name}::killed"), move |t| fault(t, name, true, false));
    }
    suite.run()
}

/// The target goes on as if nothing had been.
fn unharmed(t: &T, mut victim: Proc) -> TestResult {
    ensure!(procfs::status(victim.pid(), "TracerPid").as_deref() == Some("0"), "the target is still traced");
    t.tell("ping")?;
    t.wait_until("sign of life of the target", || {
        victim.ensure_alive()?;
        Ok(t.path("pong").exists())
    })?;
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}

/// Puts ckpt-dump where the ordinary user can run it.
fn copy_for_user(t: &T) -> TestResult {
    need_root()?;
    ckpt_tests::copy(&ckpt_tests::tool("ckpt-dump")?, &t.path("ckpt-dump"))
}

fn usage(t: &T) -> TestResult {
    let tool = ckpt_tests::tool("ckpt-dump")?;
    for args in [&["abc", "-o", "x"][..], &["1"][..], &["1", "-o", "x", "--nonsense"][..], &[][..]] {
        let output = Command::new(&tool).args(args).current_dir(t.dir()).output()?;
        ensure!(output.status.code() == Some(2), "{args:?}: {output:?}");
        ensure!(!output.stderr.is_empty(), "{args:?}: no message");
    }
    Ok(())
}

fn kernel_thread(t: &T) -> TestResult {
    if procfs::comm(2).as_deref() != Some("kthreadd") {
        ckpt_tests::skip!("pid 2 is not a kernel thread here");
    }
    t.dump(2).refused(7, &["kernel thread"]).map(drop)
}

fn zombie(t: &T) -> TestResult {
    let parent = t.launch("parent", "sh").args(["-c", "true & exec sleep 60"]).start()?;
    let child = t.wait_for("a zombie", || {
        let below = procfs::descendants(parent.pid());
        Ok(below.into_iter().find(|&pid| procfs::state(pid) == Some('Z')))
    })?;
    t.dump(child).refused(7, &["zombie"]).map(drop)
}

fn traced(t: &T) -> TestResult {
    need("strace")?;
    let victim = t.victim("counter").start()?;
    let pid = victim.pid().to_string();
    let mut strace = t
        .launch("strace", "strace")
        .args(["-f", "-e", "trace=none", "-o", "/dev/null", "-p", &pid])
        .start()?;
    t.wait_until("strace at work", || Ok(procfs::status(victim.pid(), "TracerPid").as_deref() != Some("0")))?;
    t.dump(victim.pid()).refused(7, &["strace", &strace.pid().to_string()])?;
    strace.signal(Signal::SIGTERM);
    strace.wait_exit()?;
    unharmed(t, victim)
}

fn thirty_two_bits(t: &T) -> TestResult {
    // pause() by int 0x80, again and again; without a libc, which is seldom installed for 32 bits.
    let source = "void _start(void){for(;;){int r;__asm__ volatile(\"int $0x80\":\"=a\"(r):\"0\"(29));}}";
    t.write("small.c", source)?;
    let cc = Command::new("cc")
        .args(["-m32", "-nostdlib", "-static", "-o", "small", "small.c"])
        .current_dir(t.dir())
        .output()?;
    if !cc.status.success() {
        ckpt_tests::skip!("cc -m32 does not work here");
    }
    let mut victim = t.launch("small", t.path("small")).start().context("no 32-bit programs here")?;
    t.wait_until("the 32-bit program", || Ok(procfs::comm(victim.pid()).as_deref() == Some("small")))?;
    t.dump(victim.pid()).refused(7, &["32-bit"])?;
    victim.ensure_alive()
}

fn not_permitted(t: &T) -> TestResult {
    copy_for_user(t)?;
    t.dump(1).who(Who::User).output("/tmp/never.ckpt").refused(4, &["pid 1"]).map(drop)
}

fn full_disk(t: &T) -> TestResult {
    need_root()?;
    let victim = t.victim("mem_anon").start()?;
    std::fs::create_dir(t.path("small"))?;
    let script = format!(
        "mount -t tmpfs -o size=1m none small || exit 99; {} {} -o small/saved.ckpt --kill; s=$?; ls -A small; exit $s",
        ckpt_tests::tool("ckpt-dump")?.display(),
        victim.pid()
    );
    let mut shell = t.launch("dump", "unshare").args(["-m", "sh", "-c", &script]).start()?;
    let status = shell.wait_exit()?;
    if status.code() == Some(99) {
        ckpt_tests::skip!("cannot mount a tmpfs here: {}", shell.stderr());
    }
    let said = shell.stderr();
    ensure!(status.code() == Some(6), "{status}: {said}");
    ensure!(said.to_lowercase().contains("no space left"), "{said}");
    ensure!(!shell.stdout().contains("ckpt"), "left behind: {}", shell.stdout());
    unharmed(t, victim)
}

fn check_all(t: &T) -> TestResult {
    let victim = t.victim("odd").args(["pidfd", "perf", "tcp"]).start()?;
    let dumped =
        t.dump(victim.pid()).args(["--check", "--tcp", "refuse"]).refused(5, &["fd 43", "fd 44", "fd 45"])?;
    let lines = dumped.stderr.lines().filter(|l| l.starts_with("ckpt-dump: ")).count();
    ensure!(lines >= 3, "not one line each:\n{}", dumped.stderr);
    unharmed(t, victim)
}

/// What one of three processes has, all of it, with who has it and what helps; also as JSON. `first`: kinds that
/// the first process has before, so that all have them.
fn check_tree(t: &T, first: &[&str]) -> TestResult {
    let kinds =
        ["perf", "dnotify", "other_process", "/", "io_uring", "userfaultfd", "/", "huge_memfd", "scm_rights"];
    let victim = t.victim("odd").args(first).args(kinds).env("CKPT_ODD", "1").start()?;
    let mut pids = vec![victim.pid()];
    pids.extend(procfs::descendants(victim.pid()));
    ensure!(pids.len() == 3, "{pids:?}");
    let dumped = t.dump(victim.pid()).arg("--check").arg("--json").refused(5, &[])?;
    let wanted = [
        (0, 43, "perf event", vec![(1, 43), (2, 43)]),
        (0, 33, "dnotify", vec![(1, 33), (2, 33)]),
        (0, 31, "another process", vec![(1, 31), (2, 31)]),
        (1, 42, "io_uring", vec![(2, 42)]),
        (1, 41, "userfaultfd", vec![(2, 41)]),
        (2, 35, "memfd of huge pages", vec![]),
        (2, 48, "pidfd", vec![]),
    ];
    for (process, fd, what, also) in wanted {
        let pid = pids[process];
        let others: Vec<String> =
            also.iter().map(|(p, fd)| format!(r#"{{"fd":{fd},"pid":{}}}"#, pids[*p])).collect();
        let line =
            dumped.stderr.lines().find(|l| l.contains(what) && l.contains(&format!("PID {pid} (odd) ")));
        let line = line.with_context(|| format!("no {what} of {pid} in:\n{}", dumped.stderr))?;
        ensure!(line.contains("fd ") && line.contains("; "), "{line}");
        let also = format!("\"also\":[{}]", others.join(","));
        let fd = format!("\"fd\":{fd},\"name\":\"odd\",\"pid\":{pid},");
        ensure!(dumped.stdout.contains(&format!("{also},{fd}")), "no {also},{fd} in {}", dumped.stdout);
    }
    let sandboxed = dumped.stderr.matches("seccomp").count();
    ensure!(first.is_empty() == (sandboxed == 0), "{}", dumped.stderr);
    unharmed(t, victim)
}

/// A target that is killed while it is dumped: an error, no image, no hang.
fn vanished(t: &T) -> TestResult {
    for delay in [0u32, 1, 3, 8, 20] {
        let victim = t.victim("mem_anon").start()?;
        let mut dump = t.dump(victim.pid()).start()?;
        let start = std::time::Instant::now();
        t.wait_until("a moment", || Ok(start.elapsed().as_millis() >= delay.into()))?;
        victim.signal(Signal::SIGKILL);
        let status = dump.wait_exit()?;
        match status.code() {
            // Too late: the image was complete before.
            Some(0) => std::fs::remove_file(t.path("saved.ckpt"))?,
            // A zombie already when ckpt-dump looked first.
            Some(7) if dump.stderr().contains("zombie") => {}
            Some(3) => ensure!(!t.path("saved.ckpt").exists(), "an image of a dead process"),
            _ => bail!("killed after {delay} ms: {status}\n{}", dump.stderr()),
        }
        std::fs::remove_file(t.path("ready"))?;
    }
    Ok(())
}

fn fault(t: &T, name: &str, kill: bool, to_kill: bool) -> TestResult {
    // Where nothing can be run in the target any more, some memory of ours may stay there, which
    // mem_anon would notice.
    let victim = match name {
        // Its calls are all made one by one.
        _ if name.starts_with("call-") => "thr_caught",
        _ if kill || name.starts_with("batch-") => "thr_many",
        _ => "mem_anon",
    };
    let victim = t.victim(victim).start()?;
    let before = files(t)?;
    let value = if kill { format!("{name}=kill") } else { name.to_owned() };
    let options: &[&str] = if to_kill { &["--kill"] } else { &[] };
    let dumped: Dumped = t.dump(victim.pid()).args(options).env("CKPT_FAILPOINT", value).run()?;
    if kill {
        ensure!(dumped.code.is_none(), "it was not killed: {dumped:?}");
    } else {
        ensure!(matches!(dumped.code, Some(1..=7)), "exit status {:?}: {}", dumped.code, dumped.stderr);
        ensure!(
            dumped.stderr.contains(name.split('#').next().unwrap_or(name)),
            "the message is {:?}",
            dumped.stderr
        );
    }
    let mut left = files(t)?;
    left.retain(|f| !before.contains(f) && !f.starts_with("dump1."));
    ensure!(left.is_empty(), "left behind: {left:?}");
    t.wait_until("the end of the trace", || {
        Ok(procfs::status(victim.pid(), "TracerPid").as_deref() == Some("0"))
    })?;
    unharmed(t, victim)
}

fn files(t: &T) -> Result<Vec<String>, Error> {
    Ok(std::fs::read_dir(t.dir())?.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
}
