//! One workload: limits and ours, interleaved.

use crate::report::Row;
use crate::victim::{Running, Tools, now_ns};
use crate::workloads::Workload;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Samples in seconds of one quantity.
#[derive(Debug, Default)]
struct Samples(Vec<f64>);

impl Samples {
    fn median(&self) -> f64 {
        let mut v = self.0.clone();
        v.sort_by(f64::total_cmp);
        if v.is_empty() { f64::NAN } else { v[v.len() / 2] }
    }
}

#[derive(Debug, Default)]
struct Figures {
    own_write: Samples,
    fork: Samples,
    noop: Samples,
    read: Samples,
    memcpy: Samples,
    dump: Samples,
    pause: Samples,
    restore: Samples,
}

/// Says whether CRIU can be compared with on this machine.
pub fn criu_state(option: Option<&Path>) -> String {
    let program = option.unwrap_or(Path::new("criu"));
    match Command::new(program).arg("check").stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => {
            format!("{} works here; comparing with it is not built yet", program.display())
        }
        Ok(_) => format!("{}: `check` fails on this kernel, left out", program.display()),
        Err(_) => "no CRIU found, left out (give one with --criu PATH)".into(),
    }
}

/// Runs `rounds` rounds (the first is not counted) and returns the rows.
pub fn run(tools: &Tools, dir: &Path, w: &Workload, rounds: usize) -> Result<Vec<Row>> {
    let victim = Running::start(tools, dir, w)?;
    let image = dir.join("saved.ckpt");
    let mut f = Figures::default();
    let mut image_bytes = 0;
    for round in 0..rounds {
        let mut one = Figures::default();
        one.own_write.0.push(victim.heart.ask(b'w')?);
        dump(tools, &victim, &image, &mut one)?;
        one.fork.0.push(victim.heart.ask(b'f')?);
        image_bytes = std::fs::metadata(&image)?.len();
        one.noop.0.push(noop(tools)?);
        let bytes = image_bytes.to_string();
        let path = image.to_str().context("path of the work directory is not UTF-8")?;
        one.read.0.push(tools.limit(&["read", path, &bytes])?);
        one.memcpy.0.push(tools.limit(&["memcpy", &w.bytes.to_string()])?);
        if round > 0 {
            f.add(one);
        }
    }
    drop(victim);
    for round in 0..rounds {
        let seconds = restore(&image, dir)?;
        if round > 0 {
            f.restore.0.push(seconds);
        }
    }
    Ok(rows(w, &f, image_bytes))
}

impl Figures {
    fn add(&mut self, other: Figures) {
        self.own_write.0.extend(other.own_write.0);
        self.fork.0.extend(other.fork.0);
        self.noop.0.extend(other.noop.0);
        self.read.0.extend(other.read.0);
        self.memcpy.0.extend(other.memcpy.0);
        self.dump.0.extend(other.dump.0);
        self.pause.0.extend(other.pause.0);
    }
}

/// Dumps the running victim; the pause is the longest gap between two of its heartbeats.
fn dump(tools: &Tools, victim: &Running, image: &Path, into: &mut Figures) -> Result<()> {
    let _ = std::fs::remove_file(image);
    let start = Instant::now();
    let mut child = Command::new(&tools.dump)
        .arg(victim.child.id().to_string())
        .arg("-o")
        .arg(image)
        .arg("-q")
        .stdin(Stdio::null())
        .spawn()?;
    let mut longest = 0;
    let mut last = victim.heart.beat();
    let status = loop {
        let beat = victim.heart.beat();
        longest = longest.max(beat.saturating_sub(last));
        last = beat;
        if let Some(status) = child.try_wait()? {
            break status;
        }
    };
    into.dump.0.push(start.elapsed().as_secs_f64());
    ensure!(status.success(), "ckpt-dump failed: {status}");
    let after = victim.heart.beat_after(last)?;
    longest = longest.max(after.saturating_sub(last));
    into.pause.0.push(longest as f64 * 1e-9);
    Ok(())
}

fn noop(tools: &Tools) -> Result<f64> {
    let start = Instant::now();
    ensure!(Command::new(&tools.limits).arg("noop").status()?.success(), "no-op failed");
    Ok(start.elapsed().as_secs_f64())
}

/// Time from just before the image is spawned to the program's first heartbeat.
fn restore(image: &Path, dir: &Path) -> Result<f64> {
    let heart = crate::victim::Heart::open(dir)?;
    heart.clear_first()?;
    let start = now_ns();
    let child = Command::new(image).args(["--pid", "new"]).stdin(Stdio::null()).spawn();
    let mut child = Killed(child.context("cannot run the image")?);
    let beat = loop {
        let beat = heart.first();
        if beat > start {
            break beat;
        }
        if beat > 0 {
            // The dump fell between a beat and its noting: that one is from before.
            heart.clear_first()?;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
        if let Some(status) = child.0.try_wait()? {
            anyhow::bail!("the image ended before its first heartbeat: {status}");
        }
    };
    Ok((beat - start) as f64 * 1e-9)
}

/// Kills the restored program when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rows(w: &Workload, f: &Figures, image_bytes: u64) -> Vec<Row> {
    let own = f.own_write.median();
    let read = f.read.median();
    let floor = f.noop.median() + f.memcpy.median();
    let stored = if w.pages == "zero" { 0 } else { w.bytes };
    let name = w.name;
    vec![
        Row::time(
            name,
            "dump, whole command",
            f.dump.median(),
            Some((own, "own write()")),
            "1 / 0.8 (1.25) for 1 GiB",
        ),
        Row::time(name, "pause of a plain dump", f.pause.median(), Some((f.fork.median(), "fork()")), ""),
        Row::time(
            name,
            "restore, to first own instruction",
            f.restore.median(),
            Some((floor, "no-op exec + warm memcpy")),
            "",
        ),
        Row::time(
            name,
            "restore, to first own instruction",
            f.restore.median(),
            Some((f.noop.median() + read, "no-op exec + fastest read")),
            "3 for 16 MiB",
        ),
        Row::time(
            name,
            "restore, to first own instruction",
            f.restore.median(),
            Some((read, "fastest read, 2 threads")),
            "4 GiB/s where the read reaches it",
        ),
        Row {
            workload: name.into(),
            what: "image".into(),
            value: image_bytes as f64 / 1048576.0,
            unit: "MiB",
            limit: Some(stored as f64 / 1048576.0),
            limit_is: "populated non-zero bytes".into(),
            ratio: (stored > 0).then(|| image_bytes as f64 / stored as f64),
            target: "+ 1 % + 1 MiB".into(),
        },
    ]
}
