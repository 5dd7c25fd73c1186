//! What /proc shows of victims before and after, compared: finds what was lost without a test of its
//! own, and memory that grew.

use ckpt_tests::{Suite, T, TestResult, Who, bail, ensure, need_root, procfs, view};

const VICTIMS: &[(&str, &[&str])] = &[
    ("counter", &[]),
    ("mem_anon", &[]),
    ("mem_anon_shared", &[]),
    ("mem_brk", &[]),
    ("mem_file_private", &[]),
    ("mem_file_shared", &[]),
    ("mem_flags", &[]),
    ("mem_guard", &[]),
    ("mem_identity", &["a", "b", "c"]),
    ("mem_many", &[]),
    ("mem_memfd", &[]),
    ("mem_prot", &[]),
    ("mem_reserve", &[]),
    ("mem_stack", &[]),
    ("mem_thp", &[]),
    ("thr_many", &["20"]),
    ("thr_mutex", &[]),
    ("thr_state", &[]),
    ("sig_actions", &[]),
    ("sig_pending", &[]),
    ("timer_posix", &[]),
    ("proc_attributes", &[]),
    ("proc_rare", &[]),
    ("cred_worker", &["plain"]),
    ("cred_worker", &["caps"]),
    ("cred_worker", &["mixed"]),
    ("fd_regular", &[]),
    ("fd_deleted", &[]),
    ("fd_locks", &[]),
    ("fd_pipe", &[]),
    ("fd_event", &[]),
    ("fd_epoll", &[]),
    ("fd_socket", &[]),
    ("fd_socketpair", &[]),
];

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("exact");
    for (victim, args) in VICTIMS {
        let name = args.iter().fold((*victim).to_owned(), |name, arg| format!("{name}_{arg}"));
        suite.test(format!("{name}::same"), move |t| compare(t, victim, args, "same", "eager"));
        suite.test(format!("{name}::lazy"), move |t| compare(t, victim, args, "same", "lazy"));
        if !victim.starts_with("cred_") {
            suite.test_as(Who::User, format!("{name}::new"), move |t| {
                compare(t, victim, args, "new", "eager")
            });
            suite.test_as(Who::User, format!("{name}::lazy-user"), move |t| {
                compare(t, victim, args, "ns", "lazy")
            });
        }
    }
    suite.run()
}

fn compare(t: &T, victim: &str, args: &[&str], mode: &str, memory: &str) -> TestResult {
    if mode == "same" {
        need_root()?;
    }
    let mut original = t.victim(victim).args(args).start()?;
    // The main thread may still be inside of pthread_create() when another one is ready.
    let mut before = view::of(original.pid());
    t.wait_until("a victim at rest", || {
        let last = std::mem::replace(&mut before, view::of(original.pid()));
        Ok(last == before)
    })?;
    let rss_before = view::anonymous_kib(original.pid());
    t.dump(original.pid()).kill().ok()?;
    original.wait_exit()?;
    let mut restored = t.restore("saved.ckpt").pid(mode).args(["--memory", memory]).start()?;
    t.tell("ping")?;
    t.wait_until("sign of life", || {
        restored.ensure_alive()?;
        Ok(t.path("pong").exists())
    })?;
    if mode == "new" {
        t.wait_restored(&mut restored)?;
    }
    let pid = procfs::program(restored.pid());
    t.wait_until("the end of the trace", || Ok(procfs::status(pid, "TracerPid").as_deref() == Some("0")))?;
    let mut after = view::of(pid);
    t.wait_until("a restored victim at rest", || {
        let last = std::mem::replace(&mut after, view::of(pid));
        Ok(last == after)
    })?;
    // Needs a privilege; stdio is the caller's.
    let mut ignored = vec!["fd 0"];
    if mode == "new" {
        ignored.push("exe");
    }
    let differences = view::differences(&before, &after, &ignored);
    if !differences.is_empty() {
        bail!("{} differences:\n{}", differences.len(), differences.join("\n"));
    }
    let rss = view::anonymous_kib(pid);
    ensure!(rss <= rss_before + rss_before / 10 + 300, "anonymous memory: {rss_before} KiB became {rss} KiB");
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}
