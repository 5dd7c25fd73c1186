//! Processes that are never at rest, dumped again and again: neither original nor copies may notice.

use ckpt_tests::{Context, Suite, T, TestResult, Who, ensure, procfs};

/// Dumps that leave the original running.
const DUMPS: u32 = 20;
/// Dumps and restores in a row.
const GENERATIONS: u32 = 8;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("stress");
    for kind in ["threads", "pipes", "memory", "sleeps", "signals"] {
        suite.test(format!("{kind}::plain"), move |t| {
            let mut victim = t.victim("churn").arg(kind).start()?;
            t.ping()?;
            t.go()?;
            victim.expect_exit(0)?;
            t.expect_ok()
        });
        if std::env::var_os("CKPT_TEST_PLAIN").is_some() {
            continue;
        }
        suite.test(format!("{kind}::unharmed"), move |t| unharmed(t, kind));
        for mode in ["new", "same", "ns"] {
            if (kind, mode) == ("signals", "new") {
                // Sending to itself it has its old pid in a register now and then: the reason why
                // `auto` does not give other ids to several threads.
                continue;
            }
            suite.test(format!("{kind}::{mode}"), move |t| generations(t, kind, mode));
        }
        suite.test_as(Who::User, format!("{kind}::user"), move |t| generations(t, kind, "auto"));
    }
    if std::env::var_os("CKPT_TEST_PLAIN").is_none() {
        suite.test("execs::unharmed", execs);
    }
    suite.run()
}

/// A program that calls execve all the time: dumped now and then, or told why not; never harmed.
fn execs(t: &T) -> TestResult {
    let mut victim = t.victim("execs").start()?;
    for round in 0..DUMPS {
        let dumped = t.dump(victim.pid()).run()?;
        ensure!(matches!(dumped.code, Some(0 | 1)), "dump {round}: {dumped:?}");
        victim.ensure_alive().with_context(|| format!("after dump {round}"))?;
    }
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}

fn unharmed(t: &T, kind: &str) -> TestResult {
    let mut victim = t.victim("churn").arg(kind).start()?;
    for round in 0..DUMPS {
        t.dump(victim.pid()).ok().with_context(|| format!("dump {round}"))?;
        victim.ensure_alive().with_context(|| format!("after dump {round}"))?;
    }
    t.ping()?;
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}

/// Each generation is dumped and killed, and its image becomes the next.
fn generations(t: &T, kind: &str, mode: &str) -> TestResult {
    let mut victim = t.victim("churn").arg(kind).start()?;
    // A process below a supervisor is named by its pid there, seen from here.
    let mut pid = victim.pid();
    for round in 0..GENERATIONS {
        t.dump(pid).kill().ok().with_context(|| format!("generation {round}"))?;
        victim.wait_exit()?;
        victim = t.restore("saved.ckpt").pid(mode).start()?;
        t.tell("ping")?;
        t.wait_until("sign of life", || {
            victim.ensure_alive().with_context(|| format!("generation {round}"))?;
            Ok(t.path("pong").exists())
        })?;
        std::fs::remove_file(t.path("pong"))?;
        pid = procfs::program(victim.pid());
    }
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()?;
    ensure!(procfs::group(victim.pid()).is_empty(), "processes are left: {:?}", procfs::group(victim.pid()));
    Ok(())
}
