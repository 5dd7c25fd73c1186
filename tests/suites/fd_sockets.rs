//! Sockets other than TCP, and the options of all. As root, the suite has a network namespace of its own, in
//! which ports are free and settings may be changed.

use ckpt_tests::{Scenarios, Suite};
use std::process::Command;

fn main() -> std::process::ExitCode {
    own_network();
    let mut suite = Suite::new("fd_sockets");
    suite.victim("sock_options", Scenarios::default().args(&["root", "known"]));
    suite.run()
}

/// Enters a new network namespace with a loopback and a second interface. Without privileges: stays.
fn own_network() {
    use nix::sched::{CloneFlags, unshare};
    if !nix::unistd::geteuid().is_root() || unshare(CloneFlags::CLONE_NEWNET).is_err() {
        return;
    }
    let ip = |args: &str| Command::new("ip").args(args.split(' ')).status().is_ok_and(|s| s.success());
    if !ip("link set lo up") {
        eprintln!("fd_sockets: no loopback in the network namespace (is iproute2 installed?)");
    }
    // Everybody may ping.
    let _ = std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0\t2147483647");
}
