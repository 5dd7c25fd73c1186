//! `--help`: what is saved in this image, and the options.

use crate::ctx::Ctx;
use crate::info;
use crate::report::{Printable, print};
use crate::sys::Fd;
use ckpt_format::task::task_flags;

const OPTIONS: &str = "\
Options:
      --pid MODE              auto (default): same if permitted, else ns or new
                              same: the saved process and thread ids; a supervisor stays in front
                              new: this process becomes the program, with the id that it has
                              ns: the saved ids in a new pid namespace
                              (several processes need same or ns: they know each other's ids)
      --memory MODE           eager (default): all memory is read before the program runs
                              lazy: at once, and exact: memory is filled while the program runs; most
                              system calls, and signals, wait until it is. Needs the saved ids (--pid same, ns);
                              where it cannot be had, it is as eager (--verbose says why). If what fills
                              the memory is killed, or this file is damaged, the program is killed
                              map: memory stays mapped from this file: at once, whatever its size, and
                              shared between copies. Not exact: what the program gives back by
                              MADV_DONTNEED shows the saved bytes again instead of zeros; what mremap(2)
                              (realloc) makes larger shows bytes of this file, or faults behind its end
                              (SIGBUS); checksums are not verified. This file must not change as long as
                              the program runs (it may be deleted)
      --stopped               leave the program stopped (SIGSTOP), for a debugger
      --fd N=PATH             open PATH instead of what descriptor N of the first process was, for all
                              processes that share it
      --path OLD=NEW          what was at or below OLD is looked for at or below NEW: open, mapped and
                              watched files, names of unix sockets, directories
      --port OLD=NEW          another port for sockets that listen on or are bound to OLD
      --tcp repair|reset      connections to others: go on with them (default; needs CAP_NET_ADMIN), or
                              let the program see ECONNRESET
      --chdir DIR             another working directory
      --time-namespace        CLOCK_MONOTONIC and CLOCK_BOOTTIME go on from the dump, also after a boot or
                              on another machine (needs root, or --pid ns)
      --ignore-changed-files  use files that differ from those at the dump
      --no-verify             do not check the checksums of memory contents
      --ignore-cpu            go on in spite of missing CPU features
      --log FILE              add all that is done to FILE, in more detail than --verbose
      --info                  only list what is saved: processes, threads, descriptors, mapped files
      --verify                only check all checksums of this file
  -v, --verbose               say what is done, how long it took, and what differs from the dump
  -h, --help                  this text

Exit status: the program's own; 125 if it could not be restored, or --verify found damage (message on
standard error).
";

/// Processes that are listed one by one.
const LISTED: usize = 20;

/// Prints to standard output.
pub fn show(ctx: &Ctx) {
    print(
        Fd(1),
        format_args!("A saved process. Running this file restores it: it goes on from where it was.\n\n"),
    );
    info::summary(ctx);
    let tasks = || ctx.image.tasks.iter().filter(|t| t.flags & task_flags::HELPER == 0);
    for task in tasks().take(LISTED) {
        print(Fd(1), format_args!("Process:  {}\n", info::Named(ctx, task)));
    }
    let processes = tasks().count();
    if processes > LISTED {
        print(Fd(1), format_args!("          and {} more (see --info)\n", processes - LISTED));
    }
    info::losses(ctx);
    print(Fd(1), format_args!("\nUsage: {} [OPTIONS]\n\n{OPTIONS}", Printable(ctx.execfn)));
}
