//! ptrace(2) requests, one function each. The caller must be the tracer of `tid`.

use ckpt_format::Regs;
use std::io;
use zerocopy::{FromZeros, IntoBytes};

const NT_PRSTATUS: usize = 1;
const NT_X86_XSTATE: usize = 0x202;
const GETSIGMASK: libc::c_uint = 0x420a;
const SETSIGMASK: libc::c_uint = 0x420b;
const GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;
const GET_SYSCALL_USER_DISPATCH_CONFIG: libc::c_uint = 0x4211;

/// Size of a `siginfo_t`.
pub const SIGINFO_LEN: usize = 128;

/// # Safety
/// `addr` and `data` must be what `request` expects: a number, or a pointer to memory of the size
/// that the kernel reads or writes, alive and exclusively ours during the call.
unsafe fn ptrace(request: libc::c_uint, tid: i32, addr: usize, data: usize) -> io::Result<i64> {
    // SAFETY: by this function's contract.
    let result = unsafe { libc::syscall(libc::SYS_ptrace, u64::from(request), i64::from(tid), addr, data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A request whose arguments are numbers only.
fn plain(request: libc::c_uint, tid: i32, data: usize) -> io::Result<()> {
    // SAFETY: callers pass only requests that take no pointers.
    unsafe { ptrace(request, tid, 0, data) }.map(drop)
}

/// Attaches without stopping. With `follow`, so is every thread or process that it starts from now on:
/// those begin their life stopped. Not those of vfork(2), for which their parent waits.
pub fn seize(tid: i32, follow: bool) -> io::Result<()> {
    let options = if follow { libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACECLONE } else { 0 };
    plain(libc::PTRACE_SEIZE, tid, options as usize)
}

/// PTRACE_O_* options, in place of those that the thread had.
pub fn set_options(tid: i32, options: i32) -> io::Result<()> {
    plain(libc::PTRACE_SETOPTIONS, tid, options as usize)
}

/// Lets a stopped thread make system calls past its seccomp filters, until it is let go. Needs CAP_SYS_ADMIN,
/// and no filter of our own.
pub fn suspend_seccomp(tid: i32) -> io::Result<()> {
    const SUSPEND_SECCOMP: libc::c_int = 1 << 21;
    // Replaces the options of `seize`.
    let options = SUSPEND_SECCOMP | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACECLONE;
    plain(libc::PTRACE_SETOPTIONS, tid, options as usize)
}

/// The seccomp filter of that number, the oldest first: `struct sock_filter`s, and its flags. Needs what
/// [`suspend_seccomp`] needs.
pub fn seccomp_filter(tid: i32, index: usize) -> io::Result<Option<(Vec<u8>, u64)>> {
    const GET_FILTER: libc::c_uint = 0x420c;
    const GET_METADATA: libc::c_uint = 0x420d;
    // SAFETY: without a place for it the kernel only tells the number of instructions.
    let count = match unsafe { ptrace(GET_FILTER, tid, index, 0) } {
        Ok(count) => count as usize,
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut program = vec![0u64; count];
    // SAFETY: room for as many instructions of 8 bytes as it just said; filters never change.
    unsafe { ptrace(GET_FILTER, tid, index, program.as_mut_ptr() as usize) }?;
    // struct seccomp_metadata: filter_off, flags.
    let mut metadata = [index as u64, 0];
    // SAFETY: the kernel stores at most `addr` = 16 bytes at `data`, which is `metadata`.
    unsafe { ptrace(GET_METADATA, tid, 16, metadata.as_mut_ptr() as usize) }?;
    Ok(Some((program.as_bytes().to_vec(), metadata[1])))
}

/// What an event is about: the id of the new thread or process.
pub fn event_message(tid: i32) -> io::Result<i32> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the kernel writes one long to `message`, which outlives the call.
    unsafe { ptrace(libc::PTRACE_GETEVENTMSG, tid, 0, (&raw mut message) as usize) }?;
    Ok(message as i32)
}

pub fn interrupt(tid: i32) -> io::Result<()> {
    plain(libc::PTRACE_INTERRUPT, tid, 0)
}

/// How a stopped thread is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Until the next event.
    Cont,
    /// Until the next entry to or exit from a system call.
    Syscall,
}

/// Lets the thread go on; the signal of a signal-delivery-stop is discarded.
pub fn resume(tid: i32, how: Resume) -> io::Result<()> {
    let request = match how {
        Resume::Cont => libc::PTRACE_CONT,
        Resume::Syscall => libc::PTRACE_SYSCALL,
    };
    plain(request, tid, 0)
}

/// Detaches; `signal` (0 for none) is delivered if the thread is in a signal-delivery-stop.
pub fn detach(tid: i32, signal: i32) -> io::Result<()> {
    plain(libc::PTRACE_DETACH, tid, signal as usize)
}

fn regset(request: libc::c_uint, tid: i32, kind: usize, buf: &mut [u8]) -> io::Result<usize> {
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: the iovec describes `buf`, which outlives the call; the kernel stays within iov_len.
    unsafe { ptrace(request, tid, kind, (&raw mut iov) as usize) }?;
    Ok(iov.iov_len)
}

/// General registers; `None` when the thread runs 32-bit code (its register set is shorter).
pub fn regs(tid: i32) -> io::Result<Option<Regs>> {
    let mut regs = Regs::default();
    let len = regset(libc::PTRACE_GETREGSET, tid, NT_PRSTATUS, regs.as_mut_bytes())?;
    Ok((len == size_of::<Regs>()).then_some(regs))
}

pub fn set_regs(tid: i32, regs: &Regs) -> io::Result<()> {
    let mut copy = *regs;
    regset(libc::PTRACE_SETREGSET, tid, NT_PRSTATUS, copy.as_mut_bytes()).map(drop)
}

/// The uncompacted XSAVE area.
pub fn xstate(tid: i32) -> io::Result<Vec<u8>> {
    // Larger than any XSAVE area so far (AMX needs 11 KiB); grown should that change.
    let mut buf = vec![0; 16 << 10];
    loop {
        let len = regset(libc::PTRACE_GETREGSET, tid, NT_X86_XSTATE, &mut buf)?;
        if len < buf.len() {
            buf.truncate(len);
            return Ok(buf);
        }
        buf.resize(buf.len() * 2, 0);
    }
}

/// The `rax` of a stopped thread.
pub fn rax(tid: i32) -> io::Result<i64> {
    peek_user(tid, std::mem::offset_of!(Regs, rax))
}

/// Where a stopped thread is.
pub fn rip(tid: i32) -> io::Result<u64> {
    peek_user(tid, std::mem::offset_of!(Regs, rip)).map(|rip| rip as u64)
}

fn peek_user(tid: i32, at: usize) -> io::Result<i64> {
    let mut value = 0i64;
    // SAFETY: the raw system call stores one word at `data`, which is `value`.
    unsafe { ptrace(libc::PTRACE_PEEKUSER, tid, at, (&raw mut value) as usize) }?;
    Ok(value)
}

/// Blocked signals; while a temporary mask is in force (ppoll, sigsuspend ...) the one behind it.
pub fn sigmask(tid: i32) -> io::Result<u64> {
    let mut mask = 0u64;
    // SAFETY: with addr 8 the kernel stores 8 bytes at `data`, which is `mask`.
    unsafe { ptrace(GETSIGMASK, tid, 8, (&raw mut mask) as usize) }?;
    Ok(mask)
}

pub fn set_sigmask(tid: i32, mask: u64) -> io::Result<()> {
    // SAFETY: with addr 8 the kernel reads 8 bytes at `data`, which is `mask`.
    unsafe { ptrace(SETSIGMASK, tid, 8, (&raw const mask) as usize) }.map(drop)
}

/// The siginfo of the current stop.
pub fn siginfo(tid: i32) -> io::Result<[u8; SIGINFO_LEN]> {
    let mut info = [0u8; SIGINFO_LEN];
    // SAFETY: the kernel stores one siginfo_t (128 bytes) at `data`.
    unsafe { ptrace(libc::PTRACE_GETSIGINFO, tid, 0, info.as_mut_ptr() as usize) }?;
    Ok(info)
}

#[repr(C)]
struct PeekArgs {
    offset: u64,
    flags: u32,
    count: i32,
}

/// All queued signals of the thread, or of the whole process; oldest first.
pub fn pending(tid: i32, shared: bool) -> io::Result<Vec<[u8; SIGINFO_LEN]>> {
    let mut all = Vec::new();
    loop {
        let mut chunk = [[0u8; SIGINFO_LEN]; 16];
        let args = PeekArgs { offset: all.len() as u64, flags: u32::from(shared), count: chunk.len() as i32 };
        let data = chunk.as_mut_ptr() as usize;
        // SAFETY: the kernel reads `args` and stores at most `count` siginfo_t in `chunk`.
        let got = unsafe { ptrace(libc::PTRACE_PEEKSIGINFO, tid, (&raw const args) as usize, data) }?;
        if got == 0 {
            return Ok(all);
        }
        all.extend_from_slice(&chunk[..got as usize]);
    }
}

/// `struct ptrace_rseq_configuration`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RseqConfiguration {
    pub pointer: u64,
    pub size: u32,
    pub signature: u32,
    pub flags: u32,
    pub pad: u32,
}

/// `None` on kernels that cannot tell (before 5.13).
pub fn rseq(tid: i32) -> io::Result<Option<RseqConfiguration>> {
    let mut conf = RseqConfiguration::default();
    let data = (&raw mut conf) as usize;
    // SAFETY: the kernel stores at most `addr` bytes at `data`, which is `conf`.
    match unsafe { ptrace(GET_RSEQ_CONFIGURATION, tid, size_of::<RseqConfiguration>(), data) } {
        Ok(_) => Ok(Some(conf)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EIO | libc::EINVAL)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether the thread has a segment of set_thread_area(2), which only 32-bit code has a use for.
pub fn has_tls_segment(tid: i32) -> bool {
    const GET_THREAD_AREA: libc::c_uint = 25;
    // GDT_ENTRY_TLS_MIN and MAX; seg_not_present in `struct user_desc`.
    const ENTRIES: std::ops::RangeInclusive<usize> = 12..=14;
    const NOT_PRESENT: u32 = 1 << 5;
    ENTRIES.into_iter().any(|entry| {
        let mut desc = [0u32; 4];
        // SAFETY: the kernel stores one `struct user_desc` (16 bytes) at `data`, which is `desc`.
        let known = unsafe { ptrace(GET_THREAD_AREA, tid, entry, desc.as_mut_ptr() as usize) };
        // Kernels without 32-bit emulation do not know the question, or have no such segments.
        known.is_ok() && desc[3] & NOT_PRESENT == 0
    })
}

/// Whether ioperm(2) gave the thread access to I/O ports.
pub fn has_io_permissions(tid: i32) -> bool {
    const NT_386_IOPERM: usize = 0x201;
    // Without a bitmap: ENXIO.
    regset(libc::PTRACE_GETREGSET, tid, NT_386_IOPERM, &mut [0; 8]).is_ok()
}

/// Whether PR_SET_SYSCALL_USER_DISPATCH is on. Kernels before 6.4 cannot tell: then `false`.
pub fn syscall_user_dispatch(tid: i32) -> io::Result<bool> {
    // struct ptrace_sud_config: mode, selector, offset, len.
    let mut config = <[u64; 4]>::new_zeroed();
    let data = config.as_mut_ptr() as usize;
    // SAFETY: the kernel stores exactly `addr` = 32 bytes at `data`, which is `config`.
    match unsafe { ptrace(GET_SYSCALL_USER_DISPATCH_CONFIG, tid, size_of_val(&config), data) } {
        Ok(_) => Ok(config[0] != 0),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EIO | libc::EINVAL)) => Ok(false),
        Err(e) => Err(e),
    }
}
