//! `--track`: what the program did not write to is taken from the parent unread, and every image is exact.

use ckpt_tests::{
    Context, Error, Mounted, Proc, Suite, T, TestResult, Who, bail, ensure, procfs, skip, tool,
};
use serde_json::Value;
use std::process::Command;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("track");
    for who in [Who::Me, Who::User] {
        let suffix = if who == Who::User { "::user" } else { "" };
        suite.test_as(who, format!("every_kind_of_change{suffix}"), |t| series(t, &[]));
        suite.test_as(who, format!("same_as_a_full_image{suffix}"), same_as_full);
        suite.test_as(who, format!("leaves_nothing{suffix}"), leaves_nothing);
    }
    suite.test("every_kind_of_change::snapshot", |t| series(t, &["--snapshot"]));
    suite.test("every_kind_of_change::dedup", |t| series(t, &["--dedup"]));
    suite.test("every_kind_of_change::compress", |t| series(t, &["--compress"]));
    suite.test("every_kind_of_change::snapshot_compress", |t| series(t, &["--snapshot", "--compress"]));
    suite.test("every_kind_of_change::mixed", mixed);
    suite.test("many_generations", many_generations);
    suite.test("xfs", |t| xfs(t, |t| series_in(t, &[], "mnt/")));
    suite.test("xfs::compress", |t| xfs(t, |t| series_in(t, &["--compress"], "mnt/")));
    suite.test("xfs::many_generations", |t| xfs(t, |t| generations(t, "mnt/")));
    suite.test("keeper_is_killed", keeper_killed);
    suite.test("another_parent", another_parent);
    suite.test("after_execve", after_execve);
    suite.test("plain_dumps_meanwhile", plain_meanwhile);
    suite.test("damaged_parent", damaged);
    for point in
        ["open-begun", "track-armed", "after-collect", "mid-write", "running", "before-rename", "track-kept"]
    {
        if !point.starts_with("track") && point != "open-begun" {
            suite.test(format!("fault::{point}"), move |t| fault(t, point, false));
        }
        suite.test(format!("fault::{point}::killed"), move |t| fault(t, point, true));
    }
    for nth in 1..=4 {
        for point in ["batch-mask", "batch-ran"] {
            suite.test(format!("fault::{point}#{nth}::killed"), move |t| {
                fault(t, &format!("{point}#{nth}"), true)
            });
        }
    }
    suite.test("options", options);
    suite.run()
}

/// The process that keeps tracking for this one.
fn keeper(pid: i32) -> Option<i32> {
    let of = |keeper: i32| {
        let arguments = std::fs::read(format!("/proc/{keeper}/cmdline")).ok()?;
        let pid = pid.to_string();
        arguments.split(|b| *b == 0).any(|a| a == pid.as_bytes()).then_some(keeper)
    };
    let all = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    all.filter(|pid: &i32| procfs::comm(*pid).as_deref() == Some("ckpt-keeper")).find_map(of)
}

/// Mappings that a userfaultfd watches.
fn watched(pid: i32) -> Result<usize, Error> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    Ok(smaps.lines().filter(|l| l.starts_with("VmFlags:") && l.contains(" uw")).count())
}

fn number(json: &Value, name: &str) -> Result<u64, Error> {
    json[name].as_u64().with_context(|| format!("no {name} in {json}"))
}

/// A dump that succeeds: its JSON, and what it says besides.
fn dump(t: &T, pid: i32, image: &str, args: &[&str]) -> Result<(Value, String), Error> {
    let dumped = t.dump(pid).args(["--json"]).args(args).output(image).ok()?;
    Ok((serde_json::from_str(&dumped.stdout)?, dumped.stderr))
}

/// Where writes can be tracked.
fn start(t: &T, victim: &str) -> Result<Proc, Error> {
    let victim = t.victim(victim).start()?;
    let image = t.path("first.ckpt");
    let tried = t.dump(victim.pid()).arg("--track").args(["--json"]).output(image).run()?;
    if tried.stderr.contains("Linux 6.7 is needed") {
        skip!("writes cannot be tracked here");
    }
    ensure!(tried.code == Some(0), "{}", tried.stderr);
    let json: Value = serde_json::from_str(&tried.stdout)?;
    ensure!(number(&json, "tracked")? >= 1 && number(&json, "unread_bytes")? == 0, "{json}");
    ensure!(keeper(victim.pid()).is_some() && watched(victim.pid())? > 0, "nothing is tracked");
    Ok(victim)
}

fn change(t: &T, round: u32, child: bool) -> TestResult {
    t.tell(&format!("change{round}"))?;
    t.wait_file(&format!("changed{round}p"))?;
    if child { t.wait_file(&format!("changed{round}c")) } else { Ok(()) }
}

const MOST: u64 = 32 << 20;

fn series(t: &T, more: &[&str]) -> TestResult {
    series_in(t, more, "")
}

fn series_in(t: &T, more: &[&str], dir: &str) -> TestResult {
    series_of(t, |_| more.to_vec(), dir)
}

/// Compressed or not, whatever the parent is.
fn mixed(t: &T) -> TestResult {
    series_of(t, |round| if [2, 3, 5].contains(&round) { vec!["--compress"] } else { vec![] }, "")
}

/// `more`: options of each round.
fn series_of<'a>(t: &T, more: impl Fn(u32) -> Vec<&'a str>, dir: &str) -> TestResult {
    let mut victim = start(t, "mem_track")?;
    let mut parent = t.path("first.ckpt");
    if !dir.is_empty() {
        // The first one was made elsewhere.
        let there = t.path(format!("{dir}first.ckpt"));
        dump(t, victim.pid(), &format!("{dir}first.ckpt"), &["--track"])?;
        parent = there;
    }
    for round in 1..=5 {
        change(t, round, round > 2)?;
        let image = format!("{dir}round{round}.ckpt");
        let parent_arg = parent.to_str().context("path")?.to_owned();
        let mut args = vec!["--parent", &parent_arg];
        args.extend(if round < 5 { &["--track"][..] } else { &["--kill"] });
        args.extend(more(round));
        let (json, _) = dump(t, victim.pid(), &image, &args)?;
        ensure!(number(&json, "unread_bytes")? > MOST, "round {round}: {json}");
        // The child is new in the second one.
        let known = if round > 2 { 2 } else { 1 };
        ensure!(number(&json, "tracked_since_parent")? == known, "round {round}: {json}");
        parent = t.path(&image);
    }
    victim.wait_exit()?;
    t.wait_until("the end of what keeps tracking", || Ok(keeper(victim.pid()).is_none()))?;
    for round in 1..5 {
        // Nothing is needed of the earlier ones.
        std::fs::remove_file(t.path(format!("{dir}round{round}.ckpt")))?;
    }
    t.expect_good(&format!("{dir}round5.ckpt"))
}

fn same_as_full(t: &T) -> TestResult {
    let victim = start(t, "mem_track")?;
    let mut parent = t.path("first.ckpt");
    for round in 1..=8 {
        change(t, round, round > 2)?;
        let image = t.path(format!("round{round}.ckpt"));
        let last = parent.to_str().context("path")?.to_owned();
        dump(
            t,
            victim.pid(),
            image.to_str().context("path")?,
            &["--parent", &last, "--track", "--leave-stopped"],
        )?;
        dump(t, victim.pid(), "full.ckpt", &[])?;
        let differences = differences(t, &image)?;
        ensure!(differences.is_empty(), "round {round}: {differences:?}");
        std::fs::remove_file(&parent)?;
        parent = image;
        let all = std::iter::once(victim.pid()).chain(procfs::descendants(victim.pid()));
        all.for_each(|pid| procfs::signal(pid, nix::sys::signal::Signal::SIGCONT));
    }
    Ok(())
}

/// Pages of the victim's areas that an image has otherwise than `full.ckpt`. (The kernel itself writes to where
/// threads have their rseq area.)
fn differences(t: &T, image: &std::path::Path) -> Result<Vec<String>, Error> {
    let info = Command::new(tool("ckpt-info")?).arg(image).arg("--diff").arg(t.path("full.ckpt")).output()?;
    let text = String::from_utf8(info.stdout)?;
    ensure!(text.contains("image.") || text.is_empty(), "{text}");
    let of_an_area = |line: &&str| {
        let range = line.split_whitespace().find_map(|w| {
            let (start, end) = w.trim_end_matches(':').split_once("-0x")?;
            let start = u64::from_str_radix(start.strip_prefix("0x")?, 16).ok()?;
            Some(u64::from_str_radix(end, 16).ok()? - start)
        });
        line.starts_with("task") && line.contains("pages differ") && range.is_none_or(|len| len > 64 << 10)
            || line.contains("vmas")
            || line.contains("only in")
    };
    Ok(text.lines().filter(of_an_area).map(str::to_owned).collect())
}

fn many_generations(t: &T) -> TestResult {
    generations(t, "")
}

/// What is left over of earlier images does not add up.
fn generations(t: &T, dir: &str) -> TestResult {
    let mut victim = start(t, "mem_track")?;
    let name = |n: u32| format!("{dir}round{n}.ckpt");
    let mut whole = dump(t, victim.pid(), &name(0), &["--track"])?.0;
    for round in 1..=20 {
        change(t, round, round > 2)?;
        let parent = t.path(name(round - 1));
        let last = parent.to_str().context("path")?.to_owned();
        let how = if round < 20 { "--track" } else { "--kill" };
        whole = dump(t, victim.pid(), &name(round), &["--parent", &last, how])?.0;
        std::fs::remove_file(parent)?;
        let (image, own) = (number(&whole, "image_bytes")?, number(&whole, "stored_bytes")?);
        let embedded = number(&whole, "embedded_bytes")?;
        let most = (own + embedded) * 5 / 4 + (4 << 20);
        ensure!(image <= most, "round {round}: {image} bytes of at most {most}: {whole}");
    }
    ensure!(number(&whole, "unread_bytes")? > MOST, "{whole}");
    victim.wait_exit()?;
    t.expect_good(&name(20))
}

fn xfs(t: &T, body: impl FnOnce(&T) -> TestResult) -> TestResult {
    let _mounted = Mounted::new(t, "mkfs.xfs")?;
    body(t)
}

fn first(t: &T) -> Result<String, Error> {
    Ok(t.path("first.ckpt").to_str().context("path")?.to_owned())
}

fn keeper_killed(t: &T) -> TestResult {
    let mut victim = start(t, "mem_track")?;
    change(t, 1, false)?;
    let Some(keeper) = keeper(victim.pid()) else { bail!("no keeper") };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper), nix::sys::signal::Signal::SIGKILL)?;
    t.wait_until("the end of tracking", || Ok(watched(victim.pid())? == 0))?;
    let (json, said) = dump(t, victim.pid(), "second.ckpt", &["--parent", &first(t)?, "--track"])?;
    ensure!(number(&json, "unread_bytes")? == 0 && said.contains("not tracked since"), "{json} {said}");
    // That one began anew.
    change(t, 2, false)?;
    let second = t.path("second.ckpt").to_str().context("path")?.to_owned();
    let (json, said) = dump(t, victim.pid(), "third.ckpt", &["--parent", &second, "--kill"])?;
    ensure!(number(&json, "unread_bytes")? > MOST && !said.contains("not tracked"), "{json} {said}");
    victim.wait_exit()?;
    t.expect_good("third.ckpt")
}

/// What is tracked is what was written since the last dump with --track, not since another.
fn another_parent(t: &T) -> TestResult {
    let mut victim = start(t, "mem_track")?;
    change(t, 1, false)?;
    dump(t, victim.pid(), "second.ckpt", &["--track"])?;
    change(t, 2, false)?;
    let (json, said) = dump(t, victim.pid(), "third.ckpt", &["--parent", &first(t)?, "--track"])?;
    ensure!(number(&json, "unread_bytes")? == 0 && said.contains("not tracked since"), "{json} {said}");
    change(t, 3, true)?;
    // Without --track the last dump ends it.
    let third = t.path("third.ckpt").to_str().context("path")?.to_owned();
    let (json, _) = dump(t, victim.pid(), "fourth.ckpt", &["--parent", &third])?;
    ensure!(number(&json, "unread_bytes")? > MOST && number(&json, "tracked")? == 0, "{json}");
    ensure!(watched(victim.pid())? == 0, "still tracked");
    t.wait_until("the end of what keeps tracking", || Ok(keeper(victim.pid()).is_none()))?;
    change(t, 4, true)?;
    let fourth = t.path("fourth.ckpt").to_str().context("path")?.to_owned();
    let (json, _) = dump(t, victim.pid(), "fifth.ckpt", &["--parent", &fourth, "--kill"])?;
    ensure!(number(&json, "unread_bytes")? == 0, "{json}");
    victim.wait_exit()?;
    t.expect_good("fifth.ckpt")
}

/// The same process, but not the same memory.
fn after_execve(t: &T) -> TestResult {
    let mut victim = start(t, "track_exec")?;
    t.tell("exec")?;
    t.wait_file("again")?;
    let (json, said) = dump(t, victim.pid(), "second.ckpt", &["--parent", &first(t)?, "--track"])?;
    ensure!(number(&json, "unread_bytes")? == 0 && said.contains("not tracked since"), "{json} {said}");
    let second = t.path("second.ckpt").to_str().context("path")?.to_owned();
    let (json, _) = dump(t, victim.pid(), "third.ckpt", &["--parent", &second, "--kill"])?;
    ensure!(number(&json, "unread_bytes")? > 4 << 20, "{json}");
    victim.wait_exit()?;
    t.expect_good("third.ckpt")
}

fn plain_meanwhile(t: &T) -> TestResult {
    let mut victim = start(t, "mem_track")?;
    change(t, 1, false)?;
    dump(t, victim.pid(), "plain.ckpt", &[])?;
    dump(t, victim.pid(), "plain.ckpt", &["--snapshot"])?;
    t.dump(victim.pid()).arg("--check").run()?;
    ensure!(watched(victim.pid())? > 0, "tracking has ended");
    change(t, 2, false)?;
    let (json, _) = dump(t, victim.pid(), "second.ckpt", &["--parent", &first(t)?, "--kill"])?;
    ensure!(number(&json, "unread_bytes")? > MOST, "{json}");
    victim.wait_exit()?;
    t.expect_good("second.ckpt")
}

/// Whatever became of the dump: nothing watches the program, nothing is open in it, and its memory is one.
fn fault(t: &T, point: &str, killed: bool) -> TestResult {
    let mut victim = t.victim("mem_track").start()?;
    let (maps, fds) = (mappings(victim.pid())?, procfs::fds(victim.pid()));
    let value = if killed { format!("{point}=kill") } else { point.to_owned() };
    let dumped = t.dump(victim.pid()).arg("--track").env("CKPT_FAILPOINT", value).run()?;
    ensure!(dumped.code != Some(0), "the dump was not disturbed");
    t.wait_untraced(&victim)?;
    t.wait_until(
        "the end of tracking",
        || Ok(watched(victim.pid())? == 0 && keeper(victim.pid()).is_none()),
    )?;
    t.wait_until("no stray descriptor", || Ok(procfs::fds(victim.pid()) == fds))?;
    if !killed {
        ensure!(mappings(victim.pid())? == maps, "its mappings have changed");
    }
    change(t, 1, false)?;
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}

fn mappings(pid: i32) -> Result<String, Error> {
    Ok(std::fs::read_to_string(format!("/proc/{pid}/maps"))?)
}

fn leaves_nothing(t: &T) -> TestResult {
    let mut victim = t.victim("mem_track").start()?;
    let (maps, fds) = (mappings(victim.pid())?, procfs::fds(victim.pid()));
    dump(t, victim.pid(), "a.ckpt", &["--track"])?;
    ensure!(procfs::fds(victim.pid()) == fds, "its descriptors have changed");
    ensure!(mappings(victim.pid())? == maps, "its mappings have changed");
    let a = t.path("a.ckpt").to_str().context("path")?.to_owned();
    let (json, _) = dump(t, victim.pid(), "b.ckpt", &["--parent", &a])?;
    ensure!(number(&json, "unread_bytes")? > MOST, "{json}");
    ensure!(mappings(victim.pid())? == maps && watched(victim.pid())? == 0, "something is left");
    ensure!(procfs::fds(victim.pid()) == fds, "its descriptors have changed");
    t.wait_until("the end of what keeps tracking", || Ok(keeper(victim.pid()).is_none()))?;
    // And with the program, what keeps it ends, too.
    dump(t, victim.pid(), "c.ckpt", &["--track"])?;
    ensure!(keeper(victim.pid()).is_some(), "no keeper");
    t.go()?;
    victim.expect_exit(0)?;
    t.wait_until("the end of what keeps tracking", || Ok(keeper(victim.pid()).is_none()))?;
    t.expect_ok()
}

/// What is killed has no other copy: all that is taken from the parent is verified first.
fn damaged(t: &T) -> TestResult {
    use std::os::unix::fs::FileExt;
    let mut victim = start(t, "mem_track")?;
    change(t, 1, false)?;
    let file = std::fs::File::options().read(true).write(true).open(t.path("first.ckpt"))?;
    let at = file.metadata()?.len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)?;
    drop(file);
    let dump = t.dump(victim.pid()).args(["--parent", &first(t)?, "--kill"]);
    dump.output("second.ckpt").refused(1, &["--parent", "damaged"])?;
    t.wait_untraced(&victim)?;
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}

fn options(t: &T) -> TestResult {
    let mut victim = t.victim("mem_track").start()?;
    t.dump(victim.pid()).args(["--track", "--kill"]).refused(2, &["--track", "--kill"]).map(drop).or_else(
        |e| {
            // clap's own words.
            if e.to_string().contains("no proper message") { Ok(()) } else { Err(e) }
        },
    )?;
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}
