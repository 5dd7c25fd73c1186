//! System calls without the C library: no errno, no cancellation point, no thread-local memory.

use std::arch::asm;

/// What a system call returned: -4095 to -1 is an error.
pub type Raw = isize;

/// # Safety
/// As the call with these arguments demands.
#[cfg(target_arch = "x86_64")]
pub unsafe fn syscall(number: i64, args: [usize; 6]) -> Raw {
    let result;
    // SAFETY: the caller's. The kernel changes rax, rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// clone(2) whose child calls `entry(argument)` on another stack. Returns its id in the caller. With
/// CLONE_CHILD_CLEARTID, `cleared` becomes 0, with a FUTEX_WAKE, when the child leaves the memory.
///
/// # Safety
/// The stack ends at `stack_top`, which is aligned to 16 bytes, and is nobody else's as long as the child
/// lives. With CLONE_VM, `entry` uses no thread-local memory (it has the caller's) and nothing that takes locks.
#[cfg(target_arch = "x86_64")]
pub unsafe fn clone(
    flags: i32,
    stack_top: *mut u8,
    entry: extern "C" fn(*const u8) -> !,
    argument: *const u8,
    cleared: *mut i32,
) -> Raw {
    let result;
    // SAFETY: the child has the caller's registers but rax (0) and rsp, and never returns from `entry`.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone as isize => result,
            in("rdi") flags as usize,
            in("rsi") stack_top,
            in("rdx") 0usize,
            in("r10") cleared,
            in("r8") 0usize,
            in("r12") entry,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// Ends the calling thread, which is a process of its own here.
pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: does not return.
        unsafe { syscall(libc::SYS_exit, [status as usize, 0, 0, 0, 0, 0]) };
    }
}
