//! Files, pipes and FIFOs with more state than a path and an offset, in all forms.

use ckpt_tests::{Scenarios, Suite, T, TestResult, Who};

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
    suite.test_as(Who::User, "below_a_closed_directory", |t| {
        refused(t, "form_files", "closed", &["permission denied"])
    });
    suite.test("packets_and_bytes_in_one_pipe", |t| refused(t, "form_pipes", "mixed", &["packets", "bytes"]));
    suite.run()
}

/// Named, and the program goes on.
fn refused(t: &T, victim: &str, kind: &str, words: &[&str]) -> TestResult {
    let mut victim = t.victim(victim).args(["plain", kind]).start()?;
    t.dump(victim.pid()).refused(5, words)?;
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}
