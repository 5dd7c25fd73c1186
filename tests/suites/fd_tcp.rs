//! TCP: connections to the outside, whose other end is this suite; listening; ports. As root, the suite has a
//! network namespace of its own, in which nobody else takes ports.

use ckpt_tests::{Context, Proc, Restore, Scenarios, Suite, T, TestResult, Who, ensure, skip};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

fn main() -> std::process::ExitCode {
    own_network();
    let mut suite = Suite::new("fd_tcp");
    suite.forms("form_tcp_outside", Scenarios { user: false, ..Scenarios::default() }.pids(&["new", "ns"]));
    for (name, ip) in [("v4", "127.0.0.1"), ("v6", "::1"), ("v4_in_v6", "::ffff:127.0.0.1")] {
        for mode in ["plain", "ended", "over"] {
            suite.test(format!("{mode}::{name}"), move |t| talk(t, mode, ip, "auto", Until::Restored));
            suite.test(format!("rebuilt::{mode}::{name}"), move |t| talk(t, mode, ip, "auto", Until::Killed));
        }
    }
    suite.test("plain::pid-new", |t| talk(t, "plain", "127.0.0.1", "new", Until::Restored));
    suite.test("options", |t| talk(t, "options", "127.0.0.1", "auto", Until::Restored));
    suite.test("rebuilt::options", |t| talk(t, "options", "127.0.0.1", "auto", Until::Killed));
    suite.test("sent_in_between", |t| talk(t, "gap", "127.0.0.1", "auto", Until::Restored));
    suite.test("unsent", |t| unsent(t, Until::Restored));
    suite.test("rebuilt::unsent", |t| unsent(t, Until::Killed));
    suite.test("accepted_one_with_its_listener", server);
    suite.test("other_network_namespace", other_namespace);
    suite.test("left_running", left_running);
    suite.test("failed_dump", |t| unharmed_by(t, "before-rename", Some(1)));
    suite.test("killed_dump", |t| unharmed_by(t, "after-write=kill", None));
    suite.test("reset::at_the_dump", |t| reset(t, &["--tcp", "reset"], &[]));
    suite.test("reset::at_the_dump_by_allow", |t| reset(t, &["--allow", "tcp-established"], &[]));
    suite.test("reset::at_the_restore", |t| reset(t, &[], &["--tcp", "reset"]));
    suite.test_as(Who::User, "reset::user", |t| reset(t, &["--tcp", "reset"], &[]));
    suite.test("refused::by_choice", |t| refused(t, &["--tcp", "refuse"], "to the outside"));
    suite.test_as(Who::User, "refused::user", |t| refused(t, &[], "CAP_NET_ADMIN"));
    suite.test("restored_without_rights", restored_without_rights);
    suite.victim("fd_tcp_listen", Scenarios::default());
    suite.victim_named("fd_tcp_listen_mptcp", "fd_tcp_listen", Scenarios::default().args(&["mptcp"]));
    suite.test("mptcp_connection", mptcp_connection);
    suite.test("sent_before_it_is_accepted", pending);
    suite.test("ports::moved", |t| moved(t, false));
    suite.test("ports::taken", |t| moved(t, true));
    suite.test_as(Who::User, "ports::taken_user", |t| moved(t, true));
    suite.run()
}

/// Enters a new network namespace with a loopback. Without privileges: stays.
fn own_network() {
    use nix::sched::{CloneFlags, unshare};
    if !nix::unistd::geteuid().is_root() || unshare(CloneFlags::CLONE_NEWNET).is_err() {
        return;
    }
    if !Command::new("ip").args(["link", "set", "lo", "up"]).status().is_ok_and(|s| s.success()) {
        eprintln!("fd_tcp: no loopback in the network namespace (is iproute2 installed?)");
    }
}

/// A port below those that connections get, for one test.
fn some_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 10_000 + (std::process::id() % 1000) as u16 * 20;
    loop {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed) % 2000;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

fn need_repair(t: &T) -> TestResult {
    if t.who() != Who::Me || !nix::unistd::geteuid().is_root() {
        skip!("TCP_REPAIR needs CAP_NET_ADMIN");
    }
    Ok(())
}

/// The test's end of a connection.
struct Peer(TcpStream);

impl Peer {
    fn expect(&mut self, text: &str) -> TestResult {
        let mut got = vec![0; text.len()];
        self.0.read_exact(&mut got).with_context(|| format!("waiting for {text:?}"))?;
        ensure!(got == text.as_bytes(), "received {:?}, expected {text:?}", String::from_utf8_lossy(&got));
        Ok(())
    }

    fn say(&mut self, text: &str) -> TestResult {
        Ok(self.0.write_all(text.as_bytes())?)
    }

    fn expect_end(&mut self) -> TestResult {
        let mut byte = [0];
        let n = self.0.read(&mut byte).context("waiting for the end of the stream")?;
        ensure!(n == 0, "received {byte:?}, expected the end");
        Ok(())
    }
}

fn launch(t: &T, mode: &str, ip: &str, port: u16) -> anyhow::Result<Proc> {
    t.victim("fd_tcp_outside").args([mode, ip, &port.to_string()]).no_wait().start()
}

/// A victim that is connected to us, ready to be dumped. The other end greets, if told.
fn connected(t: &T, mode: &str, ip: &str, greet: bool) -> anyhow::Result<(Proc, Peer)> {
    let ours = if ip.contains("::ffff") { "127.0.0.1" } else { ip };
    let listener = TcpListener::bind((ours, 0)).with_context(|| format!("no {ours} here"))?;
    listener.set_nonblocking(true)?;
    let mut victim = launch(t, mode, ip, listener.local_addr()?.port())?;
    let stream = t.wait_for("the victim's connection", || {
        victim.ensure_alive()?;
        Ok(listener.accept().ok())
    })?;
    stream.0.set_nonblocking(false)?;
    stream.0.set_read_timeout(Some(t.deadline()))?;
    let mut peer = Peer(stream.0);
    if greet {
        peer.expect("one\n")?;
        peer.say("two\n")?;
        if mode == "over" {
            peer.0.shutdown(Shutdown::Write)?;
        }
        t.wait_file("ready")?;
    }
    Ok((victim, peer))
}

/// How long a connection is held: what is not, is made anew from the image, as on another machine.
#[derive(Clone, Copy, PartialEq)]
enum Until {
    Killed,
    Restored,
}

fn save(t: &T, victim: &mut Proc, held: Until) -> TestResult {
    let time: &[&str] = if held == Until::Killed { &["--tcp-hold", "0"] } else { &[] };
    t.dump(victim.pid()).kill().args(time).ok()?;
    victim.wait_exit().map(drop)
}

/// Until neither end has sent anything that the other has not acknowledged: else it is sent again, or a delayed
/// acknowledgement comes, while there is no socket, and the kernel answers by a reset.
fn all_acknowledged(t: &T, peer: &Peer) -> TestResult {
    const LISTEN: &str = "0A";
    let port = format!(":{:04X}", peer.0.local_addr()?.port());
    t.wait_until("acknowledgements", || {
        let tables =
            ["tcp", "tcp6"].map(|name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")));
        let tables: Vec<String> = tables.into_iter().collect::<Result<_, _>>()?;
        // Number, local and remote address, state, queues: sent or written and not acknowledged first.
        let lines = tables.iter().flat_map(|table| table.lines().skip(1));
        let lines = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut both = lines.filter(|w| w[3] != LISTEN && (w[1].ends_with(&port) || w[2].ends_with(&port)));
        Ok(both.all(|w| w[4].starts_with("00000000:")))
    })
}

/// What both ends say after the restore.
fn goodbye(t: &T, mode: &str, peer: &mut Peer) -> TestResult {
    match mode {
        "over" => peer.expect("three\n")?,
        "ended" => {
            t.wait_file("continue")?;
            peer.expect_end()?;
            return peer.say("four\n");
        }
        _ => {
            peer.expect("three\n")?;
            peer.say("four\n")?;
        }
    }
    if mode != "server" { peer.expect_end() } else { Ok(()) }
}

fn end(t: &T, restored: &mut Proc) -> TestResult {
    restored.expect_exit(0)?;
    t.expect_ok()
}

/// Data in both directions before and after.
fn talk(t: &T, mode: &str, ip: &str, pid: &str, held: Until) -> TestResult {
    need_repair(t)?;
    let (mut victim, mut peer) = connected(t, mode, ip, true)?;
    if held == Until::Killed {
        all_acknowledged(t, &peer)?;
    }
    save(t, &mut victim, held)?;
    if mode == "gap" {
        // Nobody has the connection; still this is not answered by a reset.
        peer.say("gap\n")?;
    }
    let mut restored = t.restore("saved.ckpt").pid(pid).start()?;
    t.go()?;
    goodbye(t, mode, &mut peer)?;
    if mode == "ended" {
        drop(peer);
    }
    end(t, &mut restored)
}

/// The other end had no room for all that was written.
fn unsent(t: &T, held: Until) -> TestResult {
    need_repair(t)?;
    if held == Until::Killed && ckpt_tests::binfmt::is_inside() {
        skip!("so much needs SO_SNDBUFFORCE, which takes CAP_NET_ADMIN outside of user namespaces");
    }
    let (mut victim, mut peer) = connected(t, "unsent", "127.0.0.1", false)?;
    t.wait_file("ready")?;
    save(t, &mut victim, held)?;
    let mut restored = t.restore("saved.ckpt").pid("new").start()?;
    if held == Until::Killed {
        // Reading tells the other end of room, which nobody must hear before.
        t.wait_restored(&mut restored)?;
    }
    t.go()?;
    let mut all = Vec::new();
    peer.0.read_to_end(&mut all)?;
    peer.say("all\n")?;
    end(t, &mut restored)?;
    let count: usize = t.read("count")?.parse()?;
    ensure!(all.len() == count, "{} of {count} bytes arrived", all.len());
    let wrong = all.iter().enumerate().position(|(i, b)| *b != ((i * 31 + (i >> 9)) & 0xff) as u8);
    ensure!(wrong.is_none(), "byte {wrong:?} is wrong");
    Ok(())
}

fn server(t: &T) -> TestResult {
    need_repair(t)?;
    let port = some_port();
    let mut victim = launch(t, "server", "127.0.0.1", port)?;
    t.wait_file("listening")?;
    let mut peer = Peer(TcpStream::connect(("127.0.0.1", port))?);
    peer.0.set_read_timeout(Some(t.deadline()))?;
    peer.expect("one\n")?;
    peer.say("two\n")?;
    t.wait_file("ready")?;
    save(t, &mut victim, Until::Restored)?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    goodbye(t, "server", &mut peer)?;
    peer.say("more\n")?;
    end(t, &mut restored)
}

/// All in a network namespace that is not the suite's.
fn other_namespace(t: &T) -> TestResult {
    need_repair(t)?;
    let inside = ["unshare", "-n", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""];
    let peer = t.victim("fd_tcp_outside").args(["peer", "127.0.0.1", "7"]).no_wait();
    let mut peer = peer.with(|l| l.wrapper(inside)).start()?;
    t.wait_file("listening")?;
    let net = format!("--net=/proc/{}/ns/net", peer.pid());
    let enter = ["nsenter", net.as_str(), "--"];
    let victim = t.victim("fd_tcp_outside").args(["gap", "127.0.0.1", "7"]);
    let mut victim = victim.with(|l| l.wrapper(enter)).start()?;
    t.dump(victim.pid()).kill().with(|l| l.wrapper(enter)).ok()?;
    victim.wait_exit()?;
    t.tell("killed")?;
    let mut restored = t.restore("saved.ckpt").with(|l| l.wrapper(enter)).start()?;
    t.go()?;
    end(t, &mut restored)?;
    t.wait_file("peer-ok")?;
    peer.expect_exit(0)
}

/// The dump leaves the connection as it is.
fn left_running(t: &T) -> TestResult {
    need_repair(t)?;
    let (mut victim, mut peer) = connected(t, "options", "127.0.0.1", true)?;
    for _ in 0..3 {
        t.dump(victim.pid()).args(["--tcp", "repair"]).ok()?;
    }
    t.go()?;
    goodbye(t, "plain", &mut peer)?;
    end(t, &mut victim)
}

/// So does one that fails, or that somebody kills.
fn unharmed_by(t: &T, failpoint: &str, code: Option<i32>) -> TestResult {
    need_repair(t)?;
    let (mut victim, mut peer) = connected(t, "options", "127.0.0.1", true)?;
    let dumped = t.dump(victim.pid()).kill().env("CKPT_FAILPOINT", failpoint).run()?;
    ensure!(dumped.code == code, "ckpt-dump: exit status {:?}\n{}", dumped.code, dumped.stderr);
    t.go()?;
    goodbye(t, "plain", &mut peer)?;
    end(t, &mut victim)
}

fn reset(t: &T, at_dump: &[&str], at_restore: &[&str]) -> TestResult {
    if at_dump.is_empty() {
        need_repair(t)?;
    }
    let (mut victim, peer) = connected(t, "reset", "127.0.0.1", true)?;
    t.dump(victim.pid()).kill().args(at_dump).ok()?;
    victim.wait_exit()?;
    drop(peer);
    let mut restored = t.restore("saved.ckpt").args(at_restore).start()?;
    t.go()?;
    end(t, &mut restored)
}

/// Both ends are named, and what can be done.
fn refused(t: &T, args: &[&str], why: &str) -> TestResult {
    let (mut victim, peer) = connected(t, "plain", "127.0.0.1", true)?;
    let (own, other) = (peer.0.local_addr()?, peer.0.peer_addr()?);
    let ends = format!("fd 3: TCP connection from {other} to {own}");
    t.dump(victim.pid()).kill().args(args).refused(5, &[&ends, why, "--tcp repair", "--tcp reset"])?;
    let mut peer = peer;
    t.go()?;
    goodbye(t, "plain", &mut peer)?;
    end(t, &mut victim)
}

/// An image that was made as root, run by a user.
fn restored_without_rights(t: &T) -> TestResult {
    need_repair(t)?;
    let (mut victim, mut peer) = connected(t, "plain", "127.0.0.1", true)?;
    save(t, &mut victim, Until::Restored)?;
    let drop_it = |r: Restore| -> anyhow::Result<()> {
        let less = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
        r.with(|l| l.wrapper(less)).refused(&["CAP_NET_ADMIN", "--tcp reset", "127.0.0.1"])
    };
    drop_it(t.restore("saved.ckpt"))?;
    // Nothing is lost by that.
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    goodbye(t, "plain", &mut peer)?;
    end(t, &mut restored)
}

/// `--port`, with the old port taken or not.
fn moved(t: &T, taken: bool) -> TestResult {
    let (old, new) = (some_port(), some_port());
    let mut victim = t.victim("fd_tcp_listen").args(["moved", &old.to_string()]).start()?;
    save(t, &mut victim, Until::Restored)?;
    t.restore("saved.ckpt").arg("--port=1=2").refused(&["--port", "no socket", "1"])?;
    let mut kept = None;
    if taken {
        let holder = t.wait_for("the port", || Ok(TcpListener::bind(("127.0.0.1", old)).ok()))?;
        let address = format!("127.0.0.1:{old}");
        // The suite itself, which a user may not look into.
        let own = format!("of process {} (", std::process::id());
        let words =
            if t.who() == Who::Me { vec![&address[..], "--port", &own] } else { vec![&address, "--port"] };
        t.restore("saved.ckpt").refused(&words)?;
        kept = Some(holder);
    }
    t.write("port", new.to_string())?;
    let mut restored = t.restore("saved.ckpt").arg(format!("--port={old}={new}")).start()?;
    t.go()?;
    end(t, &mut restored)?;
    drop(kept);
    Ok(())
}

/// Refused by name; given up by the option.
fn pending(t: &T) -> TestResult {
    let mut victim = t.victim("fd_tcp_listen").arg("pending").start()?;
    t.dump(victim.pid()).kill().refused(5, &["not accepted yet", "--tcp reset"])?;
    t.dump(victim.pid()).kill().args(["--tcp", "reset"]).ok()?;
    victim.wait_exit()?;
    t.write("given-up", "")?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    end(t, &mut restored)
}

fn mptcp_connection(t: &T) -> TestResult {
    let mut victim = t.victim("fd_tcp_listen").arg("mptcp_connection").start()?;
    t.dump(victim.pid()).kill().refused(5, &["MPTCP connection from 127.0.0.1", "--tcp reset"])?;
    t.go()?;
    end(t, &mut victim)
}
