//! Sockets other than TCP, and the options of all. As root, the suite has a network namespace of its own, in
//! which ports are free and settings may be changed.

use ckpt_tests::{Scenarios, Suite, T, TestResult, Who, need_root};
use std::process::Command;

fn main() -> std::process::ExitCode {
    own_network();
    let mut suite = Suite::new("fd_sockets");
    suite.victim("sock_options", Scenarios::root_only().args(&["root"]));
    suite.victim_named(
        "sock_options_user",
        "sock_options",
        Scenarios { root: false, ..Scenarios::default() },
    );
    suite.forms("form_udp", Scenarios::default());
    suite.victim_named("udp_v6", "form_udp", Scenarios::default().args(&["plain", "::1"]));
    let lite = ["plain", "127.0.0.1", "136"];
    suite.victim_named("udplite", "form_udp", Scenarios::default().args(&lite));
    suite.victim_named("udplite_v6", "form_udp", Scenarios::default().args(&["plain", "::1", "136"]));
    suite.victim("udp_ways", Scenarios::default());
    suite.victim("udp_multicast", Scenarios::default());
    suite.forms("form_netlink", Scenarios::default());
    suite.forms("form_raw", Scenarios::root_only());
    suite.forms("form_packet", Scenarios::root_only());
    suite.victim("udp_foreign", Scenarios::root_only());
    suite.test("foreign_sender_needs_the_right", foreign_sender);
    suite.test("what_cannot_be_seen_is_refused", unseen);
    suite.test_as(Who::User, "what_cannot_be_seen_is_refused-user", unseen);
    suite.run()
}

/// Who may not have a raw socket is told so, before anything runs.
fn foreign_sender(t: &T) -> TestResult {
    need_root()?;
    let mut victim = t.victim("udp_foreign").start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit()?;
    let without = ["setpriv", "--bounding-set=-net_raw", "--"];
    t.restore("saved.ckpt").with(|l| l.wrapper(without)).refused(&["192.0.2.77", "CAP_NET_RAW"])
}

/// All of it by name; the program keeps it, and loses it in the image if that was allowed.
fn unseen(t: &T) -> TestResult {
    let mut victim = t.victim("udp_unseen").start()?;
    let words = ["fd 50", "begun to write", "fd 51", "an error", "fd 52", "time of arrival", "socket-data"];
    t.dump(victim.pid()).refused(5, &words)?;
    t.dump(victim.pid()).args(["--allow", "socket-data"]).ok()?;
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()?;
    t.tell("restored")?;
    let mut restored = t.restore("saved.ckpt").start()?;
    restored.expect_exit(0)?;
    t.expect_ok()
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
