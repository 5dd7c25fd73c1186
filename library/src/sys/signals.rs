//! The calling thread's signal mask.

use super::raw;
use libc::siginfo_t;
use std::mem::MaybeUninit;

/// Size of the kernel's signal set.
const SET: usize = 8;

/// All signals of the calling thread are blocked until it is dropped; even those that the C library keeps for
/// itself, so that nothing takes the thread out of its call.
#[derive(Debug)]
pub struct Blocked {
    before: u64,
}

impl Blocked {
    pub fn all() -> Self {
        Self { before: set(u64::MAX) }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        set(self.before);
    }
}

/// Sets the mask; what it was before.
pub fn set(mask: u64) -> u64 {
    let mut before = 0u64;
    let args = [libc::SIG_SETMASK as usize, &raw const mask as usize, &raw mut before as usize, SET, 0, 0];
    // SAFETY: both are sets of that size on the stack.
    unsafe { raw::syscall(libc::SYS_rt_sigprocmask, args) };
    before
}

/// Makes all signals act as they do by default. For a process that is about to call execve(2).
pub fn default_all() {
    // `struct sigaction` of the kernel: handler (SIG_DFL), flags, restorer, mask.
    let action = [0usize; 4];
    for signal in 1..=64 {
        let args = [signal, &raw const action as usize, 0, SET, 0, 0];
        // SAFETY: reads `action`. EINVAL for SIGKILL and SIGSTOP.
        unsafe { raw::syscall(libc::SYS_rt_sigaction, args) };
    }
}

/// Timers and waiting signals of the program that is about to be replaced, which exec keeps: what it was must not
/// get them. What other processes have sent stays.
pub struct Put {
    timers: [libc::itimerval; 3],
    own: Vec<siginfo_t>,
}

/// ITIMER_REAL, _VIRTUAL, _PROF.
const TIMERS: [libc::c_int; 3] = [0, 1, 2];

impl Put {
    /// Takes them away. All signals must be blocked.
    pub fn aside() -> Self {
        let timers = TIMERS.map(|which| set_timer(which, no_timer()));
        let mut own = Vec::new();
        let mut others = Vec::new();
        while let Some(info) = take_waiting() {
            if is_from_outside(&info) { others.push(info) } else { own.push(info) }
        }
        others.iter().for_each(queue);
        Self { timers, own }
    }

    /// The program goes on.
    pub fn back(self) {
        self.own.iter().for_each(queue);
        for (which, timer) in TIMERS.into_iter().zip(self.timers) {
            set_timer(which, timer);
        }
    }
}

fn no_timer() -> libc::itimerval {
    let zero = libc::timeval { tv_sec: 0, tv_usec: 0 };
    libc::itimerval { it_interval: zero, it_value: zero }
}

/// What it was.
fn set_timer(which: libc::c_int, timer: libc::itimerval) -> libc::itimerval {
    let mut before = no_timer();
    // By its number: the type of `which` differs between C libraries.
    // SAFETY: reads one and writes the other; no error is possible with these.
    unsafe { libc::syscall(libc::SYS_setitimer, which, &raw const timer, &raw mut before) };
    before
}

/// The next signal that waits for this thread or the process.
fn take_waiting() -> Option<siginfo_t> {
    let (set, now) = (u64::MAX, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    let mut info = MaybeUninit::<siginfo_t>::zeroed();
    let args = [&raw const set as usize, info.as_mut_ptr() as usize, &raw const now as usize, SET, 0, 0];
    // SAFETY: reads a set of that size and a time, writes `info`, which is zeros before.
    unsafe { (raw::syscall(libc::SYS_rt_sigtimedwait, args) > 0).then(|| info.assume_init()) }
}

/// Sent by another process, or by the terminal: not by this program, its timers or files.
fn is_from_outside(info: &siginfo_t) -> bool {
    match info.si_code {
        // SAFETY: signals of these kinds have a sender.
        libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL => unsafe {
            info.si_pid() != std::process::id() as i32
        },
        libc::SI_KERNEL => ![libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF].contains(&info.si_signo),
        _ => false,
    }
}

/// Sends it to this process (rt_sigqueueinfo(2) allows that with whatever it holds).
fn queue(info: &siginfo_t) {
    let args =
        [std::process::id() as usize, info.si_signo as usize, std::ptr::from_ref(info) as usize, 0, 0, 0];
    // SAFETY: reads `info`.
    unsafe { raw::syscall(libc::SYS_rt_sigqueueinfo, args) };
}
