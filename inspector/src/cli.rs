//! The command line.

use crate::extract::Addresses;
use clap::Parser;
use std::path::PathBuf;

/// Tells what a ckpt image holds. The image is only read, never executed.
#[derive(Parser, Debug)]
#[command(
    name = "ckpt-info",
    version,
    after_help = "Exit status: 0 shown, intact, or without difference; 1 damaged, different, or not readable; 2 usage.\n\n\
                  Examples:\n  \
                  ckpt-info saved.ckpt --json | jq '.tasks[].threads[].system_call'\n  \
                  ckpt-info saved.ckpt --core saved.core && gdb program saved.core\n  \
                  ckpt-info saved.ckpt --extract 7ffd4000..64K | xxd\n  \
                  ckpt-info new.ckpt --diff old.ckpt"
)]
pub struct Options {
    /// Image written by ckpt-dump.
    #[arg(required_unless_present = "schema")]
    pub image: Option<PathBuf>,
    /// Check every checksum of metadata and page data, and name what is damaged.
    #[arg(long, group = "what")]
    pub verify: bool,
    /// Everything as JSON (--schema describes it).
    #[arg(long)]
    pub json: bool,
    /// Print the JSON Schema of --json, and of --diff --json, and end.
    #[arg(long, group = "what")]
    pub schema: bool,
    /// What has changed since an earlier image: state, and pages of memory.
    #[arg(long, value_name = "OLD", group = "what")]
    pub diff: Option<PathBuf>,
    /// Write a core file for gdb: all threads, all memory that is in the image.
    #[arg(long, value_name = "FILE", group = "what")]
    pub core: Option<PathBuf>,
    /// Write memory to standard output: LEN bytes from ADDR (hexadecimal) on (LEN decimal, with K, M, G, or
    /// 0x...), or START-END as in /proc/PID/maps.
    #[arg(long, value_name = "ADDR..LEN", group = "what")]
    pub extract: Option<Addresses>,
    /// Print the text in the stored memory, with addresses: runs of at least MIN printable characters.
    #[arg(long, value_name = "MIN", num_args = 0..=1, default_missing_value = "4", group = "what")]
    pub strings: Option<usize>,
    /// The process that --core, --extract, --strings mean (default: the first).
    #[arg(long, value_name = "PID")]
    pub task: Option<i32>,
    /// Also list every VMA.
    #[arg(long)]
    pub vmas: bool,
    /// Also list VMAs, registers, handlers, limits.
    #[arg(short, long)]
    pub all: bool,
    /// Do not use a pager ($PAGER, less) on a terminal.
    #[arg(long)]
    pub no_pager: bool,
}
