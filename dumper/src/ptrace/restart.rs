//! Interrupted system calls. Pure.
//!
//! A stop interrupts a blocking system call: its `rax` is then one of the kernel-internal codes
//! -ERESTART*, on which the kernel decides when the thread goes on (arch/x86/kernel/signal.c,
//! arch_do_signal_or_restart): call it again, or EINTR because a handler runs.

use ckpt_format::Regs;

pub const ERESTARTSYS: i64 = -512;
pub const ERESTARTNOINTR: i64 = -513;
pub const ERESTARTNOHAND: i64 = -514;
pub const ERESTART_RESTARTBLOCK: i64 = -516;
/// Calls that set a restart block when interrupted (`restart_block.fn` in the kernel's source).
const WITH_RESTART_BLOCK: [i64; 4] =
    [libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_poll, libc::SYS_futex];
/// Not in the libc crate for glibc.
const SYS_IO_PGETEVENTS: i64 = 333;
const EINTR: i64 = -(libc::EINTR as i64);

/// Calls that return EINTR when a stop interrupts them, though no handler runs (signal(7),
/// "Interruption of system calls and library functions by stop signals"; socket calls do so when a
/// timeout is set on the socket), and that can be issued again: EINTR means that they did nothing.
/// close(2) is not among them: it has closed.
const EINTR_BY_STOP: &[i64] = &[
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_io_getevents,
    SYS_IO_PGETEVENTS,
    libc::SYS_msgrcv,
    libc::SYS_msgsnd,
    libc::SYS_mq_timedreceive,
    libc::SYS_mq_timedsend,
    libc::SYS_getrandom,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
];

/// Whether the thread stands at the end of a system call. Interrupts and exceptions leave a negative
/// `orig_rax`.
#[must_use]
pub fn in_syscall(regs: &Regs) -> bool {
    regs.orig_rax as i64 >= 0
}

/// Whether the kernel still has to decide about a restart.
#[must_use]
pub fn is_restarting(regs: &Regs) -> bool {
    in_syscall(regs)
        && matches!(regs.rax as i64, ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND | ERESTART_RESTARTBLOCK)
}

/// Turns an EINTR that our stop caused into "call it again unless a handler runs".
pub fn undo_our_eintr(regs: &mut Regs) -> bool {
    let ours =
        in_syscall(regs) && regs.rax as i64 == EINTR && EINTR_BY_STOP.contains(&(regs.orig_rax as i64));
    if ours {
        regs.rax = ERESTARTNOHAND as u64;
    }
    ours
}

/// Whether this is a call that was interrupted before: the kernel then replaced its number by that of
/// restart_syscall(2).
#[must_use]
pub fn number_is_lost(regs: &Regs) -> bool {
    is_restarting(regs) && regs.orig_rax as i64 == libc::SYS_restart_syscall
}

/// What a thread was originally calling, if [`number_is_lost`]: restart_syscall(2) works only where
/// the kernel still has its restart block. Few calls use that. `before` is the code that ends at the
/// `syscall` instruction, which mostly loads the number; else the arguments tell. `is_address` tells
/// whether memory can be read there.
#[must_use]
pub fn original_call(regs: &Regs, before: &[u8], is_address: impl Fn(u64) -> bool) -> i64 {
    let loaded = |at: usize| {
        let number = match &before[at..] {
            // mov eax, imm32; mov rax, imm32
            [0xb8, n @ ..] | [0x48, 0xc7, 0xc0, n @ ..] if n.len() >= 4 => {
                i64::from(u32::from_le_bytes([n[0], n[1], n[2], n[3]]))
            }
            _ => return None,
        };
        WITH_RESTART_BLOCK.contains(&number).then_some(number)
    };
    if let Some(number) = (0..before.len()).rev().find_map(loaded) {
        return number;
    }
    const FUTEX_WAITS: [u64; 2] = [libc::FUTEX_WAIT as u64, libc::FUTEX_WAIT_BITSET as u64];
    let futex_op = regs.rsi & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME) as u64;
    if !is_address(regs.rdi) {
        // clock_nanosleep(clock, flags, request, ...), or poll(NULL, 0, timeout).
        return if is_address(regs.rdx) { libc::SYS_clock_nanosleep } else { libc::SYS_poll };
    }
    if FUTEX_WAITS.contains(&futex_op) && is_address(regs.r10) {
        return libc::SYS_futex;
    }
    // nanosleep(request, remaining or NULL), or poll(fds, count, timeout).
    if regs.rsi == 0 || is_address(regs.rsi) { libc::SYS_nanosleep } else { libc::SYS_poll }
}

/// Registers for the image. The kernel's restart block (remaining time of a sleep) cannot be
/// recreated by anyone: -ERESTART_RESTARTBLOCK becomes -ERESTARTNOHAND, which issues the original
/// call again if no handler runs, and gives EINTR if one does, as the original would.
#[must_use]
pub fn for_image(regs: &Regs) -> Regs {
    let mut regs = *regs;
    if in_syscall(&regs) && regs.rax as i64 == ERESTART_RESTARTBLOCK {
        regs.rax = ERESTARTNOHAND as u64;
    }
    regs
}

/// Registers with which the thread would issue its interrupted call again by itself (for a thread
/// that comes back from a signal frame, where the kernel does not decide any more).
#[must_use]
pub fn reissue(regs: &Regs) -> Regs {
    let mut regs = *regs;
    if is_restarting(&regs) {
        regs.rax = regs.orig_rax;
        regs.rip -= 2;
    }
    regs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(orig_rax: i64, rax: i64) -> Regs {
        Regs { orig_rax: orig_rax as u64, rax: rax as u64, rip: 0x1002, ..Regs::default() }
    }

    #[test]
    fn eintr_is_ours_only_at_the_end_of_certain_calls() {
        for (nr, rax, expected) in [
            (libc::SYS_epoll_wait, EINTR, ERESTARTNOHAND),
            (libc::SYS_semop, EINTR, ERESTARTNOHAND),
            (libc::SYS_close, EINTR, EINTR),
            (libc::SYS_epoll_wait, 3, 3),
            (libc::SYS_epoll_wait, ERESTARTSYS, ERESTARTSYS),
            (-1, EINTR, EINTR),
        ] {
            let mut regs = at(nr, rax);
            assert_eq!(undo_our_eintr(&mut regs), rax != expected);
            assert_eq!(regs.rax as i64, expected, "call {nr}, result {rax}");
        }
    }

    #[test]
    fn restart_block_is_not_for_the_image() {
        let nanosleep = at(libc::SYS_nanosleep, ERESTART_RESTARTBLOCK);
        assert_eq!(for_image(&nanosleep).rax as i64, ERESTARTNOHAND);
        assert_eq!(for_image(&nanosleep).rip, 0x1002);
        // In user mode -516 is just a number.
        assert_eq!(for_image(&at(-1, ERESTART_RESTARTBLOCK)).rax as i64, ERESTART_RESTARTBLOCK);
    }

    #[test]
    fn the_number_behind_restart_syscall() {
        let readable = |addr: u64| (0x10_0000..0x20_0000).contains(&addr);
        let call = |rdi, rsi, rdx, r10, code: &[u8]| {
            let regs = Regs { rdi, rsi, rdx, r10, ..at(libc::SYS_restart_syscall, ERESTART_RESTARTBLOCK) };
            assert!(number_is_lost(&regs));
            original_call(&regs, code, readable)
        };
        let p = 0x10_0000;
        assert_eq!(call(0, 0, p, p, &[0x90, 0xb8, 0xe6, 0, 0, 0]), libc::SYS_clock_nanosleep);
        assert_eq!(call(p, 1, 5, 0, &[0x48, 0xc7, 0xc0, 7, 0, 0, 0, 0x90]), libc::SYS_poll);
        assert_eq!(call(p, 128, 5, p, &[0xb8, 1, 0, 0, 0]), libc::SYS_futex);
        assert_eq!(call(p, 0x189, 5, p, &[]), libc::SYS_futex);
        assert_eq!(call(1, 0, p, 0, &[]), libc::SYS_clock_nanosleep);
        assert_eq!(call(0, 0, 2000, 0, &[]), libc::SYS_poll);
        assert_eq!(call(p, 3, 2000, 0, &[]), libc::SYS_poll);
        assert_eq!(call(p, p, 0, 0, &[]), libc::SYS_nanosleep);
        assert_eq!(call(p, 0, 0, 0, &[]), libc::SYS_nanosleep);
    }

    #[test]
    fn reissue_goes_back_to_the_instruction() {
        let regs = reissue(&at(libc::SYS_read, ERESTARTSYS));
        assert_eq!((regs.rax as i64, regs.rip), (libc::SYS_read, 0x1000));
        let regs = reissue(&at(libc::SYS_read, 5));
        assert_eq!((regs.rax, regs.rip), (5, 0x1002));
    }
}
