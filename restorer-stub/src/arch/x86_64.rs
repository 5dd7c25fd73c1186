//! x86-64: entry, system calls, clone trampolines, memory functions, CPUID.
#![allow(unsafe_code)]

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

// Entry. The kernel gives argc, argv, envp and auxv at rsp and nothing else that matters
// (System V ABI, "Process Initialization"); rbp = 0 ends a debugger's backtrace.
global_asm!(
    ".pushsection .text.ckpt_entry, \"ax\", @progbits",
    ".globl _start",
    ".type _start, @function",
    "_start:",
    "xor %ebp, %ebp",
    "mov %rsp, %rdi",
    "and $-16, %rsp",
    "call {main}",
    "ud2",
    ".size _start, . - _start",
    ".popsection",
    main = sym crate::mem::start::entry,
    options(att_syntax)
);

// What the compiler expects of a C library. `rep movsb` is the fastest copy there is for the sizes
// that matter here (ERMS), and needs no vector state.
global_asm!(
    ".pushsection .text.ckpt_mem, \"ax\", @progbits",
    ".macro FUNC name",
    ".globl \\name",
    ".type \\name, @function",
    "\\name:",
    ".endm",
    "FUNC memcpy",
    "mov %rdi, %rax",
    "mov %rdx, %rcx",
    "rep movsb",
    "ret",
    "FUNC memmove",
    "mov %rdi, %rax",
    "mov %rdx, %rcx",
    // Forward is right unless the destination starts inside the source.
    "mov %rdi, %r8",
    "sub %rsi, %r8",
    "cmp %rdx, %r8",
    "jb 1f",
    "rep movsb",
    "ret",
    "1: lea -1(%rdi,%rdx), %rdi",
    "lea -1(%rsi,%rdx), %rsi",
    "std",
    "rep movsb",
    "cld",
    "ret",
    "FUNC memset",
    "mov %rdi, %r8",
    "mov %esi, %eax",
    "mov %rdx, %rcx",
    "rep stosb",
    "mov %r8, %rax",
    "ret",
    "FUNC memcmp",
    "FUNC bcmp",
    "xor %eax, %eax",
    // Eight bytes at a time while they are equal: vDSO and build-id comparisons.
    "2: cmp $8, %rdx",
    "jb 3f",
    "mov (%rdi), %r8",
    "cmp (%rsi), %r8",
    "jne 3f",
    "add $8, %rdi",
    "add $8, %rsi",
    "sub $8, %rdx",
    "jmp 2b",
    "3: test %rdx, %rdx",
    "jz 4f",
    "movzbl (%rdi), %eax",
    "movzbl (%rsi), %ecx",
    "sub %ecx, %eax",
    "jne 4f",
    "inc %rdi",
    "inc %rsi",
    "dec %rdx",
    "jmp 3b",
    "4: ret",
    "FUNC strlen",
    "xor %eax, %eax",
    "5: cmpb $0, (%rdi,%rax)",
    "je 6f",
    "inc %rax",
    "jmp 5b",
    "6: ret",
    ".popsection",
    options(att_syntax)
);

/// A system call: the kernel's answer, -4095..=-1 being a negated errno.
///
/// # Safety
/// As the call itself: pointers must be valid for what the kernel does with them, and the call
/// must not pull memory from under live references.
#[inline(always)]
pub unsafe fn syscall(nr: u32, a: [usize; 6]) -> isize {
    let ret: isize;
    // SAFETY: the kernel preserves everything but rax, rcx and r11 (the caller vouches for memory).
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") nr as usize => ret,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    ret
}

// A system call instruction that the tracer points the leader at (see `tracer`): never reached by
// falling into it.
global_asm!(
    ".pushsection .text.ckpt_inject, \"ax\", @progbits",
    ".globl ckpt_injected_syscall",
    ".hidden ckpt_injected_syscall",
    "ckpt_injected_syscall:",
    "syscall",
    "ud2",
    ".popsection",
    options(att_syntax)
);

unsafe extern "C" {
    static ckpt_injected_syscall: u8;
    static __ehdr_start: u8;
}

/// Address of a `syscall` instruction for injected calls.
pub fn injected_syscall_addr() -> u64 {
    &raw const ckpt_injected_syscall as u64
}

/// Address of the stub's own ELF header, the first byte of its first segment.
pub fn ehdr_addr() -> usize {
    &raw const __ehdr_start as usize
}

/// Continues at `f(arg)` on the stack that ends at `top`, for good.
///
/// # Safety
/// `top` ends writable memory that nothing else uses; nothing on the present stack is needed again.
pub unsafe fn switch_stack(top: usize, f: extern "C" fn(usize) -> !, arg: usize) -> ! {
    // SAFETY: rsp is set to the 16-byte aligned end of the new stack; `f` never returns.
    unsafe {
        asm!(
            "mov rsp, {top}",
            "xor ebp, ebp",
            "call {f}",
            "ud2",
            top = in(reg) top & !15,
            f = in(reg) f,
            in("rdi") arg,
            options(noreturn)
        )
    }
}

/// clone(2) or clone3(2) of something that runs `f(arg)` on its own stack in shared memory
/// (CLONE_VM). The parent gets the id or a negated errno.
///
/// `nr` is the call's number, `a` its arguments. The child's stack must be named in them; `f` and
/// `arg` travel in registers, which the child inherits.
///
/// # Safety
/// The stack named in the arguments is unused and large enough for `f`.
pub unsafe fn clone_onto(nr: u32, a: [usize; 5], f: extern "C" fn(usize) -> !, arg: usize) -> isize {
    let ret: isize;
    // SAFETY: the child (rax = 0) has a fresh stack and jumps to `f`, never using this frame.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "and rsp, -16",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") nr as usize => ret,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4],
            in("r12") f, in("r13") arg,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    ret
}

/// An answer of CPUID, which is asked once: in a virtual machine each question is an exit to the hypervisor, 5 us
/// and more.
struct Leaf {
    known: AtomicBool,
    registers: [AtomicU32; 4],
}

/// Those that are asked about: leaf and subleaf.
const LEAVES: [(u32, u32); 9] =
    [(0, 0), (0x8000_0000, 0), (1, 0), (7, 0), (7, 1), (0x8000_0001, 0), (0xd, 1), (0xd, 5), (0xd, 9)];

static ANSWERS: [Leaf; LEAVES.len()] =
    [const { Leaf { known: AtomicBool::new(false), registers: [const { AtomicU32::new(0) }; 4] } };
        LEAVES.len()];

fn ask(leaf: u32, subleaf: u32) -> [u32; 4] {
    let r = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

fn answer(leaf: u32, subleaf: u32) -> [u32; 4] {
    let Some(slot) = LEAVES.iter().position(|l| *l == (leaf, subleaf)).map(|i| &ANSWERS[i]) else {
        return ask(leaf, subleaf);
    };
    // Whoever asks at the same time stores the same.
    if !slot.known.load(Ordering::Acquire) {
        for (register, value) in slot.registers.iter().zip(ask(leaf, subleaf)) {
            register.store(value, Ordering::Relaxed);
        }
        slot.known.store(true, Ordering::Release);
    }
    core::array::from_fn(|i| slot.registers[i].load(Ordering::Relaxed))
}

/// One CPUID word; register 0 is eax, 3 is edx. 0 for a leaf that the CPU does not have.
pub fn cpuid(leaf: u32, subleaf: u32, register: u8) -> u32 {
    let max = answer(leaf & 0x8000_0000, 0)[0];
    if leaf > max {
        return 0;
    }
    answer(leaf, subleaf)[usize::from(register & 3)]
}

/// XCR0: the state components that the kernel enabled; x87 and SSE where there is no XSAVE.
pub fn xcr0() -> u64 {
    if cpuid(1, 0, 2) & (1 << 27) == 0 {
        return 3;
    }
    let (lo, hi): (u32, u32);
    // SAFETY: OSXSAVE is set, so xgetbv with ecx = 0 exists.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") lo, out("edx") hi, options(nomem, nostack)) };
    u64::from(hi) << 32 | u64::from(lo)
}

/// `e_machine` of images for this CPU.
pub const MACHINE: u32 = 62;
/// Highest user address of four-level paging (`TASK_SIZE_MAX`), and of five-level paging.
pub const TASK_SIZE: usize = 0x7fff_ffff_f000;
pub const TASK_SIZE_LA57: usize = 0xff_ffff_ffff_f000;
