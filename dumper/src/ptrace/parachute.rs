//! What a thread falls back on if we die while it runs a system call for us.
//!
//! ckpt-dump may be killed at any moment; the kernel then detaches it and the thread goes on with
//! whatever registers it has. Therefore injected calls run from a page of ours that holds
//!
//! ```text
//!     syscall                                     ; the injected call
//!     rt_sigtimedwait({SIGTRAP}, NULL, {0, 0})    ; see below
//!     rt_sigreturn
//! ```
//!
//! with `rsp` at a signal frame that holds the thread's real registers, extended state and signal
//! mask. While we live the thread never gets past the first instruction; if we die it returns to
//! its own work by itself. What the frame cannot say: an interrupted call is issued again
//! ([`restart::reissue`]), a relative sleep starting anew.
//!
//! A thread whose tracer dies during a system call stop sends itself a SIGTRAP
//! (ptrace_report_syscall() takes the code of the stop for the tracer's answer), which would kill the
//! program. It is blocked at that moment, like all signals, and removed before the mask comes back.
//! (With PTRACE_O_TRACESYSGOOD the kernel would send signal 133, out of bounds of its tables, and
//! leave it in the queue; so that option is not used.)

use super::restart;
use crate::sys::cpuid;
use ckpt_format::Regs;

/// The code above.
#[rustfmt::skip]
pub const CODE: [u8; 64] = [
    0x0f, 0x05,                                 //  0: syscall
    0x48, 0x8d, 0x3d, 0x1f, 0, 0, 0,            //  2: lea rdi, [rip + (40 - 9)]
    0x31, 0xf6,                                 //  9: xor esi, esi
    0x48, 0x8d, 0x15, 0x1e, 0, 0, 0,            // 11: lea rdx, [rip + (48 - 18)]
    0x41, 0xba, 8, 0, 0, 0,                     // 18: mov r10d, 8
    0xb8, 128, 0, 0, 0,                         // 24: mov eax, SYS_rt_sigtimedwait
    0x0f, 0x05,                                 // 29: syscall
    0xb8, 15, 0, 0, 0,                          // 31: mov eax, SYS_rt_sigreturn
    0x0f, 0x05,                                 // 36: syscall
    0x0f, 0x0b,                                 // 38: ud2
    0x10, 0, 0, 0, 0, 0, 0, 0,                  // 40: the set {SIGTRAP}
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // 48: the time {0, 0}
];

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
