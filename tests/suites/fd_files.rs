//! Files, pipes and FIFOs with more state than a path and an offset, in all forms.

use ckpt_tests::{Scenarios, Suite, T, TestResult, Who, need_root};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

const FILES: &[&str] = &[
    "path_file",
    "path_directory",
    "path_symlink",
    "path_fifo",
    "path_tty",
    "tmpfile",
    "tmpfile_write_only",
    "deleted_read_only",
    "in_deleted_directory",
    "deleted_directory",
    "sparse",
    "direct",
    "flags",
    "renamed",
    "replaced",
    "directory",
    "directory_in_memory",
    "kernel_file",
    "sys_file",
    "own_status",
    "own_directory",
    "read_lease",
    "write_lease",
];

const PIPES: &[&str] = &[
    "packets",
    "full",
    "writer_gone",
    "reader_gone",
    "fifo_reader",
    "fifo_hung_up",
    "fifo_writer",
    "fifo_both",
    "fifo_deleted",
    "to_thread",
    "to_process",
];

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("fd_files");
    for kind in FILES {
        suite.forms_of("form_files", kind, Scenarios::default());
    }
    for kind in PIPES {
        suite.forms_of("form_pipes", kind, Scenarios::default());
    }
    suite.victim("proc_files", Scenarios::tree());
    suite.test("bind_mount", bind_mount);
    suite.test_as(Who::User, "below_a_closed_directory", |t| {
        refused(t, "form_files", "closed", &["permission denied"])
    });
    suite.test("packets_and_bytes_in_one_pipe", |t| refused(t, "form_pipes", "mixed", &["packets", "bytes"]));
    suite.run()
}

/// In mounts of the test's own, which are those of all that it starts. They end with them.
fn bind_mount(t: &T) -> TestResult {
    need_root()?;
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    for name in ["real", "bound"] {
        std::fs::create_dir(t.path(name))?;
    }
    mount(Some(&t.path("real")), &t.path("bound"), none, MsFlags::MS_BIND, none)?;
    let mut victim = t.victim("fd_bind").start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.expect_signal(Signal::SIGKILL)?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    let result = t.expect_ok();
    // Or the directory of the test could not be removed.
    nix::mount::umount(&t.path("bound"))?;
    result
}

/// Named, and the program goes on.
fn refused(t: &T, victim: &str, kind: &str, words: &[&str]) -> TestResult {
    let mut victim = t.victim(victim).args(["plain", kind]).start()?;
    t.dump(victim.pid()).refused(5, words)?;
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}
