//! `ckpt-info saved.ckpt`: what an image holds. Never executes it.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match ckpt_info::run(&ckpt_info::cli::Options::parse()) {
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
