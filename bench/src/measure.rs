//! One workload: limits and ours, interleaved.

use crate::criu::Criu;
use crate::report::Row;
use crate::victim::{Heart, Running, Tools, children, end_tree, now_ns};
use crate::workloads::Workload;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Samples of each quantity: seconds, or bytes.
#[derive(Debug, Default)]
pub struct Samples(BTreeMap<&'static str, Vec<f64>>);

impl Samples {
    pub fn add(&mut self, what: &'static str, value: f64) {
        self.0.entry(what).or_default().push(value);
    }

    /// The median; `None` for what was not measured.
    fn median(&self, what: &str) -> Option<f64> {
        let mut values = self.0.get(what)?.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    fn append(&mut self, other: Self) {
        other.0.into_iter().for_each(|(what, values)| self.0.entry(what).or_default().extend(values));
    }
}

/// Runs `rounds` rounds (the first is not counted) and returns the rows.
pub fn run(tools: &Tools, dir: &Path, w: &Workload, rounds: usize, criu: Option<&Criu>) -> Result<Vec<Row>> {
    let mut victim = Running::start(tools, dir, w)?;
    let image = dir.join("saved.ckpt");
    let path = image.to_str().context("path of the work directory is not UTF-8")?;
    let mut samples = Samples::default();
    for round in 0..rounds {
        let mut one = Samples::default();
        one.add("own write()", victim.heart.ask(b'w')?);
        dump(tools, &victim, &image, &[], ["dump", "pause", "memory of ckpt-dump"], &mut one)?;
        one.add("fork()", victim.heart.ask(b'f')?);
        dump(tools, &victim, &image, &["--snapshot"], ["snapshot", "snapshot pause", ""], &mut one)?;
        one.add("image", std::fs::metadata(&image)?.len() as f64);
        one.add("no-op exec", noop(tools)?);
        let bytes = std::fs::metadata(&image)?.len().to_string();
        one.add("fastest read", tools.limit(&["read", path, &bytes])?);
        one.add("memcpy", tools.limit(&["memcpy", &w.bytes.to_string()])?);
        if w.has_many() {
            let counts = [w.vmas, w.threads, w.fds, w.processes].map(|n| n.to_string());
            one.add("native", tools.limit(&["create", &counts[0], &counts[1], &counts[2], &counts[3]])?);
        }
        if w.pages == "heap" {
            smaller(tools, &victim, dir, &mut one)?;
        }
        if let Some(criu) = criu {
            one.add("CRIU dump", criu.dump(victim.child.id(), dir)?);
        }
        if round > 0 {
            samples.append(one);
        }
    }
    victim.end();
    for round in 0..rounds {
        let mut one = Samples::default();
        one.add("restore", restore(&image, dir, w, &[])?);
        one.add("mapped restore", restore(&image, dir, w, &["--memory", "map"])?);
        one.add("lazy restore", restore(&image, dir, w, &["--memory", "lazy"])?);
        one.add("all read", all_read(&image, dir, w, &[])?);
        one.add("lazy all read", all_read(&image, dir, w, &["--memory", "lazy"])?);
        if w.pages == "heap" {
            one.add("compressed restore", restore(&dir.join("compressed.ckpt"), dir, w, &[])?);
        }
        if let Some(criu) = criu {
            one.add("CRIU restore", criu.restore(dir)?);
        }
        if round > 0 {
            samples.append(one);
        }
    }
    if w.crowd > 0 {
        for _ in 0..rounds.div_ceil(2) {
            crowd(&image, dir, w, &[], ["crowd", "crowd memory"], &mut samples)?;
            crowd(
                &image,
                dir,
                w,
                &["--memory", "map", "--pid", "ns"],
                ["mapped crowd", "mapped crowd memory"],
                &mut samples,
            )?;
        }
    }
    Ok(rows(w, &samples))
}

/// Dumps that follow each other, after `--track`.
const GENERATIONS: u32 = 6;

/// Images that are smaller, or made faster: compressed, without duplicates, with what an earlier one has, of what
/// was written to since.
fn smaller(tools: &Tools, victim: &Running, dir: &Path, into: &mut Samples) -> Result<()> {
    let (image, base) = (dir.join("smaller.ckpt"), dir.join("saved.ckpt"));
    let size = |path: &Path| std::fs::metadata(path).map(|m| m.len() as f64);
    dump(tools, victim, &image, &["--compress"], ["compressing dump", "compressing pause", ""], into)?;
    into.add("compressed image", size(&image)?);
    // To be restored when the program itself does not run any more.
    std::fs::rename(&image, dir.join("compressed.ckpt"))?;
    dump(tools, victim, &image, &["--dedup"], ["dump --dedup", "", ""], into)?;
    victim.heart.ask(b'c')?;
    let parent = ["--parent", base.to_str().context("path of the work directory is not UTF-8")?];
    dump(tools, victim, &image, &parent, ["dump --parent", "pause with --parent", ""], into)?;
    let tracked = dir.join("tracked.ckpt");
    dump(tools, victim, &tracked, &["--track"], ["dump --track", "pause with --track", ""], into)?;
    let next = dir.join("next.ckpt");
    for generation in 1..=GENERATIONS {
        victim.heart.ask(b'c')?;
        let parent = tracked.to_str().context("path of the work directory is not UTF-8")?;
        let names = match generation {
            1 => ["tracked dump", "tracked pause", "memory, tracked"],
            GENERATIONS => ["last tracked dump", "last tracked pause", "memory, tracked"],
            _ => ["tracked dump between", "tracked pause between", ""],
        };
        dump(tools, victim, &next, &["--track", "--parent", parent], names, into)?;
        std::fs::rename(&next, &tracked)?;
    }
    std::fs::remove_file(&tracked)?;
    Ok(std::fs::remove_file(&image)?)
}

const BETWEEN_LOOKS: Duration = Duration::from_micros(100);

/// Dumps the running victim; the pause is the longest gap between two of its heartbeats.
fn dump(
    tools: &Tools,
    victim: &Running,
    image: &Path,
    options: &[&str],
    [whole, pause, memory]: [&'static str; 3],
    into: &mut Samples,
) -> Result<()> {
    let _ = std::fs::remove_file(image);
    let start = Instant::now();
    let mut child = Command::new(&tools.dump)
        .arg(victim.child.id().to_string())
        .arg("-o")
        .arg(image)
        .arg("-q")
        .args(options)
        .stdin(Stdio::null())
        .spawn()?;
    let (mut longest, mut most) = (0, 0);
    let mut last = victim.heart.beat();
    let mut looks = 0u32;
    let status = loop {
        let beat = victim.heart.beat();
        longest = longest.max(beat.saturating_sub(last));
        last = beat;
        looks += 1;
        if looks.is_multiple_of(16) {
            most = most.max(peak_memory(child.id()));
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // The processors are for the program and for ckpt-dump; a pause is longer than this.
        std::thread::sleep(BETWEEN_LOOKS);
    };
    into.add(whole, start.elapsed().as_secs_f64());
    ensure!(status.success(), "ckpt-dump failed: {status}");
    let after = victim.heart.beat_after(last)?;
    longest = longest.max(after.saturating_sub(last));
    if !pause.is_empty() {
        into.add(pause, longest as f64 * 1e-9);
    }
    if !memory.is_empty() {
        into.add(memory, most as f64);
    }
    Ok(())
}

/// A field of `/proc/PID/...` in KiB, as bytes.
fn kilobytes(path: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let value =
        text.lines().find_map(|l| l.strip_prefix(key)?.split_whitespace().next()?.parse::<u64>().ok());
    value.unwrap_or(0) * 1024
}

fn peak_memory(pid: u32) -> u64 {
    kilobytes(&format!("/proc/{pid}/status"), "VmHWM:")
}

fn noop(tools: &Tools) -> Result<f64> {
    let start = Instant::now();
    ensure!(Command::new(&tools.limits).arg("noop").status()?.success(), "no-op failed");
    Ok(start.elapsed().as_secs_f64())
}

fn spawn(image: &Path, w: &Workload, options: &[&str]) -> Result<Killed> {
    let mut command = Command::new(image);
    command.args(options);
    // A tree needs its ids. `--memory map` would look for ids in all memory if they changed.
    if w.processes == 0 && options.is_empty() {
        command.args(["--pid", "new"]);
    }
    Ok(Killed(command.stdin(Stdio::null()).spawn().context("cannot run the image")?))
}

/// Time from just before the image is spawned to the program's first heartbeat.
fn restore(image: &Path, dir: &Path, w: &Workload, options: &[&str]) -> Result<f64> {
    let heart = Heart::open(dir)?;
    heart.clear_first()?;
    let start = now_ns();
    let mut child = spawn(image, w, options)?;
    let beat = first_beat(&heart, start, &mut child)?;
    Ok((beat - start) as f64 * 1e-9)
}

/// Time from just before the image is spawned until the program has read a word of each page of its memory.
fn all_read(image: &Path, dir: &Path, w: &Workload, options: &[&str]) -> Result<f64> {
    let heart = Heart::open(dir)?;
    heart.request(b't')?;
    let start = now_ns();
    let mut child = spawn(image, w, options)?;
    while !heart.is_answered() {
        std::thread::sleep(Duration::from_millis(1));
        if let Some(status) = child.0.try_wait()? {
            bail!("the image ended before it had read its memory: {status}");
        }
    }
    Ok((heart.answered_at() - start) as f64 * 1e-9)
}

/// Waits for a heartbeat after `start`.
fn first_beat(heart: &Heart, start: u64, child: &mut Killed) -> Result<u64> {
    loop {
        let beat = heart.first();
        if beat > start {
            return Ok(beat);
        }
        if beat > 0 {
            // The dump fell between a beat and its noting: that one is from before.
            heart.clear_first()?;
        }
        std::thread::sleep(Duration::from_millis(1));
        if let Some(status) = child.0.try_wait()? {
            bail!("the image ended before its first heartbeat: {status}");
        }
    }
}

/// Many restores at once: until all are up, and the memory that they take together.
fn crowd(
    image: &Path,
    dir: &Path,
    w: &Workload,
    options: &[&str],
    [time, memory]: [&'static str; 2],
    into: &mut Samples,
) -> Result<()> {
    let heart = Heart::open(dir)?;
    heart.call_the_roll()?;
    let start = Instant::now();
    let mut children = Vec::new();
    for _ in 0..w.crowd {
        children.push(spawn(image, w, options)?);
    }
    while heart.up() < u64::from(w.crowd) {
        std::thread::sleep(Duration::from_millis(1));
        for child in &mut children {
            if let Some(status) = child.0.try_wait()? {
                bail!("one of {} images ended: {status}", w.crowd);
            }
        }
    }
    into.add(time, start.elapsed().as_secs_f64());
    into.add(memory, children.iter().map(|c| memory_below(c.0.id())).sum::<u64>() as f64);
    Ok(())
}

/// PSS of a process and of all below it.
fn memory_below(pid: u32) -> u64 {
    let below: u64 = children(pid).into_iter().map(memory_below).sum();
    below + kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// Kills the restored program when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        end_tree(&mut self.0);
    }
}

fn rows(w: &Workload, s: &Samples) -> Vec<Row> {
    const MIB: f64 = 1048576.0;
    let get = |what: &str| s.median(what);
    let sum = |a: &str, b: &str| Some(get(a)? + get(b)?);
    let mut rows = Vec::new();
    let mut time = |what: &str, value: &str, limit: Option<f64>, limit_is: &str, target: &str| {
        if let (Some(value), Some(limit)) = (get(value), limit) {
            rows.push(Row::time(w.name, what, value, Some((limit, limit_is)), target));
        }
    };
    let small = w.bytes <= 16 << 20 && !w.has_many();
    let dump = if small { "8 ms" } else { "1.1 for 1 and 4 GiB" };
    // It writes only what is not in the reservation.
    let own_write = get("own write()").filter(|_| w.reserved == 0);
    time("dump, whole command", "dump", own_write, "own write()", dump);
    time("pause of a plain dump", "pause", get("fork()"), "fork()", if small { "4 ms" } else { "" });
    time("pause with --snapshot", "snapshot pause", get("fork()"), "fork()", "1.3, and 3 ms");
    time("dump with --snapshot", "snapshot", own_write, "own write()", "");
    let first = "restore, to first own instruction";
    time(first, "restore", get("fastest read"), "fastest read, 2 threads", "1.3, and 2 ms");
    time(first, "restore", sum("no-op exec", "fastest read"), "no-op exec + fastest read", "");
    time(first, "restore", sum("no-op exec", "memcpy"), "no-op exec + warm memcpy", "");
    if w.has_many() {
        time("dump, whole command", "dump", get("native"), "making the same natively", "3");
        time(first, "restore", get("native"), "making the same natively", "3");
    }
    time("dump --compress", "compressing dump", own_write, "own write()", "");
    time("restore of that", "compressed restore", get("restore"), "restore of a plain one", "");
    time("dump --dedup", "dump --dedup", get("dump"), "dump without", "");
    time(
        "dump --parent, 1 % changed",
        "dump --parent",
        get("dump"),
        "dump without",
        "0.01 where files are shared",
    );
    time(
        "the same after --track",
        "tracked dump",
        get("dump"),
        "dump without",
        "0.01 where files are shared",
    );
    time("pause of that", "tracked pause", get("pause"), "pause of a plain dump", "0.01");
    time(
        "the 6th such dump in a row",
        "last tracked dump",
        get("dump"),
        "dump without",
        "0.01 where files are shared",
    );
    time("pause of that", "last tracked pause", get("pause"), "pause of a plain dump", "0.01");
    time(
        "pause with --track, the first time",
        "pause with --track",
        get("pause"),
        "pause of a plain dump",
        "",
    );
    time("dump, whole command", "dump", get("CRIU dump"), "CRIU dump", "0.5");
    time(first, "restore", get("CRIU restore"), "CRIU restore", "0.5");
    time(
        "restore, --memory map",
        "mapped restore",
        get("no-op exec"),
        "no-op exec",
        "3 ms, fewer than 200 VMAs",
    );
    time(
        "restore, --memory lazy",
        "lazy restore",
        get("no-op exec"),
        "no-op exec",
        "3 ms, fewer than 200 VMAs",
    );
    time("the same, until it has read all", "lazy all read", get("all read"), "the same, eager", "1.5");
    time("restores at once, all up", "crowd", get("restore"), "one restore", "");
    time("the same, --memory map --pid ns", "mapped crowd", get("restore"), "one restore", "50 ms");
    let mut size = |what: &str, value: &str, limit: f64, limit_is: &str, target: &str| {
        if let Some(value) = get(value) {
            rows.push(Row::mebibytes(w.name, what, value / MIB, limit / MIB, limit_is, target));
        }
    };
    let stored = w.stored() as f64;
    size("image", "image", stored, "populated non-zero bytes", "+ 1 % + 1 MiB");
    size("image of --compress", "compressed image", stored, "populated non-zero bytes", "");
    size("memory of ckpt-dump", "memory of ckpt-dump", 64.0 * MIB, "budget", "at most 1");
    size("the same, --track", "memory, tracked", 64.0 * MIB, "budget", "at most 1");
    size("memory of restores at once", "crowd memory", stored, "one copy", "");
    size("the same, --memory map --pid ns", "mapped crowd memory", stored, "one copy", "1.2");
    rows
}
