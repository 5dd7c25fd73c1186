//! The process in front of a program that has its own id: forwards signals, stops and continues
//! with it, ends as it ended.

use crate::ctx::Ctx;
use crate::report::say;
use crate::signals;
use crate::sys::process::{self, Wait};
use crate::sys::signal;
use ckpt_format::EXIT_RESTORE_FAILED;
use core::sync::atomic::Ordering;
use linux_raw_sys::general::{__WALL, RLIMIT_CORE, WCONTINUED, WNOHANG, WUNTRACED};
use linux_raw_sys::prctl::PR_SET_DUMPABLE;

const SIGKILL: i32 = 9;
const SIGCHLD: i32 = 17;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

/// Runs until the program ends. All signals are blocked and taken one by one. `helper` is the
/// namespace's init, or the process that would kill the program if we were killed: it ends with the
/// program.
pub fn run(ctx: &Ctx, program: i32, helper: Option<i32>) -> ! {
    loop {
        while let Ok(Some((pid, status))) = process::wait(program, __WALL | WNOHANG | WUNTRACED | WCONTINUED)
        {
            if pid != program {
                continue;
            }
            if matches!(status, Wait::Exited(_) | Wait::Killed(_))
                && let Some(helper) = helper
            {
                let _ = process::kill(helper, SIGKILL);
                let _ = process::wait(helper, __WALL);
            }
            follow(ctx, program, status);
        }
        if let Ok(info) = signal::wait_info(u64::MAX) {
            forward(program, &info);
        }
    }
}

fn word(info: &[u8; 128], at: usize) -> i32 {
    i32::from_le_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]])
}

/// Signals that somebody sent to us are meant for the program. Those of the terminal (si_code
/// SI_KERNEL) went to the whole process group, which the program is in.
fn forward(program: i32, info: &[u8; 128]) {
    let (number, code) = (word(info, 0), word(info, 8));
    if number == SIGCHLD || code > 0 {
        return;
    }
    let _ = process::kill(program, number);
}

fn follow(ctx: &Ctx, program: i32, status: Wait) {
    let ran = ctx.shared.resumed.load(Ordering::SeqCst) != 0;
    match status {
        Wait::Exited(_) if !ran => process::exit_group(EXIT_RESTORE_FAILED),
        // SIGHUP, SIGINT, SIGQUIT, SIGTERM: somebody ended the restore, as they would any command.
        Wait::Killed(signal @ (1..=3 | 15)) if !ran => die_of(signal),
        Wait::Killed(_) if !ran && ctx.shared.explained.load(Ordering::SeqCst) != 0 => {
            process::exit_group(EXIT_RESTORE_FAILED)
        }
        Wait::Killed(signal) if !ran => {
            say(format_args!("the process was killed by signal {signal} while it was being restored"));
            process::exit_group(EXIT_RESTORE_FAILED)
        }
        Wait::Exited(status) => process::exit_group(status),
        Wait::Killed(signal) => die_of(signal),
        Wait::Stopped(..) => {
            // Returns when somebody continues us: the program goes on then, too. A shell's fg
            // sends SIGCONT to the whole group, that is to both.
            let _ = process::kill(process::getpid(), SIGSTOP);
            signal::discard(1 << (SIGCONT - 1));
            if !matches!(process::wait(program, __WALL | WNOHANG | WCONTINUED), Ok(Some(_))) {
                let _ = process::kill(program, SIGCONT);
            }
        }
        Wait::Continued => {}
    }
}

/// Ends by the same signal, without a second core dump.
fn die_of(number: i32) -> ! {
    let _ = process::setrlimit(RLIMIT_CORE, (0, 0));
    let _ = process::prctl(PR_SET_DUMPABLE, 0, 0);
    signals::reset(number);
    let _ = process::kill(process::getpid(), number);
    let _ = signal::set_mask(0);
    process::exit_group(128 + number)
}
