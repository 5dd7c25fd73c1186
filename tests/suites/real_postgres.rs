//! PostgreSQL with its default settings: shared memory, semaphores, a postmaster and its processes, an open
//! session from outside.

use ckpt_tests::*;
use nix::sys::signal::Signal::{self, SIGKILL};
use std::path::PathBuf;
use std::process::Command;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("real_postgres");
    // It refuses to run as root.
    suite.test_as(Who::User, "postgres", postgres);
    suite.run()
}

/// Directory of the newest version's programs.
fn programs() -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = versions.map(|v| v.path().join("bin")).collect();
    dirs.retain(|dir| dir.join("postgres").exists());
    dirs.sort();
    let Some(dir) = dirs.pop() else { skip!("postgres is not installed (scripts/setup installs it)") };
    Ok(dir)
}

const CHECKSUM: &str =
    "select count(*), sum(money), md5(string_agg(id || owner || money, ',' order by id)) from account";

fn postgres(t: &T) -> TestResult {
    let bin = programs()?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let data = t.path("data");
    let options = ["--no-sync", "--auth=trust", "--username=tester", "--locale=C", "-D"];
    t.launch("initdb", bin.join("initdb")).args(options).arg(&data).start()?.expect_exit(0)?;
    let ask = |query: &str| -> anyhow::Result<String> {
        let words = ["-h", "127.0.0.1", "-p", &port, "-U", "tester", "-d", "postgres", "-XAtqc", query];
        let output = Command::new(bin.join("psql")).args(words).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let answers = |server: &mut Proc| {
        t.wait_until("an answer of postgres", || {
            server.ensure_alive()?;
            Ok(ask("select 6*7")? == "42")
        })
    };
    let server = t.launch("postgres", bin.join("postgres")).arg("-D").arg(&data).arg("-k").arg(t.dir());
    let mut server = server.args(["-p", &port]).start()?;
    answers(&mut server)?;
    ask("create table account(id int primary key, owner text, money int)")?;
    ask("insert into account select i, 'owner ' || i, i % 100 from generate_series(1, 20000) i")?;
    let before = ask(CHECKSUM)?;
    ensure!(before.starts_with("20000|"), "{before}");
    // A session that stays open.
    let terminal = t.terminal()?;
    let psql =
        t.launch("psql", bin.join("psql")).args(["-X", "-P", "pager=off", "-h", "127.0.0.1", "-p", &port]);
    let psql = psql.args(["-U", "tester", "-d", "postgres"]).env("TERM", "dumb");
    let _psql = terminal.attach(psql)?.start()?;
    terminal.send("select 'open' || 'ed';\n")?;
    terminal.expect("opened")?;

    let mut all = procfs::descendants(server.pid());
    all.push(server.pid());
    ensure!(all.len() >= 6, "only {} processes", all.len());
    t.dump(server.pid()).kill().args(["--allow", "tcp-established"]).ok()?;
    server.expect_signal(SIGKILL)?;
    t.wait_gone(&all)?;
    ensure!(ask("select 1")?.is_empty(), "somebody else answers");

    let mut again = t.restore("saved.ckpt").start()?;
    answers(&mut again)?;
    let after = ask(CHECKSUM)?;
    ensure!(after == before, "the table says {after}, expected {before}");
    // The open session notices, and connects again.
    terminal.send("select 'first';\n")?;
    terminal.expect("Succeeded")?;
    terminal.send("update account set money = money + 1 where id <= 1000;\n")?;
    terminal.expect("UPDATE 1000")?;
    ask("begin; insert into account values (20001, 'new', 5); commit")?;
    let sum = ask("select count(*), sum(money) from account")?;
    // 200 times 0 + 1 + ... + 99, 1000 and 5 more.
    ensure!(sum == format!("20001|{}", 200 * 4950 + 1000 + 5), "after new transactions: {sum}");
    ask("checkpoint")?;
    terminal.send("\\q\n")?;
    // Fast shutdown, to which all its processes must agree.
    again.signal(Signal::SIGINT);
    again.expect_exit(0)?;
    let log = again.stderr() + &server.stderr();
    ensure!(log.contains("database system is shut down"), "no clean shutdown: {log}");
    ensure!(!log.contains("was terminated by") && !log.contains("PANIC"), "{log}");
    ensure!(!data.join("postmaster.pid").exists(), "postmaster.pid is left");
    Ok(())
}
