//! Blocked system calls, signals, timers, attributes and credentials.

use ckpt_tests::{Proc, Scenarios, Suite, T, TestResult, Who, need_root};
use nix::sys::signal::Signal;

const BLOCKED: &[&str] = &[
    "read_pipe",
    "readv_pipe",
    "write_pipe",
    "read_socketpair",
    "recv_socketpair",
    "poll",
    "poll_timeout",
    "ppoll",
    "select",
    "pselect",
    "epoll_wait",
    "epoll_pwait",
    "futex",
    "futex_timeout",
    "futex_bitset",
    "mutex",
    "nanosleep",
    "clock_nanosleep",
    "clock_nanosleep_absolute",
    "sigwaitinfo",
    "sigtimedwait",
    "pause",
    "sigsuspend",
    "semop",
    "msgrcv",
    "accept",
    "flock",
];

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("kernel_state");
    let plain = Scenarios::default;
    for call in BLOCKED {
        let scenarios = Scenarios { user: false, args: vec![call], ..plain() };
        suite.victim_named(&format!("blocked_{call}"), "blocked", scenarios);
    }
    suite.victim("sig_actions", plain());
    suite.victim("sig_pending", plain());
    suite.victim("sig_eintr", plain().pids(&["ns"]));
    if std::env::var_os("CKPT_TEST_PLAIN").is_none() {
        for mode in ["new", "same", "ns"] {
            suite.test(format!("sig_stopped::pid-{mode}"), move |t| stopped(t, mode));
        }
        suite.test("sig_stopped::unharmed", |t| {
            let mut victim = start_stopped(t)?;
            t.dump(victim.pid()).ok()?;
            victim.wait_state('T')?;
            resume(t, &mut victim)
        });
    }
    if ckpt_tests::binfmt::is_inside() {
        suite.test("seccomp", |_| {
            ckpt_tests::skip!(
                "filters are read with CAP_SYS_ADMIN in the first user namespace, which is not this one"
            )
        });
    } else {
        seccomp(&mut suite);
    }
    if std::env::var_os("CKPT_TEST_PLAIN").is_none() {
        for who in [Who::Me, Who::User] {
            for (kind, allow) in [("landlock", "landlock"), ("keyring", "keyrings")] {
                suite.test_as(who, format!("sandbox_{kind}::{who:?}"), move |t| {
                    lost_if_allowed(t, kind, allow)
                });
            }
        }
        suite.test("sandbox_session::noted", |t| {
            let mut victim = t.victim("sandbox").arg("session").start()?;
            let dumped = t.dump(victim.pid()).ok()?;
            ckpt_tests::ensure!(dumped.stderr.contains("session keyring"), "{}", dumped.stderr);
            t.go()?;
            victim.expect_exit(0)
        });
    }
    suite.victim("timer_itimers", plain());
    suite.victim("timer_storm", plain());
    suite.victim("timer_posix", plain().pids(&["ns"]));
    suite.victim("proc_attributes", plain().all_pids());
    suite.victim("proc_chroot", Scenarios::root_only());
    suite.victim("proc_nondumpable", Scenarios::root_only());
    for kind in ["plain", "caps", "mixed"] {
        let scenarios = Scenarios::root_only().args(&[kind]).pids(&["same"]);
        suite.victim_named(&format!("cred_{kind}"), "cred_worker", scenarios);
    }
    suite.run()
}

fn start_stopped(t: &T) -> Result<Proc, ckpt_tests::Error> {
    let victim = t.victim("sig_stopped").start()?;
    victim.wait_state('T')?;
    victim.signal(Signal::SIGUSR2);
    Ok(victim)
}

fn resume(t: &T, proc: &mut Proc) -> TestResult {
    proc.signal(Signal::SIGCONT);
    t.ping()?;
    t.go()?;
    proc.expect_exit(0)?;
    t.expect_ok()
}

/// A stopped process comes back stopped, in front of its shell, too.
fn stopped(t: &T, mode: &str) -> TestResult {
    if mode == "same" {
        need_root()?;
    }
    let mut victim = start_stopped(t)?;
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit()?;
    let mut restored = t.restore("saved.ckpt").pid(mode).start()?;
    t.wait_until("the restored process in a stop", || {
        restored.ensure_alive()?;
        Ok(ckpt_tests::procfs::state(restored.pid()) == Some('T'))
    })?;
    resume(t, &mut restored)
}

fn seccomp(suite: &mut Suite) {
    for kind in ["filter", "stacked", "threads", "differ", "privileged"] {
        let scenarios = Scenarios::root_only().args(&[kind]).pids(&["same", "ns"]);
        suite.victim_named(&format!("seccomp_{kind}"), "seccomp", scenarios);
    }
    let children = Scenarios { user: false, ..Scenarios::tree() };
    suite.victim_named("seccomp_children", "seccomp", children.args(&["children"]));
    if std::env::var_os("CKPT_TEST_PLAIN").is_none() {
        for kind in ["filter", "stacked", "threads", "differ"] {
            suite.test_as(Who::User, format!("seccomp_{kind}::restored-by-user"), move |t| {
                seccomp_by_user(t, kind)
            });
        }
        suite.test("seccomp_notify::refused", |t| {
            let mut victim = t.victim("seccomp").arg("notify").start()?;
            t.dump(victim.pid()).refused(5, &["SECCOMP_RET_USER_NOTIF", "seccomp listener"])?;
            t.go()?;
            victim.expect_exit(0)
        });
    }
}

/// An ordinary user cannot read filters, and is told so; but can restore what root has dumped.
fn seccomp_by_user(t: &T, kind: &str) -> TestResult {
    need_root()?;
    let mut victim = t.victim("seccomp").arg(kind).start()?;
    t.dump(victim.pid()).refused(5, &["seccomp filter", "CAP_SYS_ADMIN"])?;
    let dumped = t.dump(victim.pid()).who(Who::Me).kill().ok()?;
    t.who().own(&dumped.image)?;
    victim.wait_exit()?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.ping()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

/// Refused, with the option; with that, it is not there after a restore.
fn lost_if_allowed(t: &T, kind: &str, allow: &str) -> TestResult {
    let mut victim = t.victim("sandbox").arg(kind).start()?;
    t.dump(victim.pid()).refused(5, &[kind, &format!("--allow {allow}")])?;
    t.dump(victim.pid()).kill().args(["--allow", allow]).ok()?;
    victim.wait_exit()?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}
