//! Descriptors of kernel objects that are neither files nor sockets.

use ckpt_tests::{Scenarios, Suite, T, TestResult, Who, need_root};
use std::os::unix::fs::PermissionsExt;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("fd_kernel");
    suite.forms("form_pidfd", Scenarios::default());
    suite.forms("form_pidfd_gone", Scenarios::default());
    suite.victim("tree_fd_pidfd", Scenarios::tree());
    suite.test("pidfd_of_a_process_outside", pidfd_outside);
    suite.forms("form_inotify", Scenarios::default());
    suite.test("inotify_with_events", inotify_with_events);
    suite.test_as(Who::User, "inotify_on_what_is_hidden", inotify_hidden);
    suite.victim("epoll_edges", Scenarios::default());
    for kind in ["form_semaphore", "form_timerfd", "form_signalfd", "form_memfd"] {
        suite.forms(kind, Scenarios::default());
    }
    let allowed = Scenarios { dump_args: vec!["--allow", "aio"], ..Scenarios::default() };
    suite.victim("aio_context", allowed.all_pids());
    suite.test("aio_is_refused", |t| {
        let mut victim = t.victim("aio_context").start()?;
        t.dump(victim.pid()).kill().refused(5, &["io_setup", "in flight", "--allow aio"])?;
        t.go()?;
        victim.expect_exit(0)?;
        t.expect_ok()
    });
    suite.run()
}

/// Refused by name; by choice, that of one that has ended.
fn pidfd_outside(t: &T) -> TestResult {
    let mut victim = t.victim("odd").arg("pidfd").start()?;
    t.dump(victim.pid()).refused(5, &["fd 44", "a pidfd of process", "--allow pidfd-outside"])?;
    t.dump(victim.pid()).kill().args(["--allow", "pidfd-outside"]).ok()?;
    victim.wait_exit()?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

/// Refused; by choice the program is told that events are lost. The dumped one has them still.
fn inotify_with_events(t: &T) -> TestResult {
    let mut victim = t.victim("inotify_some").arg("pending").start()?;
    t.dump(victim.pid()).kill().refused(5, &["events wait", "IN_Q_OVERFLOW", "--allow inotify-events"])?;
    t.dump(victim.pid()).args(["--allow", "inotify-events"]).ok()?;
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()?;
    for file in ["go", "result", "watched/more"] {
        std::fs::remove_file(t.path(file))?;
    }
    t.tell("restored")?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

/// Without privileges it is not found; the user may name it.
fn inotify_hidden(t: &T) -> TestResult {
    need_root()?;
    let mut victim = t.victim("inotify_some").arg("hidden").start()?;
    t.dump(victim.pid()).refused(5, &["watch 1 is on inode", "--search DIR"])?;
    let closed = t.path("closed");
    // May be passed through, not looked into.
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o311))?;
    t.dump(victim.pid()).kill().args(["--search".as_ref(), closed.join("inner").as_os_str()]).ok()?;
    victim.wait_exit()?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}
