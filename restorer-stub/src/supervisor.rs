//! The process in front of a program that has its own id: forwards signals, stops and continues
//! with it, ends as it ended.

use crate::ctx::{Ctx, Mode};
use crate::report::say;
use crate::shared::Said;
use crate::sys::process::{self, Wait};
use crate::sys::{CPath, Decimal, Errno, Fd, fd, object, signal};
use crate::{family, signals, tracer_lazy};
use ckpt_format::EXIT_RESTORE_FAILED;
use core::sync::atomic::Ordering;
use linux_raw_sys::general::{
    __WALL, O_NONBLOCK, O_RDONLY, O_RDWR, RLIMIT_CORE, WCONTINUED, WNOHANG, WUNTRACED,
};
use linux_raw_sys::prctl::PR_SET_DUMPABLE;

const SIGKILL: i32 = 9;
const SIGCHLD: i32 = 17;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

/// The process beside the supervisor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Helper {
    /// It would kill the program if we were killed.
    Guard,
    /// Process 1 of the namespace.
    Init,
}

/// Runs until the program ends. All signals are blocked and taken one by one.
pub fn run(ctx: &Ctx, program: i32, helper: Option<(Helper, i32)>) -> ! {
    loop {
        if ctx.mode() == Mode::Same && tracer_lazy::reap(ctx, WNOHANG) {
            let _ = process::kill(program, SIGKILL);
        }
        while let Ok(Some((pid, status))) = process::wait(program, __WALL | WNOHANG | WUNTRACED | WCONTINUED)
        {
            let mut news = (pid == program).then_some(status);
            while let Some(status) = news {
                if matches!(status, Wait::Exited(_) | Wait::Killed(_)) {
                    if ctx.mode() == Mode::Same {
                        // It ends with the program, or has taken it with it.
                        tracer_lazy::reap(ctx, 0);
                    }
                    dismiss(ctx, helper);
                    if ctx.lends_terminal {
                        family::bring_to_foreground(ctx.callers_group);
                    }
                }
                news = follow(ctx, program, status);
            }
        }
        if let Ok(info) = signal::wait_info(u64::MAX) {
            forward(ctx, program, &info);
        }
    }
}

/// The helper ends with the program, except that the init stays with those that the program has left
/// behind. (Of a restore that failed nothing stays.)
fn dismiss(ctx: &Ctx, helper: Option<(Helper, i32)>) {
    let Some((kind, pid)) = helper else { return };
    if kind == Helper::Init && ctx.shared.resumed.load(Ordering::SeqCst) != 0 {
        ctx.shared.detach.store(1, Ordering::SeqCst);
        let _ = process::kill(pid, SIGCHLD);
        if ctx.shared.wait_for_tracer_end() == Said::Done {
            return;
        }
    }
    let _ = process::kill(pid, SIGKILL);
    let _ = process::wait(pid, __WALL);
}

/// The restore failed because a task ended, as has everything else by now. Ends as the root did.
pub fn lost(ctx: &Ctx, index: usize, status: Option<Wait>) -> ! {
    if index == ctx.image.header.root_task as usize
        && let Some(status) = status
    {
        let _ = follow(ctx, 0, status);
    }
    family::say_lost(ctx, index);
    process::exit_group(EXIT_RESTORE_FAILED)
}

fn word(info: &[u8; 128], at: usize) -> i32 {
    i32::from_le_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]])
}

/// Signals that somebody sent to us are meant for the program. Those of the terminal (si_code
/// SI_KERNEL) went to the whole process group, which the program is in, unless it leads its own.
fn forward(ctx: &Ctx, program: i32, info: &[u8; 128]) {
    let (number, code) = (word(info, 0), word(info, 8));
    if number == SIGCHLD || code > 0 && !is_apart(ctx, program) {
        return;
    }
    // kill(0, ...) by one of the program's processes: the program has got its own.
    if code <= 0 && descends_from(ctx, word(info, 16), program) {
        return;
    }
    let _ = process::kill(program, number);
}

/// Whether a process is the program or below it. One that is gone is taken for another's, as the kill(1)
/// command is when we look.
fn descends_from(ctx: &Ctx, pid: i32, program: i32) -> bool {
    // From inside of a pid namespace it is the id there (kernel/signal.c, send_signal_locked()).
    let saved = ctx.mode() == Mode::Ns && ctx.image.tasks.iter().any(|t| t.pid == pid);
    if saved && process::kill(pid, 0) == Err(Errno::ESRCH) {
        return true;
    }
    let mut at = pid;
    // No tree is deeper than there are processes in the image, or made since.
    for _ in 0..ctx.image.tasks.len() + 64 {
        if at == program || at <= 1 {
            break;
        }
        at = parent_of(at).unwrap_or(0);
    }
    at == program
}

fn parent_of(pid: i32) -> Option<i32> {
    let mut text = [0u8; 256];
    core::str::from_utf8(field(&mut text, pid, 1)?).ok()?.parse().ok()
}

/// State letter of a process.
pub fn state_of(pid: i32) -> Option<u8> {
    let mut text = [0u8; 256];
    field(&mut text, pid, 0)?.first().copied()
}

/// A field of `/proc/PID/stat`, counted from the one behind the name, which may hold anything.
fn field(text: &mut [u8; 256], pid: i32, index: usize) -> Option<&[u8]> {
    let path = CPath::concat(&[b"/proc/", Decimal::new(pid as u64).as_bytes(), b"/stat"]).ok()?;
    let file = fd::open_at(Fd::CWD, &path, O_RDONLY, 0).ok()?;
    let len = fd::read(file, text).unwrap_or(0);
    fd::close(file);
    let text = &text[..len];
    let rest = text.get(text.iter().rposition(|b| *b == b')')? + 1..)?;
    rest.split(|b| *b == b' ').filter(|f| !f.is_empty()).nth(index)
}

/// Whether the program is in another process group than we are.
fn is_apart(ctx: &Ctx, program: i32) -> bool {
    process::getpgid(program).is_ok_and(|group| group != ctx.callers_group)
}

/// Does as the program did. What it has done meanwhile, if that was seen.
fn follow(ctx: &Ctx, program: i32, status: Wait) -> Option<Wait> {
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
            let terminal = Terminal::lend(ctx, program);
            // Returns when somebody continues us: the program goes on then, too. A shell's fg
            // sends SIGCONT to the whole group, that is to both if they are in the same.
            let _ = process::kill(process::getpid(), SIGSTOP);
            signal::discard(1 << (SIGCONT - 1));
            terminal.into_iter().for_each(Terminal::take_up);
            if is_apart(ctx, program) {
                let _ = process::getpgid(program).and_then(|group| process::kill(-group, SIGCONT));
            } else {
                // It may have stopped again since, or ended.
                match process::wait(program, __WALL | WNOHANG | WUNTRACED | WCONTINUED) {
                    Ok(Some((_, status))) => return Some(status),
                    _ => drop(process::kill(program, SIGCONT)),
                }
            }
        }
        Wait::Continued => {}
    }
    None
}

/// The terminal of a program that leads its own process group, while it is stopped: the shell sees and
/// moves our group only.
struct Terminal {
    fd: Fd,
    /// The program's group that was in the foreground.
    group: i32,
}

impl Terminal {
    fn lend(ctx: &Ctx, program: i32) -> Option<Self> {
        if !is_apart(ctx, program) {
            return None;
        }
        let fd = fd::open(b"/dev/tty", O_RDWR | O_NONBLOCK, 0).ok()?;
        match object::foreground(fd) {
            Ok(group) if group != ctx.callers_group => Some(Self { fd, group }),
            _ => {
                fd::close(fd);
                None
            }
        }
    }

    /// If we are in the foreground, the program's group was meant.
    fn take_up(self) {
        if object::foreground(self.fd) == Ok(object::own_group()) {
            let _ = object::set_foreground(self.fd, self.group);
        }
        fd::close(self.fd);
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
