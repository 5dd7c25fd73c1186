//! Real programs that talk to each other over sockets, terminals and files, in one tree: dumped in the middle,
//! killed, continued. What they say in the end is checked by themselves (tests/real).

use ckpt_tests::*;
use nix::sys::signal::Signal::SIGKILL;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Debian's; another one may come first in PATH.
const PYTHON: &str = "/usr/bin/python3";

type Start = fn(&T) -> anyhow::Result<Proc>;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("real_network");
    let programs: &[(&str, Start)] = &[
        ("asyncio_http", |t| python(t, "aio_http.py", &[])),
        ("relay_tcp", |t| relay(t, "tcp")),
        ("relay_tcp6", |t| relay(t, "tcp6")),
        ("relay_unix", |t| relay(t, "unix")),
        ("relay_udp", |t| relay(t, "udp")),
        ("memcached", memcached),
        ("curl_200_mb", curl),
        ("inotifywait", inotifywait),
        ("socat_pty", |t| terminal(t, "socat", &["socat"])),
        ("sshd_and_ssh", ssh),
        ("go_server", go),
        ("node_server", |t| node(t, "0")),
    ];
    for &(name, start) in programs {
        for (who, mode) in [(Who::Me, "same"), (Who::Me, "ns"), (Who::User, "auto")] {
            let suffix = if who == Who::User { "user" } else { mode };
            suite.test_as(who, format!("{name}::{suffix}"), move |t| through(t, start, &[mode]));
        }
        suite.test_as(Who::User, format!("{name}::unharmed"), move |t| unharmed(t, start));
        suite.test(format!("{name}::again"), move |t| through(t, start, &["same", "ns", "ns"]));
    }
    suite.test_as(Who::User, "node_server::io_uring", node_with_io_uring);
    suite.run()
}

/// Starts a tree and waits until it is in the middle.
fn begin(t: &T, start: Start) -> anyhow::Result<Proc> {
    t.own_network()?;
    let mut root = start(t)?;
    t.wait_until("the middle", || {
        if let Err(e) = root.ensure_alive() {
            bail!("{e:#}\nresult: {}", t.read("result").unwrap_or_default());
        }
        Ok(t.path("progress").exists())
    })?;
    Ok(root)
}

/// Lets it go on to its end.
fn finish(t: &T, root: &mut Proc) -> TestResult {
    t.go()?;
    let ended = root.expect_exit(0);
    let result = t.read("result").unwrap_or_default();
    ended.with_context(|| format!("result: {result:?}"))?;
    t.expect_ok()
}

/// Dumps the tree, kills it, and runs the image; as often as there are modes.
fn through(t: &T, start: Start, modes: &[&str]) -> TestResult {
    let mut front = begin(t, start)?;
    let mut root = front.pid();
    for mode in modes {
        let mut all = procfs::descendants(front.pid());
        all.push(front.pid());
        dump(t, root, true)?;
        front.expect_signal(SIGKILL)?;
        t.wait_gone(&all)?;
        ensure!(!t.path("result").exists(), "it was over already");
        front = t.restore("saved.ckpt").pid(mode).start()?;
        if modes.len() > 1 {
            root = running(t, &mut front)?;
        }
    }
    finish(t, &mut front)
}

/// Waits until a restored tree runs; gives its root. Who traced it (the supervisor, or the namespace's init)
/// closes all its descriptors then.
fn running(t: &T, front: &mut Proc) -> anyhow::Result<i32> {
    t.wait_until("the restored tree", || {
        front.ensure_alive()?;
        let mut tracers = procfs::descendants(front.pid());
        tracers.retain(|&p| procfs::comm(p).as_deref() == Some("ckpt-init"));
        tracers.push(front.pid());
        Ok(tracers.iter().any(|&p| procfs::fds(p).is_empty() && procfs::state(p) != Some('Z')))
    })?;
    Ok(procfs::program(front.pid()))
}

/// A dump that it does not notice.
fn unharmed(t: &T, start: Start) -> TestResult {
    let mut root = begin(t, start)?;
    dump(t, root.pid(), false)?;
    finish(t, &mut root)
}

/// Unread events of inotify are refused, with the remedy to try again: a moment later they have been read.
fn dump(t: &T, root: i32, kill: bool) -> TestResult {
    t.wait_for("a moment at which a dump is possible", || {
        let dump = t.dump(root);
        let dumped = if kill { dump.kill() } else { dump }.run()?;
        match dumped.code {
            Some(0) => Ok(Some(())),
            Some(5) if dumped.stderr.contains("bytes of events wait to be read") => Ok(None),
            code => bail!("ckpt-dump: exit status {code:?}\n{}", dumped.stderr),
        }
    })
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("real").join(name)
}

/// A script of tests/real, which may be closed to the test's user.
fn script(t: &T, name: &str) -> anyhow::Result<PathBuf> {
    t.write(name, std::fs::read(source(name))?)
}

fn python(t: &T, name: &str, args: &[&str]) -> anyhow::Result<Proc> {
    need(PYTHON)?;
    script(t, "programs.py")?;
    let script = script(t, name)?;
    t.launch("python", PYTHON).arg("-B").arg(script).args(args).env("TERM", "dumb").start()
}

fn relay(t: &T, kind: &str) -> anyhow::Result<Proc> {
    need("nc")?;
    need("socat")?;
    if kind == "tcp6" && !Path::new("/proc/net/if_inet6").exists() {
        skip!("no IPv6");
    }
    python(t, "relay.py", &[kind, &t.free_port()?.to_string(), &t.free_port()?.to_string()])
}

fn memcached(t: &T) -> anyhow::Result<Proc> {
    need("memcached")?;
    python(t, "memcached.py", &[&t.free_port()?.to_string()])
}

fn curl(t: &T) -> anyhow::Result<Proc> {
    need("curl")?;
    python(t, "download.py", &[])
}

fn inotifywait(t: &T) -> anyhow::Result<Proc> {
    need("inotifywait")?;
    python(t, "watch.py", &[])
}

fn terminal(t: &T, kind: &str, needed: &[&str]) -> anyhow::Result<Proc> {
    needed.iter().try_for_each(|command| need(command))?;
    python(t, "terminal.py", &[kind, &t.free_port()?.to_string()])
}

/// The server, and the client that is logged in.
fn ssh(t: &T) -> anyhow::Result<Proc> {
    if !["/usr/sbin/sshd", "/sbin/sshd", "/usr/bin/sshd"].iter().any(|p| Path::new(p).exists()) {
        skip!("sshd is not installed (scripts/setup installs it)");
    }
    if t.who() == Who::User {
        // Its own name it must know.
        let known = Command::new("getent").args(["passwd", "1000"]).output();
        if nix::unistd::geteuid().is_root() && !known.is_ok_and(|o| o.status.success()) {
            skip!("the user has no name");
        }
    } else if nix::unistd::geteuid().is_root() {
        // Of privilege separation; made by the service otherwise.
        std::fs::create_dir_all("/run/sshd")?;
    }
    terminal(t, "ssh", &["ssh", "ssh-keygen", "script"])
}

/// Runs the compiler once for all tests.
fn go(t: &T) -> anyhow::Result<Proc> {
    static BUILT: Mutex<bool> = Mutex::new(false);
    need("go")?;
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let exe = tmp.join("go-server");
    let mut built = BUILT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !*built {
        let mut command = Command::new("go");
        command.args(["build", "-o"]).arg(&exe).arg(source("server.go"));
        command.env("GOCACHE", tmp.join("gocache")).env("GO111MODULE", "off");
        let run = command.output().context("cannot run go")?;
        ensure!(run.status.success(), "go build: {}", String::from_utf8_lossy(&run.stderr));
        *built = true;
    }
    drop(built);
    copy(&exe, &t.path("go-server"))?;
    t.launch("go", t.path("go-server")).start()
}

fn node(t: &T, io_uring: &str) -> anyhow::Result<Proc> {
    need("node")?;
    t.launch("node", "node").arg(script(t, "server.js")?).env("UV_USE_IO_URING", io_uring).start()
}

/// It is told how to do without, and goes on.
fn node_with_io_uring(t: &T) -> TestResult {
    let mut root = begin(t, |t| node(t, "1"))?;
    let uses = |(_, link): &(i32, PathBuf)| link.to_string_lossy().contains("io_uring");
    if !procfs::fds(root.pid()).iter().any(uses) {
        finish(t, &mut root)?;
        skip!("this node, or this kernel, does not use io_uring");
    }
    t.dump(root.pid()).refused(5, &["io_uring", "UV_USE_IO_URING=0"])?;
    finish(t, &mut root)
}
