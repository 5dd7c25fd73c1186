//! Descriptors of kernel objects that are neither files nor sockets.

use ckpt_tests::{Scenarios, Suite, T, TestResult, Who, need_root};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("fd_kernel");
    suite.forms("form_pidfd", Scenarios::default());
    suite.forms("form_pidfd_gone", Scenarios::default());
    suite.victim("tree_fd_pidfd", Scenarios::tree());
    suite.test("pidfd_of_a_process_outside", pidfd_outside);
    if ckpt_tests::binfmt::is_inside() {
        suite.test("form_inotify, form_fanotify_fid", |_| {
            ckpt_tests::skip!(
                "root of a user namespace looks for inodes in directories, which is seen, and is told no pids"
            )
        });
    } else {
        suite.forms("form_inotify", Scenarios::default());
        suite.forms("form_fanotify_fid", Scenarios::default());
    }
    suite.test("inotify_with_events", inotify_with_events);
    suite.test_as(Who::User, "inotify_on_what_is_hidden", inotify_hidden);
    suite.forms("form_fanotify", Scenarios::root_only());
    suite.test("fanotify_marks_on_mounts", fanotify_mounts);
    suite.test("fanotify_is_refused", fanotify_refused);
    suite.test_as(Who::User, "fanotify_of_a_user_by_root", fanotify_by_root);
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

/// A tmpfs of its own, so that nobody else is heard.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

impl Mounted {
    fn new(path: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&path)?;
        if let Err(e) = mount(Some("none"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>) {
            ckpt_tests::skip!("cannot mount a tmpfs here: {e}");
        }
        Ok(Self(path))
    }
}

/// Marks on mounts and file systems; what is not mounted any more is named, and so is a copy of the mount.
fn fanotify_mounts(t: &T) -> TestResult {
    need_root()?;
    let mounted = Mounted::new(t.path("marked"))?;
    let mut victim = t.victim("fanotify_some").arg("mounts").start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit()?;
    t.restore("saved.ckpt").pid("ns").refused(&["marked", "mount of", "--pid same"])?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()?;
    drop(mounted);
    t.restore("saved.ckpt").refused(&["marked", "where nothing is now"])
}

/// Permission groups, and events that wait.
fn fanotify_refused(t: &T) -> TestResult {
    need_root()?;
    for (kind, words) in [("permission", "permits what others do"), ("pending", "events wait to be read")] {
        let mut victim = t.victim("fanotify_some").arg(kind).start()?;
        t.dump(victim.pid()).kill().refused(5, &["anon_inode:[fanotify]", words])?;
        t.go()?;
        victim.expect_exit(0)?;
        t.expect_ok()?;
        for file in ["go", "result"] {
            std::fs::remove_file(t.path(file))?;
        }
        std::fs::remove_dir_all(t.path("marked"))?;
    }
    Ok(())
}

/// A group that was made without privileges tells no more when root restores it.
fn fanotify_by_root(t: &T) -> TestResult {
    need_root()?;
    let mut victim = t.victim("form_fanotify_fid").start()?;
    t.dump(victim.pid()).who(Who::Me).kill().ok()?;
    victim.wait_exit()?;
    let mut restored = t.restore("saved.ckpt").who(Who::Me).start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}
