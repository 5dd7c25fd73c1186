//! Sockets other than TCP, and the options of all; each test in a network of its own, where that is permitted.

use ckpt_tests::{Scenarios, Suite, T, TestResult, Who, need_root};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("fd_sockets");
    let all = Scenarios::own_network;
    let root = || Scenarios { user: false, ..all() };
    suite.victim("sock_options", root().args(&["root"]));
    suite.victim_named("sock_options_user", "sock_options", Scenarios { root: false, ..all() });
    suite.forms("form_udp", all());
    suite.victim_named("udp_v6", "form_udp", all().args(&["plain", "::1"]));
    suite.victim_named("udplite", "form_udp", all().args(&["plain", "127.0.0.1", "136"]));
    suite.victim_named("udplite_v6", "form_udp", all().args(&["plain", "::1", "136"]));
    suite.victim("udp_ways", all());
    suite.victim("udp_multicast", all());
    suite.forms("form_netlink", all());
    suite.forms("form_raw", root());
    suite.forms("form_packet", root());
    suite.victim("udp_foreign", root());
    suite.test("foreign_sender_needs_the_right", foreign_sender);
    suite.test("what_cannot_be_seen_is_refused", unseen);
    suite.test_as(Who::User, "what_cannot_be_seen_is_refused-user", unseen);
    suite.run()
}

/// Who may not have a raw socket is told so, before anything runs.
fn foreign_sender(t: &T) -> TestResult {
    need_root()?;
    t.own_network()?;
    let mut victim = t.victim("udp_foreign").start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit()?;
    let without = ["setpriv", "--bounding-set=-net_raw", "--"];
    t.restore("saved.ckpt").with(|l| l.wrapper(without)).refused(&["192.0.2.77", "CAP_NET_RAW"])
}

/// All of it by name; the program keeps it, and loses it in the image if that was allowed.
fn unseen(t: &T) -> TestResult {
    t.own_network()?;
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
