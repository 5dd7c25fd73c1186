//! Descriptors that processes of a tree share, send to each other, or have an end of each.

use ckpt_tests::{Scenarios, Suite};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("tree_fds");
    suite.victim("tree_fd_flight", Scenarios::default());
    suite.victim("tree_fd_shared", Scenarios::tree());
    suite.victim("tree_fd_pending", Scenarios::tree());
    suite.victim("tree_fd_mail", Scenarios::tree());
    suite.victim("tree_fd_tcp", Scenarios::tree());
    suite.run()
}
