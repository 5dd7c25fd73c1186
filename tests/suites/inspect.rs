//! ckpt-info: words, JSON, verification, comparison, memory, core files in gdb.

use ckpt_tests::{
    Context, Proc, Suite, T, TestResult, Variant, bail, ensure, have, skip, tool, victim_program,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("inspect");
    suite.test("words", words);
    suite.test("json_follows_its_schema", json);
    suite.test("memory_is_extracted", extract);
    suite.test("strings", strings);
    suite.test("damage_is_named", damage);
    suite.test("difference", difference);
    suite.test("core_in_gdb", core_in_gdb);
    suite.test("core_of_a_child", core_of_a_child);
    suite.test("core_is_not_overwritten", core_exists);
    suite.run()
}

fn info(t: &T, args: &[&str]) -> anyhow::Result<Output> {
    let tool = tool("ckpt-info")?;
    Command::new(tool).args(args).current_dir(t.dir()).output().context("cannot run ckpt-info")
}

fn good(t: &T, args: &[&str]) -> anyhow::Result<String> {
    let output = info(t, args)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ckpt-info {args:?}: {}\n{stderr}", output.status);
    ensure!(stderr.is_empty(), "ckpt-info {args:?} says {stderr}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The victim, dumped and running on.
fn dumped(t: &T) -> anyhow::Result<Proc> {
    let victim = t.victim("inspect").start()?;
    t.dump(victim.pid()).ok()?;
    Ok(victim)
}

fn end(t: &T, mut victim: Proc) -> TestResult {
    t.go()?;
    victim.expect_exit(0)?;
    t.expect_ok()
}

fn words(t: &T) -> TestResult {
    let victim = dumped(t)?;
    let text = good(t, &["saved.ckpt", "--all"])?;
    let pid = format!("task {} ", victim.pid());
    for word in ["program    inspect", &pid, "in futex", "in read", "EventFd at 0", "rbx 0x"] {
        ensure!(text.contains(word), "no {word:?} in\n{text}");
    }
    end(t, victim)
}

fn json(t: &T) -> TestResult {
    let victim = dumped(t)?;
    let report: Value = serde_json::from_str(&good(t, &["saved.ckpt", "--json"])?)?;
    let task = &report["tasks"][0];
    ensure!(task["pid"] == victim.pid(), "pid {}", task["pid"]);
    let names: Vec<&str> =
        task["threads"].as_array().into_iter().flatten().filter_map(|t| t["name"].as_str()).collect();
    ensure!(names == ["inspect", "condition", "event"], "threads {names:?}");
    ensure!(task["threads"][2]["system_call"] == "read", "{}", task["threads"][2]);
    let schema: Value = serde_json::from_str(&good(t, &["--schema"])?)?;
    let (mut described, mut found) = (BTreeSet::new(), BTreeSet::new());
    keys(&schema[0], &mut described);
    let mut without_values = report.clone();
    // Their keys are names of registers, signals, limits.
    for task in without_values["tasks"].as_array_mut().context("no tasks")? {
        task["handlers"].take();
        task["limits"].take();
        for thread in task["threads"].as_array_mut().context("no threads")? {
            thread["registers"].take();
        }
    }
    keys(&without_values, &mut found);
    let missing: Vec<_> = found.difference(&described).collect();
    ensure!(missing.is_empty(), "not described: {missing:?}");
    end(t, victim)
}

fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, v)| {
            into.insert(key.clone());
            keys(v, into);
        }),
        Value::Array(list) => list.iter().for_each(|v| keys(v, into)),
        _ => {}
    }
}

fn extract(t: &T) -> TestResult {
    let victim = dumped(t)?;
    let address = t.read("address")?;
    let output = info(t, &["saved.ckpt", "--extract", &format!("{address}..18")])?;
    ensure!(output.stdout == b"the answer is 4711", "{:?}", String::from_utf8_lossy(&output.stdout));
    // From the page before, which was never touched, over the end of the page.
    let start = u64::from_str_radix(address.trim(), 16)? - 4;
    let output = info(t, &["saved.ckpt", "--extract", &format!("{start:x}-{:x}", start + 8)])?;
    ensure!(output.stdout == b"\0\0\0\0the ", "{:?}", output.stdout);
    let output = info(t, &["saved.ckpt", "--extract", "10..4"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("nothing is mapped at 0x10"), "{said}");
    end(t, victim)
}

fn strings(t: &T) -> TestResult {
    let victim = dumped(t)?;
    let expected = format!("0x{} the answer is 4711\n", t.read("address")?.trim());
    let text = good(t, &["saved.ckpt", "--strings", "10"])?;
    ensure!(text.contains(&expected), "no {expected:?}");
    ensure!(text.lines().all(|l| l.split_once(' ').is_some_and(|(_, s)| s.len() >= 10)), "a short one");
    end(t, victim)
}

fn damage(t: &T) -> TestResult {
    let victim = dumped(t)?;
    let text = good(t, &["saved.ckpt", "--verify"])?;
    ensure!(text.starts_with("intact: "), "{text}");
    // One byte of the page that is known.
    let bytes = std::fs::read(t.path("saved.ckpt"))?;
    let needle = b"the answer is 4711";
    let at = bytes.windows(needle.len()).position(|w| w == needle).context("the text is not in the image")?;
    let file = std::fs::File::options().write(true).open(t.path("saved.ckpt"))?;
    file.write_all_at(b"T", at as u64)?;
    let output = info(t, &["saved.ckpt", "--verify"])?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(1), "{}", output.status);
    ensure!(said.contains("damaged") && said.contains(t.read("address")?.trim()), "{said}");
    std::fs::write(t.path("other"), "no image")?;
    let output = info(t, &["other"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && said.contains("other"), "{said}");
    end(t, victim)
}

fn difference(t: &T) -> TestResult {
    let victim = dumped(t)?;
    ensure!(good(t, &["saved.ckpt", "--diff", "saved.ckpt"])?.is_empty(), "it differs from itself");
    let address = u64::from_str_radix(t.read("address")?.trim(), 16)?;
    let memory = std::fs::File::options().write(true).open(format!("/proc/{}/mem", victim.pid()))?;
    memory.write_all_at(b"T", address)?;
    t.dump(victim.pid()).output("second.ckpt").ok()?;
    memory.write_all_at(b"t", address)?;
    let output = info(t, &["second.ckpt", "--diff", "saved.ckpt", "--json"])?;
    ensure!(output.status.code() == Some(1), "{}", output.status);
    let all: Value = serde_json::from_slice(&output.stdout)?;
    let of = |m: &Value, key: &str| m[key].as_str().and_then(|a| u64::from_str_radix(&a[2..], 16).ok());
    let here =
        all["memory"].as_array().into_iter().flatten().find(|m| {
            of(m, "start").is_some_and(|s| s <= address) && of(m, "end").is_some_and(|e| e > address)
        });
    ensure!(here.is_some_and(|m| m["pages"] == 1), "at {address:#x} one page differs: {all}");
    end(t, victim)
}

/// What gdb says of all threads, without what only a living process has.
fn backtraces(args: &[&str]) -> anyhow::Result<Vec<String>> {
    let all = ["-nx", "-batch", "-ex", "set pagination off", "-ex", "thread apply all backtrace"];
    // No debug information from a server of the distribution.
    let output = Command::new("gdb").args(all).args(args).env_remove("DEBUGINFOD_URLS").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let frames: Vec<String> = text
        .lines()
        .skip_while(|l| !l.starts_with("Thread "))
        .filter(|l| l.starts_with('#') || l.starts_with("Thread "))
        // A living thread's name is shown, a core file has none.
        .map(|l| l.split(" \"").next().unwrap_or(l).trim_end_matches("):").to_owned())
        .collect();
    if frames.is_empty() {
        bail!("gdb {args:?} shows nothing:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(frames)
}

fn program() -> anyhow::Result<String> {
    Ok(victim_program("inspect", Variant::Dynamic)?.to_str().context("path")?.to_owned())
}

fn core_in_gdb(t: &T) -> TestResult {
    if !have("gdb") {
        skip!("gdb is not installed (scripts/setup installs it)");
    }
    let victim = t.victim("inspect").start()?;
    let live = backtraces(&["-p", &victim.pid().to_string()])?;
    t.dump(victim.pid()).ok()?;
    end(t, victim)?;
    good(t, &["saved.ckpt", "--core", "saved.core"])?;
    let core = t.path("saved.core");
    let core = core.to_str().context("path")?;
    let saved = backtraces(&[&program()?, core])?;
    let (live, saved) = (settled(&live), settled(&saved));
    ensure!(live == saved, "of the process:\n{}\nof the core file:\n{}", live.join("\n"), saved.join("\n"));
    for word in ["descend", "waits_for_condition", "waits_for_event", "inspect.c"] {
        ensure!(saved.iter().any(|l| l.contains(word)), "no {word} in {saved:?}");
    }
    let memory = Command::new("gdb")
        .args(["-nx", "-batch", "-ex", "print known_global", "-ex"])
        .arg(format!("x/s 0x{}", t.read("address")?.trim()))
        .args([&program()?, core])
        .output()?;
    let text = String::from_utf8_lossy(&memory.stdout).into_owned();
    ensure!(text.contains("= 4711") && text.contains("\"the answer is 4711\""), "{text}");
    Ok(())
}

/// Without the numbers of frames, and those of `wait_go` and what it calls: the main thread sleeps, looks for a
/// file, and sleeps again.
fn settled(frames: &[String]) -> Vec<String> {
    let changes = |f: &&String| !["nanosleep", "access", "wait_go"].iter().any(|word| f.contains(word));
    let named = |f: &String| {
        f.split_once(' ')
            .filter(|_| f.starts_with('#'))
            .map_or(f.as_str(), |(_, rest)| rest)
            .trim()
            .to_owned()
    };
    frames.iter().filter(changes).map(named).collect()
}

fn core_of_a_child(t: &T) -> TestResult {
    let mut victim = t.victim("tree_family").start()?;
    let child = *ckpt_tests::procfs::descendants(victim.pid()).first().context("no child")?;
    t.dump(victim.pid()).ok()?;
    good(t, &["saved.ckpt", "--core", "child.core", "--task", &child.to_string()])?;
    let text = Command::new("readelf").args(["-hln"]).arg(t.path("child.core")).output()?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    ensure!(text.contains("CORE (Core file)") && text.contains("NT_PRSTATUS"), "{text}");
    let output = info(t, &["saved.ckpt", "--core", "none.core", "--task", "1"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("no task 1"), "{said}");
    ensure!(!Path::new(&t.path("none.core")).exists(), "a core file was left");
    t.go()?;
    victim.expect_exit(0)
}

fn core_exists(t: &T) -> TestResult {
    let victim = dumped(t)?;
    t.write("saved.core", "mine")?;
    let output = info(t, &["saved.ckpt", "--core", "saved.core"])?;
    ensure!(!output.status.success() && t.read("saved.core")? == "mine", "it was overwritten");
    end(t, victim)
}
