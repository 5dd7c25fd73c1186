//! The world around the process differs: programs replaced or gone, other limits and address space
//! layouts, files renamed.

use ckpt_tests::{Proc, Scenarios, Suite, T, TestResult, ensure, need_root, procfs};
use std::fs;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("surroundings");
    let wrapped = |before: &[&'static str], after: &[&'static str]| Scenarios {
        wrapper: before.to_vec(),
        restore_wrapper: after.to_vec(),
        ..Scenarios::default()
    };
    let unlimited: &[&str] = &["prlimit", "--stack=unlimited", "--"];
    let legacy: &[&str] = &["setarch", "-L"];
    let executable: &[&str] = &["setarch", "-X"];
    for (name, before, after) in [
        ("stack_unlimited", unlimited, &[][..]),
        ("stack_unlimited_here", &[], unlimited),
        ("stack_unlimited_both", unlimited, unlimited),
        ("layout_legacy", legacy, &[]),
        ("layout_legacy_here", &[], legacy),
        ("read_implies_exec", executable, &[]),
        ("read_implies_exec_here", &[], executable),
        ("no_aslr_here", &[], &["setarch", "-R"]),
        ("small_stack_here", &[], &["prlimit", "--stack=65536", "--"]),
        ("no_core_here", &[], &["prlimit", "--core=0:0", "--"]),
        ("low_nofile_here", &[], &["prlimit", "--nofile=16:", "--"]),
        ("locked_memory_here", &[], &["prlimit", "--memlock=0:0", "--"]),
        ("nice_here", &[], &["nice", "-n", "5"]),
        ("one_cpu_here", &[], &["taskset", "-c", "0"]),
    ] {
        suite.victim_named(name, "mem_anon", wrapped(before, after));
    }
    for who in [ckpt_tests::Who::Me, ckpt_tests::Who::User] {
        let suffix = if who == ckpt_tests::Who::Me { "" } else { "_user" };
        suite.test_as(who, format!("program_deleted{suffix}"), |t| {
            program(t, |t| Ok(fs::remove_file(t.path("mem_anon"))?))
        });
        suite.test_as(who, format!("program_replaced{suffix}"), |t| {
            program(t, |t| {
                fs::remove_file(t.path("mem_anon"))?;
                t.write("mem_anon", "another program").map(drop)
            })
        });
    }
    suite.test("program_replaced_after_the_dump", |t| {
        let victim = t.victim("counter").start()?;
        save(t, victim)?;
        fs::remove_file(t.path("counter"))?;
        t.write("counter", "another program")?;
        finish(t, t.restore("saved.ckpt").start()?)
    });
    suite.test("program_replaced_after_a_thin_dump", |t| {
        let mut victim = t.victim("counter").start()?;
        t.dump(victim.pid()).kill().arg("--no-embed").ok()?;
        victim.wait_exit()?;
        fs::remove_file(t.path("counter"))?;
        t.restore("saved.ckpt").refused(&["counter"])?;
        t.write("counter", "another program")?;
        t.restore("saved.ckpt").refused(&["counter"])
    });
    suite.test("directory_gone", |t| {
        fs::create_dir(t.path("work"))?;
        let victim = t.victim("counter").with(|l| l.current_dir(t.path("work"))).start()?;
        save(t, victim)?;
        fs::remove_dir(t.path("work"))?;
        t.restore("saved.ckpt").refused(&["work", "--chdir"])?;
        finish(t, t.restore("saved.ckpt").arg("--chdir").arg(t.dir()).start()?)
    });
    suite.test("port_taken", port_taken);
    suite.test("too_few_descriptors", |t| limited(t, "fd_regular", &["prlimit", "--nofile=64:64", "--"]));
    suite.test("too_little_address_space", |t| {
        limited(t, "mem_anon", &["prlimit", "--as=200000000:200000000", "--"])
    });
    suite.test("too_small_files", |t| {
        need_root()?;
        limited(t, "fd_deleted", &["prlimit", "--fsize=1000:1000", "--"])
    });
    suite.test("other_environment", |t| {
        let victim = t.victim("mem_identity").args(["a", "b", "c"]).start()?;
        save(t, victim)?;
        let restore =
            t.restore("saved.ckpt").pid("new").with(|l| l.env("LD_PRELOAD", "/none.so").env("X", "y"));
        finish(t, restore.start()?)
    });
    suite.run()
}

fn save(t: &T, mut victim: Proc) -> TestResult {
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit().map(drop)
}

fn finish(t: &T, mut proc: Proc) -> TestResult {
    t.tell("ping")?;
    t.wait_until("sign of life", || {
        proc.ensure_alive()?;
        Ok(t.path("pong").exists())
    })?;
    t.go()?;
    proc.expect_exit(0)?;
    t.expect_ok()
}

/// The program's file changes while it runs.
fn program(t: &T, change: impl Fn(&T) -> TestResult) -> TestResult {
    let victim = t.victim("mem_anon").start()?;
    change(t)?;
    save(t, victim)?;
    let restored = t.restore("saved.ckpt").start()?;
    t.ping()?;
    t.go()?;
    let mut restored = restored;
    // Only the name of the program's own mappings may differ: it is a copy now.
    let status = restored.wait_exit()?;
    let stderr = t.read("mem_anon.err")?;
    let other = stderr.lines().filter(|l| !l.contains("mem_anon") && !l.starts_with("victim: "));
    ensure!(status.code() == Some(0) || other.count() == 0, "{status}: {stderr}");
    Ok(())
}

/// A listening port that somebody else has now is named.
fn port_taken(t: &T) -> TestResult {
    let victim = t.victim("fd_socket").start()?;
    let pid = victim.pid();
    let inodes: Vec<String> = procfs::fds(pid)
        .into_iter()
        .filter_map(|(_, l)| Some(l.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = procfs::read(pid, "net/tcp").unwrap_or_default();
    let port = table
        .lines()
        .filter(|line| line.split_whitespace().nth(9).is_some_and(|i| inodes.iter().any(|have| have == i)))
        .find_map(|line| u16::from_str_radix(line.split_whitespace().nth(1)?.rsplit_once(':')?.1, 16).ok());
    let Some(port) = port else { ckpt_tests::bail!("no listening port in\n{table}") };
    save(t, victim)?;
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port))?;
    t.restore("saved.ckpt").refused(&[&port.to_string(), "in use"])
}

/// Under limits that may be too small: refused, or exactly right; never a crash.
fn limited(t: &T, victim: &str, wrapper: &[&str]) -> TestResult {
    let victim = t.victim(victim).start()?;
    save(t, victim)?;
    let mut restored = t.restore("saved.ckpt").pid("new").with(|l| l.wrapper(wrapper)).start()?;
    t.go()?;
    let status = restored.wait_exit()?;
    match status.code() {
        Some(0) => t.expect_ok(),
        Some(125) => {
            let said = restored.stderr();
            ensure!(said.starts_with("ckpt: ") && !t.path("result").exists(), "{said}");
            Ok(())
        }
        _ => ckpt_tests::bail!("{status}: {}", restored.stderr()),
    }
}
