//! What is checked before anything is done.

use crate::arch;
use crate::ctx::Ctx;
use crate::report::{Error, On, Result, note};
use ckpt_format::PAGE_SIZE;
use ckpt_format::cpu::{FEATURES, WORDS};
use ckpt_format::task::task_flags;

pub fn run(ctx: &Ctx) -> Result<()> {
    if ctx.page_size != PAGE_SIZE {
        return Err(Error::new("this kernel has pages of another size:").on(On::Number(ctx.page_size)));
    }
    one_task(ctx)?;
    if ctx.options.ignore_cpu {
        return Ok(());
    }
    cpu(ctx)
}

fn one_task(ctx: &Ctx) -> Result<()> {
    let task = ctx.task()?;
    if ctx.image.tasks.len() != 1 {
        return Err(Error::new("the image holds several processes, this version restores one"));
    }
    if task.flags & task_flags::ZOMBIE != 0 {
        return Err(Error::new("the image holds a process that had ended already"));
    }
    ctx.threads(task)?;
    ctx.options.check_fds(&ctx.image, task.fd_table)
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
    if saved.xcr0 != xcr0 {
        note(format_args!(
            "the CPU's state components differ: {:#x} at the dump, {xcr0:#x} here",
            saved.xcr0
        ));
    }
    Ok(())
}
