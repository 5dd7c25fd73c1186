//! A way back that needs no memory of ours, for the two calls that map and unmap it.
//!
//! Every C library has the instructions `syscall; ret` (getpid and the like) and
//! `mov rax, 15; syscall` (what a signal handler returns to). The call runs at the former, with `rsp`
//! at two signal frames that lie on the thread's own stack, below what it uses. Should we die, `ret`
//! leads to the latter, which takes up the first frame: a call of rt_sigtimedwait that removes the
//! SIGTRAP (see [`super::parachute`]); then in the same way the second: the thread's own state.

use super::parachute;
use super::{RemoteAddr, RemoteMemory};
use crate::collect::proc;
use anyhow::Result;
use ckpt_format::Regs;
use std::ops::Range;

const SYSCALL_RET: &[u8] = &[0x0f, 0x05, 0xc3];
const SIGRETURN: &[u8] = &[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
/// Bytes of code that are searched; the C library lies in the first few MiB.
const SEARCHED: u64 = 64 << 20;
/// Stack that the x86-64 ABI lets a function use below `rsp`, twice.
const RED_ZONE: u64 = 256;
/// Room for a ucontext, and for the arguments of rt_sigtimedwait.
const SMALL_FRAME: u64 = 512;
const ARGUMENTS: u64 = 64;
const SIGTRAP_SET: u64 = 1 << (libc::SIGTRAP - 1);

/// Addresses of the instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gadgets {
    pub call: RemoteAddr,
    pub sigreturn: RemoteAddr,
}

/// Bytes to be laid on a stack, and the registers for the call.
pub struct OnStack {
    pub addr: RemoteAddr,
    pub bytes: Vec<u8>,
    pub regs: Regs,
}

impl Gadgets {
    /// Searches the executable memory of a process, which may run; the C library first.
    #[must_use]
    pub fn find(memory: &RemoteMemory, maps: &str) -> Option<Self> {
        let (libc, rest): (Vec<&str>, Vec<&str>) =
            maps.lines().partition(|l| l.contains("/libc") || l.contains("/ld-"));
        let ordered = [libc.join("\n"), rest.join("\n")].join("\n");
        let (mut call, mut sigreturn, mut left) = (None, None, SEARCHED);
        for range in proc::executable_mappings(&ordered) {
            let len = (range.end - range.start).min(left);
            let mut code = vec![0; len as usize];
            left -= len;
            if memory.read(RemoteAddr(range.start), &mut code).is_err() {
                continue;
            }
            let at = |what| find(&code, what).map(|i| RemoteAddr(range.start + i as u64));
            call = call.or_else(|| at(SYSCALL_RET));
            sigreturn = sigreturn.or_else(|| at(SIGRETURN));
            if let (Some(call), Some(sigreturn)) = (call, sigreturn) {
                return Some(Self { call, sigreturn });
            }
        }
        None
    }

    /// Whether they are (still) there.
    #[must_use]
    pub fn verify(&self, memory: &RemoteMemory) -> bool {
        let is = |addr, what: &[u8]| {
            let mut code = vec![0; what.len()];
            memory.read(addr, &mut code).is_ok() && code == what
        };
        is(self.call, SYSCALL_RET) && is(self.sigreturn, SIGRETURN)
    }

    /// The two frames, for a thread with these registers, mask and extended state, whose stack is in
    /// the mapping `stack`. `None` when there is no room.
    #[must_use]
    pub fn lay(&self, regs: &Regs, mask: u64, xstate: &[u8], stack: &Range<u64>) -> Option<OnStack> {
        if !stack.contains(&regs.rsp) {
            return None;
        }
        let own_len = parachute::frame(0, regs, mask, xstate).len() as u64;
        let own_at = (regs.rsp.checked_sub(RED_ZONE + own_len)?) & !63;
        let first_at = own_at.checked_sub(SMALL_FRAME + ARGUMENTS)?;
        if first_at < stack.start {
            return None;
        }
        let arguments = first_at + SMALL_FRAME;
        let wait = Regs {
            rax: libc::SYS_rt_sigtimedwait as u64,
            rdi: arguments,
            rsi: 0,
            rdx: arguments + 8,
            r10: 8,
            rip: self.call.0,
            rsp: own_at,
            orig_rax: u64::MAX,
            ..*regs
        };
        let mut bytes = parachute::frame(first_at, &wait, u64::MAX, xstate);
        bytes.truncate(SMALL_FRAME as usize);
        // The extended state is that of the second frame.
        let fpstate = own_at + parachute::XSTATE_AT as u64;
        bytes[parachute::FPSTATE_POINTER..][..8].copy_from_slice(&fpstate.to_le_bytes());
        bytes.extend([SIGTRAP_SET, 0, 0].iter().flat_map(|w| w.to_le_bytes()));
        bytes.resize((own_at - first_at) as usize, 0);
        bytes.extend(parachute::frame(own_at, regs, mask, xstate));
        for frame in [0, (own_at - first_at) as usize] {
            bytes[frame..frame + 8].copy_from_slice(&self.sigreturn.0.to_le_bytes());
        }
        let regs = Regs { rip: self.call.0, rsp: first_at, orig_rax: u64::MAX, ..*regs };
        Some(OnStack { addr: RemoteAddr(first_at), bytes, regs })
    }
}

impl OnStack {
    /// Writes the frames; returns what was there.
    ///
    /// # Errors
    /// When the stack cannot be read or written.
    pub fn write(&self, memory: &RemoteMemory) -> Result<Vec<u8>> {
        let mut before = vec![0; self.bytes.len()];
        memory.read(self.addr, &mut before)?;
        memory.write(self.addr, &self.bytes)?;
        Ok(before)
    }
}

fn find(code: &[u8], what: &[u8]) -> Option<usize> {
    let first = what[0];
    let mut from = 0;
    while let Some(i) = code[from..].iter().position(|b| *b == first) {
        let at = from + i;
        if code[at..].starts_with(what) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const GADGETS: Gadgets = Gadgets { call: RemoteAddr(0x1000), sigreturn: RemoteAddr(0x2000) };

    #[test]
    fn frames_lie_below_the_red_zone_and_lead_back() {
        let regs = Regs { rsp: 0x7000_8008, rip: 0x4444, rax: 7, orig_rax: u64::MAX, ..Regs::default() };
        let laid = GADGETS.lay(&regs, 5, &vec![0; 832], &(0x7000_0000..0x7001_0000)).unwrap();
        assert!(laid.addr.0 + laid.bytes.len() as u64 <= regs.rsp - 128);
        assert_eq!(laid.regs.rip, 0x1000);
        let word = |at: u64| {
            let at = (at - laid.addr.0) as usize;
            u64::from_le_bytes(laid.bytes[at..at + 8].try_into().unwrap())
        };
        // rsp, rip and fpstate in struct sigcontext, which is at 48 of the frame.
        let context =
            |frame: u64| (word(frame + 48 + 15 * 8), word(frame + 48 + 16 * 8), word(frame + 48 + 23 * 8));
        let first = laid.regs.rsp;
        assert_eq!(word(first), 0x2000);
        let (rsp, rip, fpstate) = context(first);
        assert_eq!(rip, 0x1000);
        assert_eq!(word(rsp), 0x2000);
        assert_eq!(context(rsp), (regs.rsp, regs.rip, fpstate));
        assert_eq!(fpstate % 64, 0);
        assert_eq!(word(word(first + 48 + 8 * 8)), SIGTRAP_SET);
    }

    #[test]
    fn no_room_no_frames() {
        let regs = Regs { rsp: 0x7000_0400, ..Regs::default() };
        assert!(GADGETS.lay(&regs, 0, &vec![0; 832], &(0x7000_0000..0x7001_0000)).is_none());
        assert!(GADGETS.lay(&regs, 0, &vec![0; 832], &(0x1000..0x2000)).is_none());
    }
}
