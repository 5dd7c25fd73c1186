//! What an image runs first: turns the exec'd process into the saved program.
//!
//! ```text
//! mem::start     kernel's stack -> own stack in the work area
//! main           image parsed, arguments, preflight
//! tree           who becomes the program: this process (new) or a child (same, ns); who traces it
//! family         the other processes of the tree, with their sessions and groups
//! restore        in every process that becomes one: descriptors, memory, attributes, threads, timers
//! tracer         registers of all threads, the stub unmapped, detached
//! supervisor     same, ns: stays in front
//! ```
#![no_std]
#![no_main]

mod arch;
mod args;
mod attributes;
mod clock;
mod creds;
mod ctx;
mod family;
mod files;
mod help;
mod info;
mod lazy_calls;
mod mem;
mod nameless;
mod objects;
mod paths;
mod preflight;
mod report;
mod restore;
mod seccomp;
mod shared;
mod sharers;
mod signals;
mod supervisor;
mod sys;
mod sysv;
mod threads;
mod timers;
mod tracer;
mod tracer_lazy;
mod tree;
mod verify;

use ckpt_format::Image;
use core::sync::atomic::AtomicU32;
use ctx::Ctx;
use mem::own;
use mem::start::Start;
use report::{Error, Printable, Result};
use sys::{Fd, fd, process};

/// The stages that every mode shares. On the stub's own stack, all signals blocked.
fn main(start: &'static Start) -> ! {
    match open(start) {
        Ok(ctx) if ctx.options.help => {
            help::show(ctx);
            process::exit_group(0)
        }
        Ok(ctx) if ctx.options.info => {
            info::show(ctx);
            process::exit_group(0)
        }
        Ok(ctx) if ctx.options.verify => verify::run(ctx),
        Ok(ctx) => match preflight::run(ctx) {
            Ok(()) => tree::run(ctx),
            Err(e) => report::fail(e),
        },
        Err(e) => report::fail(e),
    }
}

/// Opens the image and reads the command line.
fn open(start: &'static Start) -> Result<&'static Ctx> {
    let Start { config, work, ref initial, mask, stack_top } = *start;
    if initial.secure {
        // It would lend these rights to whoever chooses its arguments and files.
        return Err(Error::new("a set-user-ID, set-group-ID or privileged image is not run")
            .remedy("take that from the file (chmod ug-s, setcap -r)"));
    }
    let args = initial.args.split(|b| *b == 0).skip(1);
    // The last argument's NUL ends the list, it separates nothing.
    let count = initial.args.iter().filter(|b| **b == 0).count();
    let options = args::parse(args.take(count.saturating_sub(1)))?;
    report::begin(options.verbose);
    if let Some(path) = options.log {
        report::open_log(path)?;
    }
    own::anonymise(&config)?;
    let metadata = own::metadata(&config);
    let image = Image::parse(metadata)?;
    let image_fd = own::open_image(&config, initial.execfn, metadata, image.header.meta_offset)?;
    attributes::raise_limits();
    let ctx: &'static mut Ctx = work.value(Ctx {
        config,
        image,
        options,
        work,
        image_fd,
        files: files::Files::new(work, &image, &options)?,
        objects: objects::Table::new(work, image.objects.len())?,
        shared: work.shared()?,
        sysv: sysv::Made::new(work, &image)?,
        sockets_made: work.shared_slice(image.objects.len())?,
        tasks: work.shared_slice(image.tasks.len())?,
        current: AtomicU32::new(image.header.root_task),
        tids: work.shared_slice(image.threads.len())?,
        states: mem::lazy::States::new(work.shared_slice(if options.is_lazy() {
            image.extents.len()
        } else {
            0
        })?),
        kept: work.slice(options.kept().len())?,
        execfn: initial.execfn,
        page_size: initial.page_size,
        callers_group: sys::object::own_group(),
        lends_terminal: false,
        stack_top,
        callers_mask: mask,
        caller: creds::Caller::read(work)?,
        clocks: if options.time_namespace { clock::here()? } else { clock::Offsets::default() },
        mode: AtomicU32::new(0),
    })?;
    check_size(ctx)?;
    report::detail(format_args!("{} of {}", Printable(ctx.execfn), info::Saved(ctx)));
    ctx.take_kept()?;
    ctx.lends_terminal = family::leads_job(ctx.root()?) && family::in_foreground();
    raise_own(ctx)
}

fn check_size(ctx: &Ctx) -> Result<()> {
    let have = fd::fstat(ctx.image_fd).map_err(Error::os("cannot stat the image"))?.st_size as u64;
    let need = ctx.image.header.image_size;
    if have < need {
        return Err(ckpt_format::FormatError::Truncated { have, need }.into());
    }
    Ok(())
}

/// Moves the stub's descriptors above the program's: the image, and standard error for messages.
fn raise_own(ctx: &'static mut Ctx) -> Result<&'static Ctx> {
    ctx.image_fd = ctx.raise(ctx.image_fd)?;
    match fd::dup_above(Fd(2), ctx.high_fd()) {
        Ok(messages) => report::set_descriptor(messages.0),
        // Standard error is closed: nobody reads messages.
        Err(_) => report::set_descriptor(-1),
    }
    if let Some(log) = report::log() {
        report::set_log(ctx.raise(log)?);
    }
    Ok(ctx)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    report::say(format_args!("internal error: {info}"));
    process::exit_group(ckpt_format::EXIT_RESTORE_FAILED)
}
