//! Threads: creation, and what each registers with the kernel about itself.

use super::process::when_free;
use super::{Errno, Result, check, sys};
use crate::arch;
use crate::mem::work::Stack;
use linux_raw_sys::general::*;

/// What a new thread finds at the top of its stack.
struct Start<C: 'static> {
    entry: fn(&'static C, usize) -> !,
    context: &'static C,
    index: usize,
}

extern "C" fn enter<C: 'static>(start: usize) -> ! {
    // SAFETY: `spawn` passes the address of a `Start` that it wrote and nobody else uses.
    let start = unsafe { core::ptr::read(start as *const Start<C>) };
    (start.entry)(start.context, start.index)
}

/// Creates something that shares our memory and runs `entry(context, index)` on `stack`. `flags`
/// are those of clone(2) besides CLONE_VM; `id` as for [`super::process::fork`].
pub fn spawn<C: Sync + 'static>(
    stack: Stack,
    flags: u32,
    id: Option<i32>,
    entry: fn(&'static C, usize) -> !,
    context: &'static C,
    index: usize,
) -> Result<i32> {
    spawn_with(stack, flags, 0, id, entry, context, index)
}

/// As [`spawn`], a process whose parent gets `exit_signal` when it ends.
pub fn spawn_process<C: Sync + 'static>(
    stack: Stack,
    flags: u32,
    exit_signal: u32,
    id: i32,
    entry: fn(&'static C, usize) -> !,
    context: &'static C,
    index: usize,
) -> Result<i32> {
    spawn_with(stack, flags, exit_signal, Some(id), entry, context, index)
}

fn spawn_with<C: Sync + 'static>(
    stack: Stack,
    flags: u32,
    exit_signal: u32,
    id: Option<i32>,
    entry: fn(&'static C, usize) -> !,
    context: &'static C,
    index: usize,
) -> Result<i32> {
    let start = (stack.top - size_of::<Start<C>>()) & !63;
    // SAFETY: a `Stack` is unused memory of the work area, handed out once; `start` is aligned.
    unsafe { core::ptr::write(start as *mut Start<C>, Start { entry, context, index }) };
    let set_tid = id.unwrap_or(0);
    let args = clone_args {
        flags: u64::from(flags | CLONE_VM),
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(exit_signal),
        stack: stack.bottom as u64,
        stack_size: (start - stack.bottom) as u64,
        tls: 0,
        set_tid: if id.is_some() { &raw const set_tid as u64 } else { 0 },
        set_tid_size: u64::from(id.is_some()),
        cgroup: 0,
    };
    let a = [&raw const args as usize, size_of::<clone_args>(), 0, 0, 0];
    // SAFETY: the stack is the child's alone; its top is below `start`.
    let ret = when_free(|| check(unsafe { arch::clone_onto(__NR_clone3, a, enter::<C>, start) }));
    if id.is_none() && ret == Err(Errno::ENOSYS) {
        // Some containers' seccomp filters do not know clone3.
        let a = [(flags | CLONE_VM) as usize, start, 0, 0, 0];
        // SAFETY: as above.
        return check(unsafe { arch::clone_onto(__NR_clone, a, enter::<C>, start) }).map(|id| id as i32);
    }
    ret.map(|id| id as i32)
}

/// set_robust_list(2). `head` is an address of the program, or of a list of ours that stays.
pub fn set_robust_list(head: u64, len: u64) -> Result<()> {
    // SAFETY: the kernel uses the list when the thread ends, and tolerates any address.
    unsafe { sys!(__NR_set_robust_list, head, len) }.map(drop)
}

/// set_tid_address(2): the word is cleared and woken when the thread ends.
pub fn set_tid_address(addr: u64) {
    // SAFETY: the kernel writes there when the thread ends, as it would have in the program.
    let _ = unsafe { sys!(__NR_set_tid_address, addr) };
}

/// rseq(2) registration. The kernel writes CPU numbers there whenever the thread was preempted.
///
/// # Errors
/// EINVAL where this kernel wants another length or alignment, EFAULT where nothing is mapped.
pub fn register_rseq(addr: u64, len: u32, signature: u32) -> Result<()> {
    // SAFETY: the address is the program's own rseq area, of `len` bytes, with the program's memory
    // in place; nothing of ours lies there.
    unsafe { sys!(__NR_rseq, addr, len, 0, signature) }.map(drop)
}
