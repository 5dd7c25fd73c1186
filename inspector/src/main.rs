//! `ckpt-info saved.ckpt`: what an image holds, in words. Never executes it.

mod show;
mod sockets;

use anyhow::{Context, Result};
use ckpt_reader::ImageFile;
use clap::Parser;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Tells what a ckpt image holds. The image is only read, never executed.
#[derive(Parser, Debug)]
#[command(version, after_help = "Exit status: 0 intact or shown, 1 damaged or not readable, 2 usage.")]
struct Options {
    /// Image written by ckpt-dump.
    image: PathBuf,
    /// Check every checksum of metadata and page data, and name what is damaged.
    #[arg(long)]
    verify: bool,
    /// Also list every VMA.
    #[arg(long)]
    vmas: bool,
}

fn run(options: &Options) -> Result<bool> {
    let name = options.image.display();
    let file = ImageFile::open(&options.image).with_context(|| format!("{name}"))?;
    let image = file.image()?;
    let mut out = std::io::stdout().lock();
    if options.verify {
        let mut intact = true;
        let good = file.verify(|damage| {
            intact = false;
            writeln!(out, "{damage}")
        })?;
        if intact {
            writeln!(out, "intact: {} extents, {} bytes", good.extents, image.header.image_size)?;
        }
        return Ok(intact);
    }
    show::header(&mut out, &image)?;
    for task in image.tasks {
        show::task(&mut out, &image, task, options.vmas)?;
    }
    show::ipc(&mut out, &image)?;
    show::losses(&mut out, &image)?;
    Ok(true)
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) if broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ckpt-info: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// The reader of our output went away (`ckpt-info x | head`): not an error.
fn broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
