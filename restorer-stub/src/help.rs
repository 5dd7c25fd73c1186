//! `--help`: what is saved in this image, and the options.

use crate::ctx::Ctx;
use crate::report::{Printable, print};
use crate::sys::Fd;
use ckpt_format::task::task_flags;
use ckpt_format::words::Utc;
use core::fmt;

const OPTIONS: &str = "\
Options:
      --pid MODE              auto (default): same if permitted, else ns or new
                              same: the saved process and thread ids; a supervisor stays in front
                              new: this process becomes the program, with the id that it has
                              ns: the saved ids in a new pid namespace
                              (several processes need same or ns: they know each other's ids)
      --memory MODE           eager (default): all memory is read before the program runs
                              map: memory stays mapped from this file: at once, whatever its size, and
                              shared between copies. Not exact: what the program gives back by
                              MADV_DONTNEED shows the saved bytes again instead of zeros; what mremap(2)
                              (realloc) makes larger shows bytes of this file, or faults behind its end
                              (SIGBUS); checksums are not verified. This file must not change as long as
                              the program runs (it may be deleted)
      --stopped               leave the program stopped (SIGSTOP), for a debugger
      --fd N=PATH             open PATH instead of what descriptor N of the first process was, for all
                              processes that share it
      --port OLD=NEW          another port for sockets that listen on or are bound to OLD
      --tcp repair|reset      connections to others: go on with them (default; needs CAP_NET_ADMIN), or
                              let the program see ECONNRESET
      --chdir DIR             another working directory
      --ignore-changed-files  use files that differ from those at the dump
      --no-verify             do not check the checksums of memory contents
      --ignore-cpu            go on in spite of missing CPU features
  -v, --verbose               say what is done, how long it took, and what differs from the dump
  -h, --help                  this text

Exit status: the program's own; 125 if it could not be restored (message on standard error).
";

/// Processes that are listed one by one.
const LISTED: usize = 20;

/// Prints to standard output.
pub fn show(ctx: &Ctx) {
    let h = ctx.image.header;
    let blob = |span| Printable(ctx.image.blob(span).unwrap_or(b"?"));
    let tasks = || ctx.image.tasks.iter().filter(|t| t.flags & task_flags::HELPER == 0);
    let processes = tasks().count();
    print(
        Fd(1),
        format_args!(
            "A saved process. Running this file restores it: it goes on from where it was.\n\n\
         Program:  {}\nCommand:  {}\nSaved:    {} by ckpt-dump {}\nHost:     {}\nKernel:   {}\n\
         Contents: {} process{}, {} thread{}, {} of memory\n",
            blob(h.program),
            blob(h.command),
            Utc(h.time_realtime / 1_000_000_000),
            blob(h.dumper),
            blob(h.host),
            blob(h.kernel),
            processes,
            if processes == 1 { "" } else { "es" },
            ctx.image.threads.len(),
            if ctx.image.threads.len() == 1 { "" } else { "s" },
            Size(h.stored_bytes),
        ),
    );
    for task in tasks().take(LISTED) {
        let name = ctx.threads(task).map_or([0; 16], |t| t[0].name);
        let name = name.split(|b| *b == 0).next().unwrap_or(b"");
        let ended =
            if task.flags & task_flags::ZOMBIE != 0 { " (has ended, not waited for yet)" } else { "" };
        print(Fd(1), format_args!("Process:  {} {}{ended}\n", task.pid, Printable(name)));
    }
    if processes > LISTED {
        print(Fd(1), format_args!("          and {} more (see ckpt-info)\n", processes - LISTED));
    }
    for loss in ctx.image.losses {
        print(Fd(1), format_args!("Not saved: {} (allowed as {})\n", blob(loss.text), blob(loss.kind)));
    }
    print(Fd(1), format_args!("\nUsage: {} [OPTIONS]\n\n{OPTIONS}", Printable(ctx.execfn)));
}

/// A number of bytes for people.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 10 << 30 => write!(f, "{} GiB", n >> 30),
            n if n >= 10 << 20 => write!(f, "{} MiB", n >> 20),
            n => write!(f, "{} KiB", n.div_ceil(1024)),
        }
    }
}
