//! Registers ckpt-restore as the kernel's handler of images.

use anyhow::Result;
use ckpt_binfmt::cli::{BinfmtOptions, Command};
use ckpt_binfmt::register;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(&BinfmtOptions::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("ckpt-binfmt: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<bool> {
    match command {
        Command::Register { handler, boot } => {
            let handler = handler.clone().map_or_else(register::default_handler, Ok)?;
            register::register(&handler, *boot)?;
            register::status()
        }
        Command::Unregister { boot } => {
            if register::unregister(*boot)? == 0 {
                println!("was not registered");
            }
            Ok(true)
        }
        Command::Status => register::status(),
    }
}
