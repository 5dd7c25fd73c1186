//! What is checked before anything is done.

use crate::arch;
use crate::ctx::{self, Ctx};
use crate::report::{Error, On, Result, note, say};
use crate::sys::process;
use crate::{objects, paths};
use ckpt_format::cpu::{FEATURES, WORDS};
use ckpt_format::{NONE, PAGE_SIZE};
use linux_raw_sys::general::CLOCK_MONOTONIC;

pub fn run(ctx: &Ctx) -> Result<()> {
    if ctx.page_size != PAGE_SIZE {
        return Err(Error::new("this kernel has pages of another size:").on(On::Number(ctx.page_size)));
    }
    if ctx.options.maps_memory() && !ctx.image.compression.is_empty() {
        return Err(Error::new("--memory map: the contents of this image are compressed")
            .remedy("use --memory eager, or dump without --compress"));
    }
    tasks(ctx)?;
    objects::ports::check(ctx)?;
    paths::check(ctx)?;
    objects::repair::check(ctx)?;
    clock(ctx);
    if ctx.options.ignore_cpu {
        return Ok(());
    }
    cpu(ctx)
}

/// The tree can be made: the root lives, and whoever makes others is there before them.
fn tasks(ctx: &Ctx) -> Result<()> {
    let root = ctx.root()?;
    if ctx::is_brief(root) || root.creator != NONE {
        return Err(Error::new("the image is damaged: the root of the tree cannot be made"));
    }
    for (index, task) in ctx.image.tasks.iter().enumerate() {
        let is_root = index == ctx.image.header.root_task as usize;
        if !is_root && (task.creator as usize) >= index {
            return Err(Error::new("the image is damaged: a process without creator:").on(On::Pid(task.pid)));
        }
        if !ctx::is_brief(task) {
            ctx.threads(task)?;
        }
        // A process in the address space of another comes late, and so cannot make others.
        let is_late = |i: usize| {
            let task = ctx.image.tasks.get(i).filter(|t| !ctx::is_brief(t));
            task.is_some_and(|t| ctx.mm_owner(t) != Some(i))
        };
        if is_late(task.creator as usize) {
            return Err(Error::new(
                "a process that shares its memory with its parent has a child of its own:",
            )
            .on(On::Pid(task.pid)));
        }
    }
    ctx.options.check_fds(&ctx.image, root.fd_table)
}

/// opmask, ZMM_Hi256 and Hi16_ZMM.
const AVX512: u64 = 7 << 5;

/// As `CpuFeatures::xstate_offsets`, of this CPU.
pub fn xstate_offsets() -> u32 {
    let offset = |component| match arch::cpuid(0xd, component, 0) {
        0 => 0,
        _ => arch::cpuid(0xd, component, 1) & 0xffff,
    };
    offset(5) | offset(9) << 16
}

/// CLOCK_MONOTONIC starts anew at each boot. Behind the dump's, absolute deadlines of the program lie in
/// the future by the difference.
fn clock(ctx: &Ctx) {
    let (saved, now) = (ctx.image.header.time_monotonic, process::clock_ns(CLOCK_MONOTONIC));
    if now < saved && !ctx.options.time_namespace {
        say(format_args!(
            "warning: CLOCK_MONOTONIC is {} s behind that of the dump (another boot or machine): \
             what the program does at a set monotonic time happens that much later; with --time-namespace \
             it would go on from there",
            (saved - now) / 1_000_000_000
        ));
    }
}

/// Instruction sets by name, and state components in use.
fn cpu(ctx: &Ctx) -> Result<()> {
    let saved = &ctx.image.header.cpu;
    if saved.machine != arch::MACHINE {
        return Err(Error::new("the image is for another architecture, ELF machine")
            .on(On::Number(u64::from(saved.machine))));
    }
    let mut missing = [0u32; WORDS.len()];
    let mut any = false;
    for (i, (leaf, subleaf, register)) in WORDS.into_iter().enumerate() {
        let relevant =
            FEATURES.iter().filter(|f| usize::from(f.0) == i).fold(0u32, |bits, f| bits | 1 << f.1);
        missing[i] = saved.words[i] & relevant & !arch::cpuid(leaf, subleaf, register);
        any |= missing[i] != 0;
    }
    let remedy = "run the image on a CPU that has them, or take the risk with --ignore-cpu";
    if any {
        return Err(Error::new("this CPU lacks features that the program may use:")
            .on(On::Features(missing))
            .remedy(remedy));
    }
    let xcr0 = arch::xcr0();
    if saved.xstate_in_use & !xcr0 != 0 {
        return Err(Error::new("this kernel or CPU lacks vector state that the program uses (XSAVE bits):")
            .on(On::Number(saved.xstate_in_use & !xcr0))
            .remedy(remedy));
    }
    if saved.xstate_in_use & AVX512 != 0 && (saved.xstate_offsets ^ xstate_offsets()) & 0xffff != 0 {
        return Err(Error::new("this CPU keeps AVX-512 state, which the program uses, in another layout")
            .remedy("run the image on a CPU of the same vendor"));
    }
    if saved.xcr0 != xcr0 {
        note(format_args!(
            "the CPU's state components differ: {:#x} at the dump, {xcr0:#x} here",
            saved.xcr0
        ));
    }
    Ok(())
}
