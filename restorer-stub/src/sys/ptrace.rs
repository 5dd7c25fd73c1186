//! ptrace(2) of threads that the caller may trace. Registers are records: nothing of ours is shared
//! with the tracee's memory.

use super::{Result, sys};
use ckpt_format::Regs;
use linux_raw_sys::general::iovec;
use linux_raw_sys::ptrace::*;

/// Requests that carry two numbers.
fn request(op: u32, tid: i32, data: usize) -> Result<()> {
    // SAFETY: used below only with requests whose data is a number.
    unsafe { sys!(__NR_ptrace, op, tid, 0, data) }.map(drop)
}

/// Attaches without stopping.
pub fn seize(tid: i32, options: u32) -> Result<()> {
    request(PTRACE_SEIZE, tid, options as usize)
}

/// PTRACE_SETOPTIONS: replaces all.
pub fn set_options(tid: i32, options: u32) -> Result<()> {
    request(PTRACE_SETOPTIONS, tid, options as usize)
}

/// process_vm_readv(2), all of the buffer.
pub fn read_memory(tid: i32, addr: u64, buf: &mut [u8]) -> Result<()> {
    let local = iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() as u64 };
    let remote = iovec { iov_base: addr as *mut _, iov_len: buf.len() as u64 };
    // SAFETY: the kernel writes at most `buf.len()` bytes to `buf`; the remote address is only a number here.
    let n = unsafe { sys!(__NR_process_vm_readv, tid, &raw const local, 1, &raw const remote, 1, 0) }?;
    if n == buf.len() { Ok(()) } else { Err(super::Errno::EFAULT) }
}

/// process_vm_writev(2), all of the buffer.
pub fn write_memory(tid: i32, addr: u64, buf: &[u8]) -> Result<()> {
    let local = iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() as u64 };
    let remote = iovec { iov_base: addr as *mut _, iov_len: buf.len() as u64 };
    // SAFETY: `buf` is only read; what is written is memory of a tracee that is not ours.
    let n = unsafe { sys!(__NR_process_vm_writev, tid, &raw const local, 1, &raw const remote, 1, 0) }?;
    if n == buf.len() { Ok(()) } else { Err(super::Errno::EFAULT) }
}

/// Stops a seized thread: it reports PTRACE_EVENT_STOP.
pub fn interrupt(tid: i32) -> Result<()> {
    request(PTRACE_INTERRUPT, tid, 0)
}

pub fn cont(tid: i32, signal: i32) -> Result<()> {
    request(PTRACE_CONT, tid, signal as usize)
}

/// Continues to the next entry or exit of a system call.
pub fn to_syscall(tid: i32) -> Result<()> {
    request(PTRACE_SYSCALL, tid, 0)
}

pub fn detach(tid: i32) -> Result<()> {
    detach_with(tid, 0)
}

/// In a stop at the delivery of a signal: delivers it.
pub fn detach_with(tid: i32, signal: i32) -> Result<()> {
    request(PTRACE_DETACH, tid, signal as usize)
}

/// A thread in a stop at a system call.
pub enum At {
    /// About to make the call of that number with these arguments; `None` for calls by another ABI than that of
    /// x86-64.
    Entry(Option<(u64, [u64; 6])>),
    /// The call is over.
    Exit,
}

/// PTRACE_GET_SYSCALL_INFO (Linux 5.3).
pub fn syscall_stop(tid: i32) -> Result<At> {
    const AUDIT_ARCH_X86_64: u64 = 0xc000_003e;
    // `struct ptrace_syscall_info`: operation (one byte) and architecture (the upper half), address, stack
    // pointer, number and arguments.
    let mut info = [0u64; 11];
    let size = size_of_val(&info);
    // SAFETY: the kernel writes at most `size` bytes.
    unsafe { sys!(__NR_ptrace, PTRACE_GET_SYSCALL_INFO, tid, size, info.as_mut_ptr()) }?;
    let is_native = info[0] >> 32 == AUDIT_ARCH_X86_64;
    Ok(match (info[0] & 0xff) as u32 {
        PTRACE_SYSCALL_INFO_ENTRY => {
            At::Entry(is_native.then_some((info[3], [info[4], info[5], info[6], info[7], info[8], info[9]])))
        }
        _ => At::Exit,
    })
}

pub fn get_regs(tid: i32) -> Result<Regs> {
    let mut regs = Regs::default();
    // SAFETY: `Regs` is `struct user_regs_struct`, 27 words.
    unsafe { sys!(__NR_ptrace, PTRACE_GETREGS, tid, 0, &raw mut regs) }?;
    Ok(regs)
}

pub fn set_regs(tid: i32, regs: &Regs) -> Result<()> {
    // SAFETY: as `get_regs`; only read.
    unsafe { sys!(__NR_ptrace, PTRACE_SETREGS, tid, 0, core::ptr::from_ref(regs)) }.map(drop)
}

/// NT_X86_XSTATE.
const NT_X86_XSTATE: u32 = 0x202;

/// The extended state, uncompacted; the part of `buf` that was filled.
pub fn get_xstate(tid: i32, buf: &mut [u8]) -> Result<&mut [u8]> {
    let mut iov = iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() as u64 };
    // SAFETY: the kernel writes at most `iov_len` bytes and updates `iov_len`.
    unsafe { sys!(__NR_ptrace, PTRACE_GETREGSET, tid, NT_X86_XSTATE, &raw mut iov) }?;
    Ok(&mut buf[..iov.iov_len as usize])
}

pub fn set_xstate(tid: i32, state: &mut [u8]) -> Result<()> {
    let iov = iovec { iov_base: state.as_mut_ptr().cast(), iov_len: state.len() as u64 };
    // SAFETY: only read.
    unsafe { sys!(__NR_ptrace, PTRACE_SETREGSET, tid, NT_X86_XSTATE, &raw const iov) }.map(drop)
}

/// Replaces the blocked signals of a stopped thread.
pub fn set_sigmask(tid: i32, mask: u64) -> Result<()> {
    // SAFETY: eight bytes, only read.
    unsafe { sys!(__NR_ptrace, PTRACE_SETSIGMASK, tid, 8, &raw const mask) }.map(drop)
}
