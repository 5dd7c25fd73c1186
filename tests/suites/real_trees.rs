//! Real programs of several processes in the middle of their work: dumped, killed, continued.

use ckpt_tests::*;
use nix::sys::signal::Signal::{self, SIGKILL};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const PYTHON: &str = "/usr/bin/python3";

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("real_trees");
    for (who, suffix) in [(Who::Me, ""), (Who::User, "::user")] {
        suite.test_as(who, format!("bash_pipeline{suffix}"), pipeline);
        suite.test_as(who, format!("bash_jobs{suffix}"), jobs);
        suite.test_as(who, format!("python_pool{suffix}"), pool);
        suite.test_as(who, format!("make_j2{suffix}"), make);
        suite.test_as(who, format!("nginx{suffix}"), nginx);
        suite.test_as(who, format!("redis_bgsave{suffix}"), |t| redis(t, false));
        suite.test_as(who, format!("redis_bgsave_asked_for{suffix}"), |t| redis(t, true));
        suite.test_as(who, format!("http_in_one_tree{suffix}"), web);
        suite.test_as(who, format!("tmux_three_panes{suffix}"), tmux);
    }
    suite.run()
}

/// Dumps a tree, kills it, and waits until its ids are free.
fn save(t: &T, root: &mut Proc, options: &[&str]) -> TestResult {
    let mut all = procfs::descendants(root.pid());
    all.push(root.pid());
    t.dump(root.pid()).kill().args(options).ok()?;
    root.expect_signal(SIGKILL)?;
    t.wait_gone(&all)
}

fn script(t: &T, name: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("real").join(name);
    t.write(name, std::fs::read(path)?)
}

/// `seq | awk | sha256sum`, cut in the middle.
fn pipeline(t: &T) -> TestResult {
    const SCRIPT: &str = r#"seq 1 1500000 | awk '{ if (NR == 300000) { print NR > "progress"; close("progress") } print $1 * 3, NR % 17 }' | sha256sum; echo "${PIPESTATUS[@]}""#;
    let start = |name: &str| t.launch(name, "bash").args(["-c", SCRIPT]).start();
    let mut expected = start("expected")?;
    expected.expect_exit(0)?;
    std::fs::remove_file(t.path("progress"))?;
    let mut shell = start("result")?;
    t.wait_file("progress")?;
    save(t, &mut shell, &[])?;
    ensure!(shell.stdout().is_empty(), "it was over already");
    let mut restored = t.restore("saved.ckpt").start()?;
    restored.expect_exit(0)?;
    let (is, wanted) = (shell.stdout(), expected.stdout());
    ensure!(wanted.ends_with("0 0 0\n") && is == wanted, "the result is {is:?}, expected {wanted:?}");
    Ok(())
}

/// An interactive shell with a running and a stopped job, continued below another shell in another terminal.
fn jobs(t: &T) -> TestResult {
    let shell = |name: &str, prompt: &str| {
        let launch = t.launch(name, "bash").args(["--norc", "--noprofile", "-i"]);
        launch.env("PS1", prompt).env("HISTFILE", "/dev/null").env("TERM", "dumb")
    };
    let (one, two) = (t.terminal()?, t.terminal()?);
    let mut inner = one.attach(shell("inner", "INNER> "))?.start()?;
    one.expect("INNER> ")?;
    one.send("x=41; sleep 1000 &\n")?;
    one.expect("[1] ")?;
    one.send("sleep 2000\n")?;
    t.wait_until("two jobs", || {
        let sleeps = |p: &i32| procfs::comm(*p).as_deref() == Some("sleep");
        Ok(procfs::descendants(inner.pid()).iter().filter(|p| sleeps(p)).count() == 2)
    })?;
    one.clear();
    one.send("\x1a")?;
    one.expect("Stopped")?;
    one.expect("INNER> ")?;
    save(t, &mut inner, &[])?;

    let outer = two.attach(shell("outer", "OUTER> "))?.start()?;
    two.expect("OUTER> ")?;
    two.clear();
    two.send("./saved.ckpt\n")?;
    // The prompt is on the other terminal.
    two.send("jobs; echo x=$((x+1)).\n")?;
    let said = two.expect("x=42.")?;
    let line = |number: &str, state: &str, what: &str| {
        said.lines().any(|l| l.starts_with(number) && l.contains(state) && l.contains(what))
    };
    ensure!(
        line("[1]", "Running", "sleep 1000") && line("[2]", "Stopped", "sleep 2000"),
        "jobs says {said:?}"
    );
    two.clear();
    two.send("fg\n")?;
    two.expect("\nsleep 2000")?;
    // It has the terminal by then.
    t.wait_until("the job going on", || {
        let is = |p: &i32| procfs::read(*p, "cmdline").is_some_and(|c| c.starts_with("sleep\x002000"));
        let job = procfs::descendants(outer.pid()).into_iter().find(is);
        Ok(job.and_then(procfs::state) == Some('S'))
    })?;
    two.send("\x03")?;
    two.expect("INNER> ")?;
    two.clear();
    two.send("echo status=$?.; jobs; kill %1; wait; echo over.\n")?;
    let said = two.expect("\nover.").or_else(|_| two.expect("\rover."))?;
    ensure!(said.contains("status=130."), "{said:?}");
    two.clear();
    // Jobs that it starts now, too.
    two.send("sleep 3000\n")?;
    t.wait_until("the job", || {
        let is = |p: &i32| procfs::read(*p, "cmdline").is_some_and(|c| c.starts_with("sleep\x003000"));
        Ok(procfs::descendants(outer.pid()).iter().any(is))
    })?;
    two.send("\x1a")?;
    two.expect("Stopped")?;
    two.clear();
    two.send("kill %sleep; fg; echo end.; exit 5\n")?;
    two.expect("OUTER> ")?;
    two.clear();
    two.send("echo outer=$?.\n")?;
    two.expect("outer=5.")?;
    two.send("exit\n")
}

fn pool(t: &T) -> TestResult {
    need(PYTHON)?;
    let script = script(t, "pool.py")?;
    let start = |name: &str| t.launch(name, PYTHON).arg(&script).start();
    start("expected")?.expect_exit(0)?;
    std::fs::rename(t.path("result"), t.path("wanted"))?;
    std::fs::remove_file(t.path("progress"))?;
    let mut python = start("python")?;
    t.wait_file("progress")?;
    save(t, &mut python, &[])?;
    ensure!(!t.path("result").exists(), "it was over already");
    let mut restored = t.restore("saved.ckpt").start()?;
    restored.expect_exit(0)?;
    let (is, wanted) = (t.read("result")?, t.read("wanted")?);
    ensure!(is == wanted, "the result is {is}, expected {wanted}");
    Ok(())
}

/// Compilers come and go.
fn make(t: &T) -> TestResult {
    const FILES: usize = 12;
    need("make")?;
    need("gcc")?;
    let mut makefile = format!("OBJECTS = {}\n", (0..FILES).map(|i| format!("f{i}.o ")).collect::<String>());
    makefile +=
        "program: main.o $(OBJECTS)\n\tcc -o $@ $^\n%.o: %.c\n\tcc -O2 -c -o $@.new $< && mv $@.new $@\n";
    t.write("Makefile", makefile)?;
    let mut main = String::from("#include <stdio.h>\n");
    for i in 0..FILES {
        let mut text = String::new();
        for k in 0..40 {
            text += &format!(
                "static int g{k}(int a, const int *p) {{ int s = {i}; for (int i = 0; i < a; i++) \
                 switch (p[i] % {}) {{ case 0: s += i * {k}; break; case 1: s ^= p[i]; break; default: s -= a; }} \
                 return s; }}\n",
                k % 7 + 2
            );
        }
        text += &format!("int f{i}(int a, const int *p) {{ return 0");
        (0..40).for_each(|k| text += &format!(" + g{k}(a, p)"));
        text += "; }\n";
        t.write(&format!("f{i}.c"), text)?;
        main += &format!("int f{i}(int, const int *);\n");
    }
    main += "int main(void) { int p[50]; for (int i = 0; i < 50; i++) p[i] = i * i; long s = 0;\n";
    (0..FILES).for_each(|i| main += &format!("s = s * 31 + f{i}(50, p);\n"));
    t.write("main.c", main + "printf(\"%ld\\n\", s); return 0; }\n")?;
    let start = |name: &str| t.launch(name, "make").arg("-j2").env("TMPDIR", t.dir()).start();
    let run = || -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&Command::new(t.path("program")).output()?.stdout).into_owned())
    };
    start("expected")?.expect_exit(0)?;
    let wanted = run()?;
    let clean = |t: &T| -> TestResult {
        for entry in std::fs::read_dir(t.dir())?.flatten() {
            if entry.path().extension().is_some_and(|e| e == "o") || entry.file_name() == "program" {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    clean(t)?;
    let mut make = start("make")?;
    t.wait_until("some objects", || {
        make.ensure_alive()?;
        let files = std::fs::read_dir(t.dir())?.flatten();
        Ok(files.filter(|f| f.path().extension().is_some_and(|e| e == "o")).count() >= 4)
    })?;
    save(t, &mut make, &[])?;
    ensure!(!t.path("program").exists(), "it was over already");
    let mut restored = t.restore("saved.ckpt").start()?;
    restored.expect_exit(0)?;
    let is = run()?;
    ensure!(!wanted.is_empty() && is == wanted, "the program says {is:?}, expected {wanted:?}");
    // All is up to date.
    let again = Command::new("make").arg("-q").current_dir(t.dir()).status()?;
    ensure!(again.success(), "make -q: {again}");
    Ok(())
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// What a server says to a GET.
fn get(port: u16, path: &str) -> anyhow::Result<String> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A master with two workers.
fn nginx(t: &T) -> TestResult {
    let program =
        ["/usr/sbin/nginx", "/usr/bin/nginx", "/sbin/nginx"].into_iter().find(|p| Path::new(p).exists());
    let Some(program) = program else { skip!("nginx is not installed (scripts/setup installs it)") };
    let port = free_port()?;
    let dir = t.dir().display().to_string();
    std::fs::create_dir(t.path("html"))?;
    t.write("html/page.txt", "served\n".repeat(3000))?;
    let user = if t.who() == Who::Me && nix::unistd::geteuid().is_root() { "user root;\n" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
        .collect();
    t.write(
        "nginx.conf",
        format!(
            "{user}daemon off; worker_processes 2; pid {dir}/nginx.pid; error_log {dir}/error.log info;\n\
             events {{ worker_connections 64; }}\n\
             http {{ {temporary} access_log {dir}/access.log; server {{ listen 127.0.0.1:{port}; root {dir}/html; }} }}\n"
        ),
    )?;
    let error_log = t.path("error.log").display().to_string();
    let conf = t.path("nginx.conf");
    let mut master =
        t.launch("nginx", program).args(["-e", &error_log, "-p", &dir, "-c"]).arg(conf).start()?;
    let serves = |what: &str, proc: &mut Proc| -> TestResult {
        t.wait_until(what, || {
            proc.ensure_alive()?;
            Ok(get(port, "/page.txt").is_ok_and(|page| {
                page.starts_with("HTTP/1.1 200") && page.ends_with(&"served\n".repeat(3000))
            }))
        })
    };
    serves("a page", &mut master)?;
    let workers = |root: i32| {
        let mut below = procfs::descendants(root);
        below.retain(|&p| procfs::read(p, "cmdline").is_some_and(|c| c.contains("worker process")));
        below
    };
    t.wait_until("two workers", || Ok(workers(master.pid()).len() == 2))?;
    save(t, &mut master, &[])?;
    ensure!(get(port, "/page.txt").is_err(), "somebody else serves");

    let mut again = t.restore("saved.ckpt").start()?;
    for _ in 0..20 {
        serves("a page after the restore", &mut again)?;
    }
    let before = workers(again.pid());
    ensure!(before.len() == 2, "{} workers after the restore", before.len());
    // The master notices that a worker ends, and makes another one.
    procfs::signal(before[0], SIGKILL);
    t.wait_until("another worker", || {
        let now = workers(again.pid());
        Ok(now.len() == 2 && !now.contains(&before[0]))
    })?;
    serves("a page after the end of a worker", &mut again)?;
    again.signal(Signal::SIGHUP);
    t.wait_until("new workers", || {
        let now = workers(again.pid());
        Ok(now.len() == 2 && !now.contains(&before[1]))
    })?;
    serves("a page after the reload", &mut again)?;
    again.signal(Signal::SIGQUIT);
    again.expect_exit(0)?;
    ensure!(!t.path("nginx.pid").exists(), "nginx.pid is left: no clean end");
    Ok(())
}

/// A child writes the data to disk while the dump comes.
fn redis(t: &T, asked: bool) -> TestResult {
    need("redis-server")?;
    need("redis-cli")?;
    let port = free_port()?.to_string();
    let ask = |words: &[&str]| -> anyhow::Result<String> {
        let output = Command::new("redis-cli").args(["-p", &port]).args(words).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let answers = |server: &mut Proc| {
        t.wait_until("an answer of redis-server", || {
            server.ensure_alive()?;
            Ok(ask(&["PING"])? == "PONG")
        })
    };
    let options = ["--bind", "127.0.0.1", "--save", "", "--enable-debug-command", "yes"];
    // The child takes a second.
    let slow = ["--rdb-key-save-delay", "200", "--port"];
    let mut server = t.launch("redis", "redis-server").args(options).args(slow).arg(&port).start()?;
    answers(&mut server)?;
    ask(&["DEBUG", "POPULATE", "5000", "key", "200"])?;
    ask(&["EVAL", "for i=1,500 do redis.call('HSET', 'hash', 'f' .. i, i) end", "0"])?;
    let digest = ask(&["DEBUG", "DIGEST"])?;
    if asked {
        // The child inherits the connection over which it was asked for.
        ensure!(ask(&["BGSAVE"])?.contains("Background saving started"));
    } else {
        // By itself, a second after this, when no client is connected.
        ensure!(ask(&["CONFIG", "SET", "save", "1 1"])? == "OK");
        ensure!(ask(&["HSET", "hash", "f1", "1"])? == "0");
    }
    t.wait_until("the child", || Ok(!procfs::descendants(server.pid()).is_empty()))?;
    ensure!(ask(&["CONFIG", "SET", "save", ""])? == "OK");
    // After the fork, so it is not in the file.
    ask(&["SET", "later", "on"])?;
    save(t, &mut server, &[])?;
    ensure!(!t.path("dump.rdb").exists(), "it was saved already");

    let mut again = t.restore("saved.ckpt").start()?;
    answers(&mut again)?;
    let info = ask(&["INFO", "persistence"])?;
    ensure!(info.contains("rdb_bgsave_in_progress:1"), "the child is not known: {info}");
    t.wait_until("the end of the BGSAVE", || {
        again.ensure_alive()?;
        Ok(ask(&["INFO", "persistence"])?.contains("rdb_bgsave_in_progress:0"))
    })?;
    ensure!(ask(&["INFO", "persistence"])?.contains("rdb_last_bgsave_status:ok"));
    ensure!(ask(&["GET", "later"])? == "on" && ask(&["DEL", "later"])? == "1");
    let now = ask(&["DEBUG", "DIGEST"])?;
    ensure!(now == digest, "DEBUG DIGEST is {now}, expected {digest}");
    // What the child wrote is the same.
    ensure!(ask(&["DEBUG", "RELOAD", "NOSAVE"])? == "OK");
    let now = ask(&["DEBUG", "DIGEST"])?;
    ensure!(now == digest, "DEBUG DIGEST of the file is {now}, expected {digest}");
    again.signal(Signal::SIGTERM);
    again.expect_exit(0)
}

/// Server and client in one tree, with a connection between them.
fn web(t: &T) -> TestResult {
    need(PYTHON)?;
    let script = script(t, "web.py")?;
    let mut python = t.launch("python", PYTHON).arg(script).start()?;
    t.wait_until("requests", || {
        python.ensure_alive()?;
        Ok(t.path("progress").exists())
    })?;
    save(t, &mut python, &[])?;
    let mut restored = t.restore("saved.ckpt").start()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

/// A server with three shells, each in a terminal that the server itself provides.
fn tmux(t: &T) -> TestResult {
    need("tmux")?;
    let socket = t.path("socket").display().to_string();
    let count = std::cell::Cell::new(0);
    let tmux = |words: &[&str]| -> anyhow::Result<String> {
        count.set(count.get() + 1);
        let launch = t.launch(&format!("tmux{}", count.get()), "tmux");
        let launch = launch.args(["-S", &socket, "-f", "/dev/null"]).args(words);
        let mut command = launch.env("TERM", "screen").env("TMUX", "").start()?;
        command.expect_exit(0)?;
        Ok(command.stdout())
    };
    let pane = |n: usize| format!("s:0.{n}");
    let line = |n: usize, text: &str| -> TestResult {
        tmux(&["send-keys", "-t", &pane(n), "-l", "--", text])?;
        tmux(&["send-keys", "-t", &pane(n), "Enter"]).map(drop)
    };
    let shows = |n: usize, text: &str| -> TestResult {
        let screen = || tmux(&["capture-pane", "-p", "-t", &pane(n)]);
        let result = t.wait_until(&format!("{text:?} in pane {n}"), || {
            Ok(screen()?.lines().any(|line| line.trim_end() == text))
        });
        result.with_context(|| format!("pane {n}:\n{}", screen().unwrap_or_default()))
    };
    let shell = "exec env PS1=your-turn: bash --norc --noprofile -i";
    tmux(&["new-session", "-d", "-s", "s", "-x", "90", "-y", "30", shell])?;
    tmux(&["split-window", "-d", "-t", "s", shell])?;
    tmux(&["split-window", "-d", "-h", "-t", "s", shell])?;
    let server: i32 = tmux(&["display-message", "-p", "#{pid}"])?.trim().parse()?;
    for n in 0..3 {
        line(n, &format!("x={n}; echo pane $((x + 100))"))?;
        shows(n, &format!("pane {}", n + 100))?;
    }
    // The second one is busy, the third one has a stopped job.
    line(1, "sleep 1000")?;
    line(2, "sleep 2000")?;
    t.wait_until("two jobs", || {
        let is = |p: &i32| procfs::comm(*p).as_deref() == Some("sleep");
        Ok(procfs::descendants(server).iter().filter(|p| is(p)).count() == 2)
    })?;
    tmux(&["send-keys", "-t", &pane(2), "C-z"])?;
    shows(2, "[1]+  Stopped                 sleep 2000")?;

    let mut all = procfs::descendants(server);
    all.push(server);
    t.dump(server).kill().ok()?;
    t.wait_gone(&all)?;

    let mut again = t.restore("saved.ckpt").start()?;
    t.wait_until("an answer of tmux", || {
        again.ensure_alive()?;
        let listed = t.launch("answer", "tmux").args(["-S", &socket, "list-panes"]).start()?.wait_exit()?;
        Ok(listed.success())
    })?;
    for n in 0..3 {
        shows(n, &format!("pane {}", n + 100))?;
    }
    tmux(&["send-keys", "-t", &pane(1), "C-c"])?;
    for n in 0..3 {
        line(n, "clear; echo again $((x + 200))")?;
        shows(n, &format!("again {}", n + 200))?;
    }
    line(2, "clear; jobs")?;
    shows(2, "[1]+  Stopped                 sleep 2000")?;
    line(2, "kill %1; fg; clear; echo over")?;
    shows(2, "over")?;
    tmux(&["resize-window", "-t", "s", "-x", "70", "-y", "20"])?;
    let size = tmux(&["display-message", "-p", "-t", &pane(0), "#{pane_height} #{pane_width}"])?;
    // The server tells the terminal a little later.
    let size = size.trim();
    line(0, &format!("clear; until [ \"$(stty size)\" = '{size}' ]; do sleep 0.02; done; echo resized"))?;
    shows(0, "resized")?;
    tmux(&["kill-server"])?;
    again.expect_exit(0)
}
