//! Seccomp, last of all: once it is in force, the program alone knows which system calls it may make. So nothing
//! of the stub is left by then. The filter is laid over a piece of the program's own memory for the time of one
//! injected call, which the program's own code (the vDSO) makes; all threads are stopped.

use crate::ctx::Ctx;
use crate::mem::map;
use crate::report::{Error, On, Result};
use crate::sys::ptrace;
use crate::tracer;
use ckpt_format::{PAGE_SIZE, SeccompFilter, Task, Thread, Vma, VmaKind};
use linux_raw_sys::general::*;
use linux_raw_sys::ptrace::{PTRACE_O_EXITKILL, PTRACE_O_SUSPEND_SECCOMP, PTRACE_O_TRACESYSGOOD};

/// linux/seccomp.h.
const MODE_STRICT: u32 = 1;
const MODE_FILTER: u32 = 2;
const SET_MODE_STRICT: u64 = 0;
const SET_MODE_FILTER: u64 = 1;

/// `struct sock_fprog`, in front of the program.
const HEAD: usize = 16;
/// Instructions of 8 bytes: BPF_MAXINSNS.
const LONGEST: usize = HEAD + 4096 * 8;
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Of all threads of a stopped task; `tids` are theirs, in the order of the image.
pub fn install(ctx: &Ctx, task: &Task, tids: impl Iterator<Item = i32>) -> Result<()> {
    let threads = ctx.threads(task)?;
    if threads.iter().all(|t| t.seccomp_mode == 0) {
        return Ok(());
    }
    let vmas = map::vmas(ctx, ctx.mm(task)?)?;
    for (thread, tid) in threads.iter().zip(tids) {
        let failed = |e: Error| e.on(On::Pid(tid));
        match thread.seccomp_mode {
            0 => continue,
            MODE_STRICT => {
                let at = instruction(ctx, task, vmas, tid).map_err(failed)?;
                call(tid, at, [u64::from(__NR_seccomp), SET_MODE_STRICT, 0, 0, 0, 0, 0])?;
            }
            MODE_FILTER => filters(ctx, task, vmas, thread, tid)?,
            _ => return Err(failed(Error::new("the image is damaged: unknown seccomp mode of thread"))),
        }
        tracer::stop_again(tid)?;
    }
    Ok(())
}

fn filters(ctx: &Ctx, task: &Task, vmas: &[Vma], thread: &Thread, tid: i32) -> Result<()> {
    let records = ctx.image.records::<SeccompFilter>(thread.seccomp_filters)?;
    if records.is_empty() {
        // Those of the leader, for all.
        return Ok(());
    }
    // Earlier filters must not stand in the way of later ones. Needs CAP_SYS_ADMIN; without it, they let the
    // original install the later ones, too.
    let _ = ptrace::set_options(tid, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP);
    let at = instruction(ctx, task, vmas, tid)?;
    for filter in records {
        let program = ctx.image.blob(filter.program)?;
        let len = HEAD + program.len();
        let bad =
            Error::new("the image is damaged: a seccomp filter of bad length, of thread").on(On::Pid(tid));
        let bytes = ctx.files.buffer((2 * LONGEST) as u64).filter(|_| len <= LONGEST).ok_or(bad)?;
        let (new, old) = bytes.split_at_mut(LONGEST);
        let (new, old) = (&mut new[..len], &mut old[..len]);
        let mut places = vmas.iter().filter_map(|v| place(v, len as u64));
        let place = places.find(|at| ptrace::read_memory(tid, *at, old).is_ok()).ok_or(
            Error::new("no private memory of the program to hold a seccomp filter for a moment, of thread")
                .on(On::Pid(tid)),
        )?;
        new[..8].copy_from_slice(&(program.len() as u64 / 8).to_le_bytes());
        new[8..HEAD].copy_from_slice(&(place + HEAD as u64).to_le_bytes());
        new[HEAD..].copy_from_slice(program);
        let failed = |what| move |e| Error::os(what)(e).on(On::Pid(tid));
        ptrace::write_memory(tid, place, new).map_err(failed("cannot write the memory of thread"))?;
        let flags = u64::from(filter.flags);
        let called = call(tid, at, [u64::from(__NR_seccomp), SET_MODE_FILTER, flags, place, 0, 0, 0]);
        ptrace::write_memory(tid, place, old).map_err(failed("cannot write the memory of thread"))?;
        called?;
    }
    Ok(())
}

fn call(tid: i32, at: u64, call: [u64; 7]) -> Result<()> {
    let remedy = "without no_new_privs this needs CAP_SYS_ADMIN: run the image as root";
    let answer = tracer::inject_at(tid, at, &call)?;
    match i32::try_from(-answer) {
        Ok(0) => Ok(()),
        Ok(e @ 1..4096) => {
            let error = Error::os("cannot install the seccomp filter of thread")(crate::sys::Errno(e));
            Err(error.on(On::Pid(tid)).remedy(remedy))
        }
        _ => Err(Error::new("cannot install a seccomp filter for all threads of").on(On::Pid(tid))),
    }
}

/// Where that much may be written for a moment, in a VMA.
fn place(vma: &Vma, len: u64) -> Option<u64> {
    const RW: u32 = PROT_READ | PROT_WRITE;
    let len = len.next_multiple_of(PAGE_SIZE);
    let private = vma.kind == VmaKind::Anonymous as u32 && vma.hugetlb_shift == 0;
    // At its end: what grows downwards is in use there, and so in memory already.
    (private && vma.prot & RW == RW && vma.end - vma.start >= len).then(|| vma.end - len)
}

/// A `syscall` instruction of the program's: in its vDSO, else in any of its code.
fn instruction(ctx: &Ctx, task: &Task, vmas: &[Vma], tid: i32) -> Result<u64> {
    let mm = ctx.mm(task)?;
    let code = vmas.iter().filter(|v| v.prot & PROT_EXEC != 0).map(|v| (v.start, v.end));
    let mut page = [0u8; PAGE_SIZE as usize];
    for (start, end) in core::iter::once((mm.vdso_addr, mm.vdso_addr + mm.vdso_len)).chain(code) {
        for at in (start..end).step_by(PAGE_SIZE as usize) {
            if ptrace::read_memory(tid, at, &mut page).is_err() {
                break;
            }
            if let Some(found) = page.windows(2).position(|w| w == SYSCALL) {
                return Ok(at + found as u64);
            }
        }
    }
    Err(Error::new("no system call instruction in the code of thread").on(On::Pid(tid)))
}
