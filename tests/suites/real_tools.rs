//! Tools and servers in the middle of their work: xz, the C compiler, sqlite3, redis-server.

use ckpt_tests::*;
use nix::sys::signal::Signal::{SIGKILL, SIGTERM};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("real_tools");
    for (who, suffix) in [(Who::Me, ""), (Who::User, "::user")] {
        suite.test_as(who, format!("xz_two_threads{suffix}"), xz);
        suite.test_as(who, format!("cc1_big_file{suffix}"), cc1);
        suite.test_as(who, format!("sqlite_transaction{suffix}"), sqlite);
        suite.test_as(who, format!("redis_100k_keys{suffix}"), redis);
    }
    suite.run()
}

/// Numbers without visible order, the same ones every time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |m| m.len())
}

fn same_bytes(result: &Path, expected: &Path) -> TestResult {
    let (a, b) = (std::fs::read(result)?, std::fs::read(expected)?);
    ensure!(!b.is_empty(), "{} is empty", expected.display());
    if a != b {
        let at = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
        bail!("{} has {} bytes, expected {}; they differ from {at} on", result.display(), a.len(), b.len());
    }
    Ok(())
}

/// Kills what an image goes on from, and runs the image.
fn dump_kill_restore(t: &T, mut program: Proc) -> anyhow::Result<Proc> {
    t.dump(program.pid()).kill().ok()?;
    program.expect_signal(SIGKILL)?;
    t.restore("saved.ckpt").start()
}

/// A bit more than 100 MiB of words and numbers, which compress well.
fn compressible(path: &Path) -> TestResult {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let words: Vec<String> = (0..500)
        .map(|_| (0..2 + noise.next() % 7).map(|_| char::from(b'a' + (noise.next() % 26) as u8)).collect())
        .collect();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut line = Vec::new();
    let mut written = 0;
    while written < 105 << 20 {
        line.clear();
        for _ in 0..40 {
            line.extend_from_slice(words[(noise.next() % 500) as usize].as_bytes());
            line.push(b' ');
        }
        writeln!(line, "{}", noise.next())?;
        // Repeated a few times: what xz finds is near, and it is done soon.
        for _ in 0..8 {
            file.write_all(&line)?;
            written += line.len();
        }
    }
    file.flush()?;
    Ok(())
}

fn xz(t: &T) -> TestResult {
    need("xz")?;
    let data = t.path("data");
    compressible(&data)?;
    let start = |name: &str| -> anyhow::Result<Proc> {
        let out = t.path(format!("{name}.xz"));
        let to = File::create(&out)?;
        t.who().own(&out)?;
        let options = ["-T2", "-0", "--block-size=4MiB", "-c"];
        t.launch(name, "xz").args(options).stdin(File::open(&data)?).stdout(to).start()
    };
    start("expected")?.expect_exit(0)?;
    let expected = t.path("expected.xz");
    let mut program = start("result")?;
    let result = t.path("result.xz");
    t.wait_until("a third of the output", || {
        program.ensure_alive()?;
        Ok(size(&result) > size(&expected) / 3)
    })?;
    dump_kill_restore(t, program)?.expect_exit(0)?;
    same_bytes(&result, &expected)
}

/// A C file of many functions that call each other.
fn big_c_file(path: &Path) -> TestResult {
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    let mut text = String::new();
    for i in 0..200 {
        let table: Vec<String> = (0..16).map(|_| (noise.next() % 1000).to_string()).collect();
        let (a, b, shift) = (noise.next() % 13 + 1, noise.next() % 99, noise.next() % 7 + 1);
        let call = if i > 0 { format!("f{}(s & 7, p, k / 2)", i - 1) } else { "k".to_owned() };
        text += &format!(
            "static int table{i}[16] = {{ {} }};
int f{i}(int a, const int *p, int n)
{{
    int s = {i};
    for (int k = 0; k < n; k++) {{
        switch ((a + k) % 5) {{
        case 0: s += p[k] * {a}; break;
        case 1: s ^= table{i}[(s ^ k) & 15]; break;
        case 2: s = s << {shift} | (unsigned)s >> {}; break;
        case 3: s -= a / (k + {b} + 1); break;
        default: s += {call};
        }}
    }}
    return s;
}}
",
            table.join(", "),
            25 - shift
        );
    }
    std::fs::write(path, text)?;
    Ok(())
}

fn cc1(t: &T) -> TestResult {
    need("gcc")?;
    let gcc = Command::new("gcc").arg("-print-prog-name=cc1").output()?;
    let cc1 = PathBuf::from(String::from_utf8(gcc.stdout)?.trim());
    big_c_file(&t.path("big.c"))?;
    let start = |output: &str| t.launch(output, &cc1).args(["-quiet", "-O2", "big.c", "-o", output]).start();
    start("expected.s")?.expect_exit(0)?;
    let (result, expected) = (t.path("result.s"), t.path("expected.s"));
    let mut program = start("result.s")?;
    t.wait_until("a third of the output", || {
        program.ensure_alive()?;
        Ok(size(&result) > size(&expected) / 3)
    })?;
    dump_kill_restore(t, program)?.expect_exit(0)?;
    same_bytes(&result, &expected)
}

/// An open transaction, larger than the page cache, so that the journal and the locks are in use.
fn sqlite(t: &T) -> TestResult {
    need("sqlite3")?;
    let mut shell =
        t.launch("sqlite", "sqlite3").args(["-batch", "bank.db"]).stdin(Stdio::piped()).start()?;
    let mut input = shell.take_stdin().context("stdin")?;
    input.write_all(
        b"PRAGMA cache_size=10;
CREATE TABLE account(id INTEGER PRIMARY KEY, owner TEXT, money INTEGER);
INSERT INTO account SELECT value, 'owner ' || value, 100 FROM generate_series(1, 20000);
BEGIN;
UPDATE account SET money = money + id WHERE id % 2 = 0;
INSERT INTO account SELECT value, 'new ' || value, 7 FROM generate_series(20001, 30000);
SELECT 'counted', count(*) FROM account;
.system touch inside
",
    )?;
    input.flush()?;
    t.wait_until("the open transaction", || {
        shell.ensure_alive()?;
        Ok(t.path("inside").exists() && t.path("bank.db-journal").exists())
    })?;
    t.dump(shell.pid()).kill().ok()?;
    shell.expect_signal(SIGKILL)?;
    drop(input);

    let mut again = t.restore("saved.ckpt").with(|l| l.stdin(Stdio::piped())).start()?;
    let mut input = again.take_stdin().context("stdin")?;
    input.write_all(b".system touch restored\nUPDATE account SET money = money - 1 WHERE id <= 10;\n")?;
    input.flush()?;
    t.wait_until("the restored shell", || {
        again.ensure_alive()?;
        Ok(t.path("restored").exists())
    })?;
    // The locks came back: nobody else may write now.
    let other = Command::new("sqlite3").arg(t.path("bank.db")).arg("BEGIN IMMEDIATE").output()?;
    let message = String::from_utf8_lossy(&other.stderr).into_owned();
    ensure!(!other.status.success() && message.contains("locked"), "the database is not locked: {message}");
    input.write_all(b"COMMIT;\n")?;
    drop(input);
    again.expect_exit(0)?;

    let query = "PRAGMA integrity_check; SELECT count(*), sum(money), sum(id), max(owner) FROM account";
    let check = Command::new("sqlite3").arg(t.path("bank.db")).arg(query).output()?;
    let seen = String::from_utf8_lossy(&check.stdout).into_owned();
    // 20000 * 100 + the even ids up to 20000 + 10000 * 7 - 10
    let money = 2_000_000 + 100_010_000 + 70_000 - 10;
    let expected = format!("ok\n30000|{money}|{}|owner 9999\n", 30_000u64 * 30_001 / 2);
    ensure!(seen == expected, "the database says {seen:?}, expected {expected:?}");
    ensure!(shell.stdout().contains("counted|30000"), "output: {:?}", shell.stdout());
    Ok(())
}

struct Redis {
    port: String,
}

impl Redis {
    fn ask(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("redis-cli").args(["-p", &self.port]).args(words).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn wait(&self, t: &T, server: &mut Proc) -> TestResult {
        t.wait_until("an answer of redis-server", || {
            server.ensure_alive()?;
            Ok(self.ask(&["PING"])? == "PONG")
        })
    }
}

fn redis(t: &T) -> TestResult {
    need("redis-server")?;
    need("redis-cli")?;
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let redis = Redis { port: free.to_string() };
    let options = ["--bind", "127.0.0.1", "--save", "", "--enable-debug-command", "yes", "--port"];
    let mut server = t.launch("redis", "redis-server").args(options).arg(&redis.port).start()?;
    redis.wait(t, &mut server)?;
    redis.ask(&["DEBUG", "POPULATE", "100000", "key", "100"])?;
    redis.ask(&["EVAL", "for i=1,1000 do redis.call('ZADD', 'scores', i * 7 % 1000, 'm' .. i) end", "0"])?;
    redis.ask(&["EVAL", "for i=1,1000 do redis.call('HSET', 'hash', 'f' .. i, i) end", "0"])?;
    redis.ask(&["SET", "soon", "gone", "EX", "1000"])?;
    let digest = redis.ask(&["DEBUG", "DIGEST"])?;
    ensure!(digest.len() == 40 && redis.ask(&["DBSIZE"])? == "100003", "redis-server: {digest}");

    t.dump(server.pid()).kill().ok()?;
    server.expect_signal(SIGKILL)?;
    ensure!(redis.ask(&["PING"])? != "PONG", "somebody else listens on port {}", redis.port);

    let mut again = t.restore("saved.ckpt").start()?;
    redis.wait(t, &mut again)?;
    let after = redis.ask(&["DEBUG", "DIGEST"])?;
    ensure!(after == digest, "DEBUG DIGEST is {after}, expected {digest}");
    let ttl: u64 = redis.ask(&["TTL", "soon"])?.parse()?;
    ensure!((800..=1000).contains(&ttl), "time to live: {ttl}");
    ensure!(redis.ask(&["SET", "new", "value"])? == "OK" && redis.ask(&["GET", "new"])? == "value");
    ensure!(redis.ask(&["DBSIZE"])? == "100004");
    again.signal(SIGTERM);
    again.expect_exit(0)
}
