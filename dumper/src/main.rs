//! `ckpt-dump`: a running process becomes an executable.

use ckpt_dump::cli::{Cli, Tcp};
use ckpt_dump::dump::{self, Outcome, Output, Refusal, Request};
use ckpt_dump::error::exit_code;
use ckpt_dump::plan::{ALLOW_KINDS, Options, TcpPolicy};
use ckpt_dump::ptrace::Fate;
use ckpt_dump::schedule::{Next, Schedule};
use ckpt_dump::sys::signals;
use ckpt_dump::{report, target};
use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

/// Dumps that take longer than this show their progress.
const PATIENCE: Duration = Duration::from_secs(1);

fn main() {
    let cli = Cli::parse();
    cli.check().unwrap_or_else(|error| error.exit());
    report::set_verbosity(cli.verbose);
    cli.on_signal.iter().for_each(|signal| signals::dump_on(*signal));
    signals::block();
    std::process::exit(run(&cli));
}

fn run(cli: &Cli) -> i32 {
    if let Some(log) = &cli.log
        && let Err(e) = report::log_to(log)
    {
        report::error(&format!(
            "cannot write the log {}: {e}; choose another place with --log",
            log.display()
        ));
        return 6;
    }
    if cli.to_stdout() && std::io::stdout().is_terminal() {
        report::error(
            "an image is not for a terminal: redirect standard output (-o - > FILE, or into a pipe)",
        );
        return 2;
    }
    let status = match target::resolve(cli.target()) {
        Ok(pid) if cli.repeats() => repeat(cli, pid),
        Ok(pid) => dump(cli, pid, fate(cli), cli.parent.as_deref()),
        Err(error) => failed(cli, None, &error),
    };
    report::log("end", &format!("exit status {status}"));
    status
}

fn output(path: &Path) -> Output<'_> {
    if path == Path::new("-") { Output::Stdout } else { Output::File(path) }
}

/// The result, for people or programs: not where the image goes.
fn tell(cli: &Cli, text: &str) {
    if cli.to_stdout() {
        eprintln!("{text}");
    } else {
        println!("{text}");
    }
}

/// Says why, and gives the exit status.
fn failed(cli: &Cli, pid: Option<i32>, error: &anyhow::Error) -> i32 {
    let status = exit_code(error);
    report::error(&format!("{error:#}"));
    if cli.json {
        let error = format!("{error:#}");
        tell(cli, &serde_json::json!({ "pid": pid, "error": error, "exit_status": status }).to_string());
    }
    status
}

fn fate(cli: &Cli) -> Fate {
    match (cli.kill, cli.leave_stopped) {
        (true, _) => Fate::Kill,
        (_, true) => Fate::Stop,
        _ => Fate::Run,
    }
}

/// `--every`, `--on-signal`.
fn repeat(cli: &Cli, pid: i32) -> i32 {
    let say = |text: &str| {
        report::log("info", text);
        if !cli.quiet && !cli.json {
            eprintln!("ckpt-dump: {text}");
        }
    };
    let mut schedule = match Schedule::new(pid, cli.every) {
        Ok(schedule) => schedule,
        Err(error) => return failed(cli, Some(pid), &error),
    };
    if cli.every.is_none() {
        say(&format!("waiting for a signal to dump PID {pid} (my PID: {})", std::process::id()));
    }
    let mut last = None;
    loop {
        let next = match schedule.wait() {
            Ok(next) => next,
            Err(error) => return failed(cli, Some(pid), &error),
        };
        let fate = match next {
            Next::Due => Fate::Run,
            Next::Asked(_) => fate(cli),
            Next::Ended => {
                say(&format!("PID {pid} has ended{}", if last.is_none() { " before any dump" } else { "" }));
                return last.unwrap_or(3);
            }
            Next::Stop(signal) => {
                say(&format!("told to end by signal {signal}; PID {pid} runs on"));
                return last.unwrap_or(1);
            }
        };
        // What is tracked is what was written since the last one.
        let own = cli.output.as_deref().filter(|_| cli.track && last == Some(0));
        let status = dump(cli, pid, fate, own.or(cli.parent.as_deref()));
        let never_worked = last.is_none() && next == Next::Due && status != 0;
        if never_worked || fate != Fate::Run || signals::seen_stop_request().is_some() {
            return status;
        }
        // One that ends during a dump has been saved before.
        last = if status == 3 { last } else { Some(status) };
    }
}

fn dump(cli: &Cli, pid: i32, fate: Fate, parent: Option<&Path>) -> i32 {
    let caller = cli.caller.clone().map(|caller| caller.leaving_out(&cli.leave_out_fd));
    let request = Request {
        pid,
        output: match cli.output_fd {
            Some(fd) => Some(Output::Descriptor(fd)),
            None => cli.output.as_deref().filter(|_| !cli.check).map(output),
        },
        fate,
        freeze_cgroup: cli.freeze_cgroup.as_deref(),
        keep: cli.keep,
        sync: cli.sync,
        snapshot: cli.snapshot,
        compress: cli.compress,
        dedup: cli.dedup || cli.compress,
        parent,
        track: cli.track && fate != Fate::Kill,
        no_stub: cli.no_stub,
        options: Options {
            embed: !cli.no_embed,
            allow: cli.allow.iter().cloned().collect(),
            search: cli.search.clone(),
            tcp: match cli.tcp {
                None => TcpPolicy::Auto,
                Some(Tcp::Repair) => TcpPolicy::Repair,
                Some(Tcp::Reset) => TcpPolicy::Reset,
                Some(Tcp::Refuse) => TcpPolicy::Refuse,
            },
        },
        caller: caller.as_ref(),
        uuid: cli.uuid,
        tcp_hold: Duration::from_secs(cli.tcp_hold),
    };
    let mut progress = Progress::new(!cli.quiet && !cli.json && std::io::stderr().is_terminal());
    let result = dump::dump(&request, &mut |done, total| progress.update(done, total));
    progress.finish();
    match result {
        Ok(outcome) => {
            succeeded(cli, fate, parent, &outcome);
            0
        }
        Err(Refusal::Obstacles(obstacles)) => {
            for obstacle in &obstacles {
                report::error(&obstacle.to_string());
            }
            if cli.json {
                let all = serde_json::json!({ "pid": pid, "obstacles": obstacles, "exit_status": 5 });
                tell(cli, &all.to_string());
            }
            5
        }
        Err(Refusal::Error(error)) => failed(cli, Some(pid), &error),
    }
}

fn succeeded(cli: &Cli, fate: Fate, parent: Option<&Path>, outcome: &Outcome) {
    for loss in &outcome.losses {
        let asked = ALLOW_KINDS.iter().any(|(kind, _)| *kind == loss.kind);
        let option = if asked { format!(" (--allow {})", loss.kind) } else { String::new() };
        report::error(&format!("PID {} {}; not in the image{option}", loss.pid, loss.text));
    }
    let parent_of_image = parent.filter(|_| outcome.image.is_some()).map(Path::display);
    if let (Some(parent), true) = (&parent_of_image, outcome.only_unread) {
        if outcome.unread_bytes == 0 {
            report::error(&format!(
                "it, or {parent}, is compressed: nothing is shared with it but what --track knows to be unchanged, \
                 which is nothing; it was written in full"
            ));
        }
    } else if let (Some(parent), None) = (&parent_of_image, outcome.inherited_bytes) {
        let instead =
            if outcome.unread_bytes > 0 { "what is unchanged was copied" } else { "it was written in full" };
        report::error(&format!("the file system cannot let the image share blocks with {parent}: {instead}"));
    }
    if let (Some(parent), true, 1..) = (parent, cli.track, outcome.not_tracked_since_parent) {
        let (n, all) = (outcome.not_tracked_since_parent, outcome.tracked_since_parent);
        report::error(&format!(
            "writes were not tracked since {} in {n} of {} address spaces: all of that memory was read",
            parent.display(),
            n + all
        ));
    }
    for why in &outcome.not_tracked {
        report::error(&format!("--track: {why}: the next dump will read all of that memory"));
    }
    report::log("done", &summary(fate, outcome));
    if cli.json {
        tell(cli, &serde_json::to_string(outcome).unwrap_or_default());
    } else if !cli.quiet {
        tell(cli, &summary(fate, outcome));
    }
}

fn summary(fate: Fate, o: &Outcome) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let what = format!(
        "PID {} ({}): {}, {}, {}, {}",
        o.pid,
        o.program,
        count(o.tasks, "task"),
        count(o.threads, "thread"),
        count(o.vmas, "VMA"),
        count(o.descriptors, "descriptor")
    );
    let pause = report::duration(o.pause);
    let Some(image) = &o.image else {
        return format!("{what}: nothing stands in the way (stopped for {pause})");
    };
    let end = match fate {
        Fate::Kill => "killed",
        Fate::Stop => "left stopped",
        Fate::Run => "running",
    };
    let inherited = match o.inherited_bytes {
        None => String::new(),
        Some(n) => format!(", {} shared with the parent", report::bytes(n)),
    };
    let inherited = match o.unread_bytes {
        0 => inherited,
        n => format!("{inherited}, {} not even read", report::bytes(n)),
    };
    let compressed = match o.compressible_bytes {
        0 => String::new(),
        n => format!(", {} compressed to {}", report::bytes(n), report::bytes(o.compressed_bytes)),
    };
    let duplicates = match o.duplicate_bytes {
        0 => String::new(),
        n => format!(", {} more found twice", report::bytes(n)),
    };
    format!(
        "{what} -> {image}: {} ({} of its own{duplicates}{inherited}{compressed}), {} in all, paused {pause}, {end}",
        report::bytes(o.image_bytes),
        report::bytes(o.stored_bytes),
        report::duration(o.total)
    )
}

/// A bar that appears only when the dump takes long.
struct Progress {
    enabled: bool,
    since: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(enabled: bool) -> Self {
        Self { enabled, since: Instant::now(), bar: None }
    }

    fn update(&mut self, done: u64, total: u64) {
        if !self.enabled || (self.bar.is_none() && self.since.elapsed() < PATIENCE) {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            bar.set_style(
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        bar.set_position(done);
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
