//! What a thread falls back on if we die while it runs system calls for us.
//!
//! ckpt-dump may be killed at any moment; the kernel then detaches it and the thread goes on with
//! whatever registers it has. Therefore injected calls run from a page of ours, in one of two ways.
//! What the thread falls back on is a signal frame in our memory that holds its real registers,
//! extended state and signal mask, with whose address in `r15` the code ends by `rt_sigreturn`: if we
//! die it returns to its own work by itself. `rsp` stays the thread's own, where a signal handler of its
//! may need room. What the frame cannot say: an interrupted call is issued again
//! ([`restart::reissue`]), a relative sleep starting anew.
//!
//! **Many calls at once** ([`LOOP`]): the thread takes calls from a [`table`] and leaves the results there.
//! At the end it sends itself a signal that it would ignore, and does not block. Tracers are shown even
//! such signals (kernel/signal.c, sig_ignored()), so that is the one stop for all the calls. If we are dead
//! by then, the signal is ignored, as ever.
//!
//! **One by one**, where a program catches all signals that could be ignored: the thread stops at the
//! entry to and the exit from each call, and never gets past the first instruction:
//!
//! ```text
//!     syscall                                     ; the injected call
//!     rt_sigtimedwait({SIGTRAP}, NULL, {0, 0})    ; see below
//!     rt_sigreturn
//! ```
//!
//! A thread whose tracer dies during a system call stop sends itself a SIGTRAP
//! (ptrace_report_syscall() takes the code of the stop for the tracer's answer), which would kill the
//! program. It is blocked at that moment, like all signals, and removed before the mask comes back.
//! (With PTRACE_O_TRACESYSGOOD the kernel would send signal 133, out of bounds of its tables, and
//! leave it in the queue; so that option is not used.)

use super::remote::Call;
use super::restart;
use crate::sys::cpuid;
use ckpt_format::Regs;

/// All of the code.
#[rustfmt::skip]
pub const CODE: [u8; 320] = [
    0x0f, 0x05,                                               // one: syscall
    0x48, 0x8d, 0x3d, 0x17, 0x01, 0x00, 0x00,                 // drop: lea rdi, [rip+0x117]
    0x31, 0xf6,                                               // xor esi, esi
    0x48, 0x8d, 0x15, 0x16, 0x01, 0x00, 0x00,                 // lea rdx, [rip+0x116]
    0x41, 0xba, 0x08, 0x00, 0x00, 0x00,                       // mov r10d, 8
    0xb8, 0x80, 0x00, 0x00, 0x00,                             // mov eax, 128
    0x0f, 0x05,                                               // syscall
    0x4c, 0x89, 0xfc,                                         // back: mov rsp, r15
    0xb8, 0x0f, 0x00, 0x00, 0x00,                             // mov eax, 15
    0x0f, 0x05,                                               // syscall
    0x0f, 0x0b,                                               // ud2
    0x0f, 0x1f, 0x44, 0x00, 0x00,                             // nop DWORD PTR [rax+rax*1+0]
    0x48, 0x8b, 0x03,                                         // loop: mov rax, [rbx]
    0x48, 0x85, 0xc0,                                         // test rax, rax
    0x78, 0x24,                                               // js special
    0x48, 0x8b, 0x7b, 0x08,                                   // mov rdi, [rbx+8]
    0x48, 0x8b, 0x73, 0x10,                                   // mov rsi, [rbx+16]
    0x48, 0x8b, 0x53, 0x18,                                   // mov rdx, [rbx+24]
    0x4c, 0x8b, 0x53, 0x20,                                   // mov r10, [rbx+32]
    0x4c, 0x8b, 0x43, 0x28,                                   // mov r8, [rbx+40]
    0x4c, 0x8b, 0x4b, 0x30,                                   // mov r9, [rbx+48]
    0x0f, 0x05,                                               // syscall
    0x48, 0x89, 0x43, 0x38,                                   // store: mov [rbx+56], rax
    0x48, 0x83, 0xc3, 0x40,                                   // add rbx, 64
    0xeb, 0xd4,                                               // jmp loop
    0x48, 0x83, 0xf8, 0xfe,                                   // special: cmp rax, 0xfffffffffffffffe
    0x74, 0x1d,                                               // je copy
    0xb8, 0x27, 0x00, 0x00, 0x00,                             // mov eax, 39
    0x0f, 0x05,                                               // syscall
    0x89, 0xc7,                                               // mov edi, eax
    0xb8, 0xba, 0x00, 0x00, 0x00,                             // mov eax, 186
    0x0f, 0x05,                                               // syscall
    0x89, 0xc6,                                               // mov esi, eax
    0x89, 0xea,                                               // mov edx, ebp
    0xb8, 0xea, 0x00, 0x00, 0x00,                             // mov eax, 234
    0x0f, 0x05,                                               // syscall
    0xeb, 0x83,                                               // told: jmp drop
    0xbf, 0x00, 0x05, 0x00, 0x00,                             // copy: mov edi, 0x500
    0x31, 0xf6,                                               // xor esi, esi
    0x31, 0xd2,                                               // xor edx, edx
    0x45, 0x31, 0xd2,                                         // xor r10d, r10d
    0x45, 0x31, 0xc0,                                         // xor r8d, r8d
    0xb8, 0x38, 0x00, 0x00, 0x00,                             // mov eax, 56
    0x0f, 0x05,                                               // syscall
    0x48, 0x85, 0xc0,                                         // test rax, rax
    0x78, 0xb8,                                               // js store
    0x74, 0x23,                                               // je helper
    0x49, 0x89, 0xc4,                                         // mov r12, rax
    0x44, 0x89, 0xe7,                                         // wait: mov edi, r12d
    0x31, 0xf6,                                               // xor esi, esi
    0xba, 0x00, 0x00, 0x00, 0x40,                             // mov edx, 0x40000000
    0x45, 0x31, 0xd2,                                         // xor r10d, r10d
    0xb8, 0x3d, 0x00, 0x00, 0x00,                             // mov eax, 61
    0x0f, 0x05,                                               // syscall
    0x48, 0x83, 0xf8, 0xfc,                                   // cmp rax, 0xfffffffffffffffc
    0x74, 0xe6,                                               // je wait
    0x48, 0x8b, 0x43, 0x08,                                   // mov rax, [rbx+8]
    0xeb, 0x93,                                               // jmp store
    0x31, 0xff,                                               // helper: xor edi, edi
    0xbe, 0xff, 0xff, 0xff, 0xff,                             // mov esi, 0xffffffff
    0xba, 0x02, 0x00, 0x00, 0x00,                             // mov edx, 2
    0xb8, 0xb4, 0x01, 0x00, 0x00,                             // mov eax, 0x1b4
    0x0f, 0x05,                                               // syscall
    0x48, 0x85, 0xc0,                                         // test rax, rax
    0x78, 0x2d,                                               // js failed
    0xb8, 0x70, 0x00, 0x00, 0x00,                             // mov eax, 112
    0x0f, 0x05,                                               // syscall
    0x48, 0x8d, 0x3d, 0x53, 0x00, 0x00, 0x00,                 // lea rdi, [rip+83]
    0xb8, 0x50, 0x00, 0x00, 0x00,                             // mov eax, 80
    0x0f, 0x05,                                               // syscall
    0x31, 0xff,                                               // xor edi, edi
    0x31, 0xf6,                                               // xor esi, esi
    0x31, 0xd2,                                               // xor edx, edx
    0x45, 0x31, 0xd2,                                         // xor r10d, r10d
    0x45, 0x31, 0xc0,                                         // xor r8d, r8d
    0xb8, 0x38, 0x00, 0x00, 0x00,                             // mov eax, 56
    0x0f, 0x05,                                               // syscall
    0x48, 0x85, 0xc0,                                         // test rax, rax
    0x74, 0x04,                                               // je gone
    0x48, 0x89, 0x43, 0x08,                                   // failed: mov [rbx+8], rax
    0x31, 0xff,                                               // gone: xor edi, edi
    0xb8, 0xe7, 0x00, 0x00, 0x00,                             // mov eax, 231
    0x0f, 0x05,                                               // syscall
    0x0f, 0x0b,                                               // ud2
    0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00,// data16 cs nop WORD PTR [rax+rax*1+0]
    0x66, 0x90,                                               // xchg ax, ax
    16, 0, 0, 0, 0, 0, 0, 0,                                  // set
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,           // time
    47, 0, 0, 0, 0, 0, 0, 0,                                  // slash
];

/// Where the loop over a table begins, and where its thread stops at the end.
pub const LOOP: u64 = 48;
pub const TOLD: u64 = 125;

/// The "number" that makes a copy of the process; see [`super::copy`].
pub const COPY: i64 = -2;

/// Registers with which a thread runs the calls of the table at `table`, and tells by `signal`.
#[must_use]
pub fn loop_regs(own: &Regs, code: u64, frame: u64, table: u64, signal: i32) -> Regs {
    Regs { rip: code + LOOP, rbx: table, rbp: signal as u64, ..one_regs(own, code, frame) }
}

/// Registers for a single call, but for its number and arguments.
#[must_use]
pub fn one_regs(own: &Regs, code: u64, frame: u64) -> Regs {
    Regs { rip: code, r15: frame + FRAME_SP, orig_rax: u64::MAX, ..*own }
}

/// Length of an entry of a table: number, six arguments, result.
pub const ENTRY: usize = 64;
/// Most entries of a table.
pub const MOST_CALLS: usize = 60;
/// Room for a table, which ends where the frame begins.
pub const TABLE_LEN: u64 = 4096;
const _: () = assert!((MOST_CALLS + 1) * ENTRY <= TABLE_LEN as usize);

/// The calls as the loop reads them; -1 ends them.
#[must_use]
pub fn table(calls: &[Call]) -> Vec<u8> {
    let entries = calls.iter().flat_map(|c| [c.number as u64].into_iter().chain(c.args).chain([0]));
    let end = [u64::MAX, 0, 0, 0, 0, 0, 0, 0];
    entries.chain(end).flat_map(u64::to_le_bytes).collect()
}

/// What the loop left there.
#[must_use]
pub fn results(table: &[u8]) -> Vec<i64> {
    let of = |entry: &[u8; ENTRY]| i64::from_le_bytes(entry[ENTRY - 8..].try_into().unwrap_or_default());
    table.as_chunks::<ENTRY>().0.iter().map(of).collect()
}

/// Room for the frame: ucontext, and an XSAVE area of any size so far.
pub const FRAME_LEN: u64 = 28 << 10;

/// Where `rsp` must be for rt_sigreturn, relative to the frame: behind the return address.
pub const FRAME_SP: u64 = 8;

/// Where the extended state is in a frame, and where the pointer to it is.
pub const XSTATE_AT: usize = 512;
pub const FPSTATE_POINTER: usize = 48 + 23 * 8;
const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
/// Offset of the software-reserved bytes in the legacy area; the regset has the mask of components
/// that exist there.
const SW_RESERVED: usize = 464;
const XSTATE_BV: usize = 512;
/// XTILECFG and XTILEDATA: frames of threads without permission to use AMX end before them.
const AMX: u64 = 3 << 17;

/// A `struct rt_sigframe` at address `base` (64-byte aligned), as arch/x86/include/asm/sigframe.h
/// has it; `xstate` as the NT_X86_XSTATE register set shows it.
#[must_use]
pub fn frame(base: u64, regs: &Regs, mask: u64, xstate: &[u8]) -> Vec<u8> {
    let r = restart::reissue(regs);
    let mut words = vec![
        0, // return address: unused
        UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
        0, // uc_link
        0, // uc_stack: flags that the kernel refuses, so that it leaves the alternate stack alone
        0x7fff_ffff,
        0,
    ];
    words.extend([r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15]);
    words.extend([r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax, r.rcx, r.rsp, r.rip, r.eflags]);
    words.push((r.cs & 0xffff) | (r.gs & 0xffff) << 16 | (r.fs & 0xffff) << 32 | (r.ss & 0xffff) << 48);
    words.extend([0, 0, 0, 0]); // err, trapno, oldmask, cr2
    words.push(base + XSTATE_AT as u64);
    words.extend([0; 8]);
    words.push(mask);
    let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    bytes.resize(XSTATE_AT, 0);
    bytes.extend(fpstate(xstate));
    bytes
}

/// The extended state with the kernel's marks around it (`struct _fpx_sw_bytes`).
fn fpstate(xstate: &[u8]) -> Vec<u8> {
    let word = |at: usize| xstate.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap()));
    let mut components = word(SW_RESERVED);
    if word(XSTATE_BV) & AMX == 0 {
        components &= !AMX;
    }
    let size = cpuid::xsave_size(components).min(xstate.len());
    let mut bytes = xstate[..size].to_vec();
    let mut sw = Vec::with_capacity(48);
    sw.extend(FP_XSTATE_MAGIC1.to_le_bytes());
    sw.extend((size as u32 + 4).to_le_bytes());
    sw.extend(components.to_le_bytes());
    sw.extend((size as u32).to_le_bytes());
    sw.resize(48, 0);
    bytes[SW_RESERVED..SW_RESERVED + 48].copy_from_slice(&sw);
    bytes.extend(FP_XSTATE_MAGIC2.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_refers_to_what_is_there() {
        let relative = |at: usize| i32::from_le_bytes(CODE[at - 4..at].try_into().unwrap());
        let short = |at: usize| at as i64 + i64::from(CODE[at - 1] as i8);
        assert_eq!(CODE[(9 + relative(9)) as usize..][..8], 0x10u64.to_le_bytes());
        assert_eq!(18 + relative(18) + 24, CODE.len() as i32);
        assert_eq!((short(56), short(92), short(127)), (92, LOOP as i64, 2));
        assert_eq!(CODE[TOLD as usize - 2..TOLD as usize], [0x0f, 0x05]);
    }

    #[test]
    fn tables_end_and_bring_results() {
        let calls = [Call::new(1, &[2, 3]), Call::new(4, &[5, 6, 7, 8, 9, 10])];
        let mut bytes = table(&calls);
        assert_eq!(bytes.len(), 3 * ENTRY);
        assert_eq!(bytes[2 * ENTRY..][..8], u64::MAX.to_le_bytes());
        bytes[ENTRY + 56..2 * ENTRY].copy_from_slice(&(-5i64).to_le_bytes());
        assert_eq!(results(&bytes[..2 * ENTRY]), [0, -5]);
    }

    #[test]
    fn frame_has_the_kernels_layout() {
        let regs = Regs {
            r8: 8,
            rip: 0x4002,
            orig_rax: libc::SYS_read as u64,
            rax: restart::ERESTARTSYS as u64,
            cs: 0x33,
            ss: 0x2b,
            ..Regs::default()
        };
        let mut xstate = vec![0; 832];
        xstate[SW_RESERVED] = 3;
        let bytes = frame(0x10000, &regs, 0xabcd, &xstate);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        // Offsets of struct rt_sigframe: uc at 8, uc_mcontext at 48, uc_sigmask at 304.
        assert_eq!(word(48), 8);
        assert_eq!(word(48 + 13 * 8), libc::SYS_read as u64, "rax");
        assert_eq!(word(48 + 16 * 8), 0x4000, "rip");
        assert_eq!(word(48 + 18 * 8), 0x002b_0000_0000_0033, "selectors");
        assert_eq!(word(48 + 23 * 8), 0x10000 + 512, "fpstate");
        assert_eq!(word(304), 0xabcd);
        assert_eq!(bytes.len(), 512 + 576 + 4);
        assert_eq!(bytes[512 + SW_RESERVED..][..4], FP_XSTATE_MAGIC1.to_le_bytes());
        assert_eq!(bytes[512 + 576..], FP_XSTATE_MAGIC2.to_le_bytes());
    }
}
