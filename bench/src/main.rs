//! `cargo run --release -p ckpt-bench`: dump and restore against the machine's limits and peers.
//!
//! Every figure is the median of interleaved rounds (limit, ours, limit, ours ...), so that drift of the
//! machine's speed hits both. Nothing is asserted here; targets are printed beside the figures.

mod criu;
mod measure;
mod report;
mod victim;
mod workloads;

use anyhow::{Context, Result};
use clap::Parser;
use std::path::PathBuf;

#[derive(Parser, Debug)]
#[command(version, about = "Benchmarks dump and restore against the machine's limits")]
pub struct Options {
    /// A run of about a minute: small workloads, few rounds.
    #[arg(long)]
    quick: bool,
    /// Rounds for each workload (the first is a warm-up and does not count).
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Write the table also as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where images are written: its file system is part of what is measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Only workloads whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// A CRIU binary to compare with (default: `criu` in PATH; left out, and said so, if it does not work).
    #[arg(long, value_name = "PATH")]
    criu: Option<PathBuf>,
}

fn main() -> Result<()> {
    // What a killed supervisor leaves behind is reaped here.
    nix::sys::prctl::set_child_subreaper(true)?;
    let options = Options::parse();
    let dir = tempfile::Builder::new()
        .prefix("ckpt-bench-")
        .tempdir_in(&options.dir)
        .with_context(|| format!("cannot create a work directory in {}", options.dir.display()))?;
    let tools = victim::Tools::build(dir.path())?;
    println!("{}", report::machine(dir.path()));
    let (criu, state) = criu::Criu::find(options.criu.as_deref());
    println!("{state}");
    let rounds = options.rounds.unwrap_or(if options.quick { 4 } else { 8 });
    let mut rows = Vec::new();
    rows.push(report::Row::size("stub in the image", victim::Tools::stub_bytes()?, 256 << 10));
    for workload in workloads::all(options.quick) {
        if options.only.as_ref().is_some_and(|text| !workload.name.contains(text.as_str())) {
            continue;
        }
        eprintln!("{} ...", workload.name);
        rows.extend(
            measure::run(&tools, dir.path(), &workload, rounds, criu.as_ref())
                .with_context(|| format!("workload {}", workload.name))?,
        );
    }
    report::print(&rows);
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&rows)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
