//! System V IPC and POSIX message queues: by id, key and name, with contents and everything that is
//! attached to them.

use ckpt_tests::{Scenarios, Suite};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("ipc");
    let plain = Scenarios::default;
    suite.victim("sysv_shm", plain().all_pids());
    suite.victim("sysv_sem", plain().all_pids());
    suite.victim("sysv_msg", plain().all_pids());
    suite.run()
}
