//! The processes of a tree: each makes those that it is the creator of, with their ids, and puts itself
//! into its session and process group. Zombies end here; helpers, too, when nobody needs them any more.

use crate::ctx::{Ctx, Mode, is_brief};
use crate::mem::start::on_empty_stack;
use crate::report::{Error, On, Result, note, say};
use crate::shared::{Said, Step};
use crate::sys::process::{self, Wait};
use crate::sys::{Errno, fd, object, signal};
use crate::{objects, signals};
use ckpt_format::task::task_flags;
use ckpt_format::{NONE, Task};
use core::sync::atomic::Ordering;
use linux_raw_sys::general::{
    __WALL, CLONE_FILES, CLONE_FS, O_NONBLOCK, O_RDWR, RLIMIT_CORE, WCONTINUED, WEXITED, WNOHANG, WNOWAIT,
    WSTOPPED, WUNTRACED,
};
use linux_raw_sys::prctl::{PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG};

const SIGKILL: i32 = 9;
const SIGCHLD: i32 = 17;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

/// fork(2), of which the parent returns when the child has done `first`: from then on its end is
/// noticed by its words. Until then by wait4(2), and the child stops to tell.
pub fn fork_begun(
    exit_signal: u32,
    share: u32,
    id: Option<i32>,
    first: impl FnOnce() -> Result<()>,
) -> crate::sys::Result<i32> {
    let child = process::fork_sharing(share, exit_signal, id)?;
    if child == 0 {
        match first() {
            Ok(()) => process::kill(process::getpid(), SIGSTOP)?,
            Err(e) => crate::report::fail(e),
        }
        return Ok(0);
    }
    begun(child).map(|()| child)
}

/// In a new process that is about to stop: nobody would let it go on if its maker died.
pub fn end_with(maker: i32) {
    let _ = process::prctl(PR_SET_PDEATHSIG, SIGKILL as u64, 0);
    if process::getppid() != maker {
        process::exit_group(ckpt_format::EXIT_RESTORE_FAILED);
    }
}

/// Waits until a new child stops to tell that it has begun, and lets it go on.
pub fn begun(child: i32) -> crate::sys::Result<()> {
    match process::wait(child, __WALL | WUNTRACED)? {
        Some((_, Wait::Stopped(..))) => {
            process::kill(child, SIGCONT)?;
            // Else the program would be told of it. Not by wait4(2), which reaps a child that has ended already.
            let _ = process::wait_peek(child, __WALL | WCONTINUED);
            Ok(())
        }
        _ => Err(Errno::ECHILD),
    }
}

/// Makes the processes below the calling one and waits until the tree is complete: every task in its
/// session and group, zombies dead, helpers gone. Returns in tasks that live.
pub fn grow(ctx: &'static Ctx) -> Result<()> {
    if ctx.is_alone() {
        let task = ctx.task()?;
        if ctx.mode() == Mode::New {
            return own_terminal_in_place(ctx, task);
        }
        own_session_and_group(ctx, task)?;
        return objects::bring_to_foreground(ctx, task);
    }
    let (task, own) = (ctx.task()?, ctx.own()?);
    if task.flags & task_flags::ADOPTS != 0 {
        process::prctl(PR_SET_CHILD_SUBREAPER, 1, 0).map_err(Error::os("cannot become a subreaper"))?;
    }
    make_children(ctx, task_flags::BEFORE_SETSID)?;
    own_session_and_group(ctx, task)?;
    make_children(ctx, 0)?;
    own.done(ctx.shared, Step::Created);
    join_group(ctx, task)?;
    own.done(ctx.shared, Step::Joined);
    objects::bring_to_foreground(ctx, task)?;
    if is_brief(task) {
        end(task);
    }
    bury(ctx, task)?;
    if task.flags & task_flags::ADOPTS != 0 {
        process::prctl(PR_SET_CHILD_SUBREAPER, 0, 0).map_err(Error::os("cannot cease to be a subreaper"))?;
    }
    Ok(())
}

/// As [`grow`], for a process that makes no others and comes when all groups have their leaders.
pub fn take_identity(ctx: &Ctx, task: &Task) -> Result<()> {
    own_session_and_group(ctx, task)?;
    join_group(ctx, task)
}

/// In place, a shell may have made the process a group leader already, which forbids setsid(2).
fn own_terminal_in_place(ctx: &Ctx, task: &Task) -> Result<()> {
    if task.flags & task_flags::CTTY_INSIDE == 0 || !leads_session(task) {
        return Ok(());
    }
    match process::setsid() {
        Ok(_) => objects::take_controlling(ctx, task),
        Err(e) => {
            note(format_args!("the terminal that the program provides is not its own controlling one: {e}"));
            Ok(())
        }
    }
}

/// Makes the children that belong before or after setsid(2), which `before` says.
fn make_children(ctx: &'static Ctx, before: u32) -> Result<()> {
    let here = ctx.index();
    for (index, task) in ctx.image.tasks.iter().enumerate() {
        // Those in an existing address space come when that is complete.
        let later = ctx.mm_owner(task).is_some_and(|owner| owner != index) && !is_brief(task);
        let mine = task.creator != NONE && task.creator as usize == here && !later;
        if mine && task.flags & task_flags::BEFORE_SETSID == before {
            make(ctx, index, task)?;
        }
    }
    Ok(())
}

fn make(ctx: &'static Ctx, index: usize, task: &'static Task) -> Result<()> {
    let maker = ctx.task()?;
    let shares = |a: u32, b: u32, flag: u32| if a == b && a != NONE { flag } else { 0 };
    let share = shares(task.fd_table, maker.fd_table, CLONE_FILES) | shares(task.fs, maker.fs, CLONE_FS);
    let exit_signal = if task.flags & task_flags::HELPER != 0 { 0 } else { task.exit_signal as u32 };
    let parent = process::getpid();
    let child = fork_begun(exit_signal, share, Some(task.pid), || {
        ctx.current.store(index as u32, Ordering::Relaxed);
        signals::block_all();
        end_with(parent);
        ctx.own()?.own()
    })
    .map_err(|e| cannot_make(e, task.pid))?;
    if child == 0 {
        // From now on it notices by the tracer's words.
        let _ = process::prctl(PR_SET_PDEATHSIG, 0, 0);
        on_empty_stack(ctx);
    }
    Ok(())
}

/// Why no process with that id could be made.
pub fn cannot_make(e: Errno, pid: i32) -> Error {
    let error = Error::os("cannot create a process with the id")(e).on(On::Pid(pid));
    match e {
        Errno::EPERM => error.remedy("it needs CAP_CHECKPOINT_RESTORE: use --pid ns or --pid new"),
        Errno::EEXIST => error.remedy("it is in use: use --pid ns or --pid new"),
        Errno::EAGAIN => error.remedy("raise the limit of processes (ulimit -u, cgroup pids.max)"),
        _ => error,
    }
}

/// Whether a task is at the head of a session that is made here.
pub fn leads_session(task: &Task) -> bool {
    let flags = task.flags;
    // With a terminal from outside the root stays in the session of whoever lends it one.
    let lent = flags & (task_flags::HAS_CTTY | task_flags::CTTY_INSIDE) == task_flags::HAS_CTTY;
    let lent = task.creator == NONE && lent;
    flags & task_flags::SESSION_LEADER != 0 && flags & task_flags::SESSION_OF_CALLER == 0 && !lent
}

/// Whether a task is at the head of a process group that is made here.
pub fn leads_group(task: &Task) -> bool {
    task.flags & task_flags::PGRP_LEADER != 0 && task.flags & task_flags::PGRP_OF_CALLER == 0
}

/// Whether the root is at the head of a group of its own in the caller's session, as a shell is that
/// runs jobs.
pub fn leads_job(root: &Task) -> bool {
    leads_group(root) && !leads_session(root)
}

/// Whether the calling process is in the foreground of its terminal.
pub fn in_foreground() -> bool {
    let Ok(terminal) = fd::open(b"/dev/tty", O_RDWR | O_NONBLOCK, 0) else { return false };
    let group = object::foreground(terminal);
    fd::close(terminal);
    group == Ok(object::own_group())
}

/// Brings a process group of the calling process's session to the foreground of its terminal.
pub fn bring_to_foreground(group: i32) {
    if let Ok(terminal) = fd::open(b"/dev/tty", O_RDWR | O_NONBLOCK, 0) {
        if let Err(e) = object::set_foreground(terminal, group) {
            note(format_args!("process group {group} cannot have the terminal: {e}"));
        }
        fd::close(terminal);
    }
}

/// In the root, when all have their groups: those who had the terminal have it again.
pub fn take_terminal(ctx: &Ctx, root: &Task) {
    if !ctx.lends_terminal || ctx.mode() == Mode::New {
        return;
    }
    let had = |t: &Task| t.pgid == root.tty_pgrp && t.flags & task_flags::PGRP_OF_CALLER == 0;
    let group = if ctx.image.tasks.iter().any(had) { root.tty_pgrp } else { root.pgid };
    bring_to_foreground(group);
}

fn own_session_and_group(ctx: &Ctx, task: &Task) -> Result<()> {
    if leads_session(task) {
        process::setsid().map_err(|e| Error::os("cannot start the session")(e).on(On::Pid(task.sid)))?;
        objects::take_controlling(ctx, task)?;
    } else if leads_group(task) {
        process::setpgid(0)
            .map_err(|e| Error::os("cannot start the process group")(e).on(On::Pid(task.pgid)))?;
    }
    Ok(())
}

/// Those who do not lead a group follow it, or stay in the one that they were born into.
fn join_group(ctx: &Ctx, task: &Task) -> Result<()> {
    let of_caller = task.flags & task_flags::PGRP_OF_CALLER != 0;
    let pgid = if of_caller { ctx.callers_group } else { task.pgid };
    let now = object::own_group();
    // A group outside of the pid namespace has the id 0.
    if leads_group(task) || leads_session(task) || now == pgid || of_caller && now == 0 {
        return Ok(());
    }
    process::setpgid(pgid).map_err(|e| Error::os("cannot join the process group")(e).on(On::Pid(task.pgid)))
}

/// Ends as the saved process had ended, or as a helper.
fn end(task: &Task) -> ! {
    let status = if task.flags & task_flags::HELPER != 0 { 0 } else { task.status };
    let killed = status & 0x7f;
    if killed == 0 {
        process::exit_group(status >> 8 & 0xff);
    }
    let _ = process::setrlimit(RLIMIT_CORE, (0, 0));
    signals::reset(killed);
    let _ = process::kill(process::getpid(), killed);
    signal::set_mask(0);
    process::exit_group(128 + killed)
}

/// Waits for the end of helpers and zombies that are children of the calling task: helpers are reaped,
/// zombies stay for the program.
fn bury(ctx: &Ctx, task: &Task) -> Result<()> {
    let failed = |e, pid| Error::os("cannot wait for process")(e).on(On::Pid(pid));
    // In this order those of whom something may be inherited come before what is.
    for (index, other) in ctx.image.tasks.iter().enumerate() {
        if other.flags & task_flags::HELPER != 0 && heir(ctx, index) == Some(ctx.index()) {
            process::wait(other.pid, __WALL).map_err(|e| failed(e, other.pid))?;
            ctx.forget(other.pid);
        } else if other.flags & task_flags::ZOMBIE != 0 && other.ppid == task.pid {
            process::wait_peek(other.pid, WEXITED | WNOWAIT | __WALL).map_err(|e| failed(e, other.pid))?;
        }
    }
    Ok(())
}

/// The living task that a helper is left to when those above it are gone.
fn heir(ctx: &Ctx, helper: usize) -> Option<usize> {
    let mut at = ctx.image.tasks.get(helper)?.creator as usize;
    while is_brief(ctx.image.tasks.get(at)?) {
        at = ctx.image.tasks[at].creator as usize;
    }
    Some(at)
}

/// Stops the children that had been stopped, when they are complete, and sees to it that the program
/// is told of it only if it had not been yet.
pub fn stop_children(ctx: &Ctx, task: &Task) -> Result<()> {
    for (index, child) in ctx.image.tasks.iter().enumerate() {
        let stopped = child.flags & task_flags::STOPPED != 0 && !is_brief(child);
        if !stopped || child.ppid != task.pid || child.creator == NONE {
            continue;
        }
        let shared = ctx.tasks.get(index).ok_or(Error::new("bad task index"))?;
        if shared.wait(Step::Ready) != Said::Done {
            return Err(Error::new("a process that was to be stopped has ended:").on(On::Pid(child.pid)));
        }
        let failed = |e| Error::os("cannot stop the process")(e).on(On::Pid(child.pid));
        process::kill(child.pid, SIGSTOP).map_err(failed)?;
        let keep = if child.flags & task_flags::STOP_REPORTED != 0 { 0 } else { WNOWAIT };
        process::wait_peek(child.pid, WSTOPPED | keep | __WALL).map_err(failed)?;
    }
    Ok(())
}

/// Drops what the making of the tree left pending: the ends and stops of children.
pub fn forget_signals(ctx: &Ctx) {
    if ctx.is_alone() {
        return;
    }
    let mut mask = 1u64 << (SIGCHLD - 1);
    for child in ctx.image.tasks {
        if let 1..=64 = child.exit_signal {
            mask |= 1 << (child.exit_signal - 1);
        }
    }
    for _ in ctx.image.tasks {
        signal::discard(mask);
    }
}

/// Says which task ended, unless one of them has said why.
pub fn say_lost(ctx: &Ctx, index: usize) {
    if ctx.shared.explained.swap(1, Ordering::SeqCst) == 0
        && let Some(task) = ctx.image.tasks.get(index)
    {
        say(format_args!("process {} was ended while it was being restored", task.pid));
    }
}

/// Ends everything that was made, in the supervisor, which adopts what loses its parent. Gives the
/// status of the root.
pub fn destroy(ctx: &Ctx, root: i32) -> Option<Wait> {
    ctx.shared.give_up();
    let mut status = None;
    loop {
        let begun = |index: usize| ctx.tasks.get(index).is_some_and(|t| t.begun.load(Ordering::SeqCst) != 0);
        for (index, task) in ctx.image.tasks.iter().enumerate() {
            // The root ends by itself, or has ended already: what it died of is worth knowing.
            if task.pid != root && begun(index) {
                let _ = process::kill(task.pid, SIGKILL);
            }
        }
        match process::wait(root, __WALL | WNOHANG) {
            Ok(Some((_, how))) => status = Some(how),
            Ok(None) => {
                let _ = process::kill(root, SIGKILL);
            }
            Err(_) => {}
        }
        match process::wait(-1, __WALL) {
            Ok(Some((pid, how))) if pid == root => status = Some(how),
            Ok(Some((pid, _))) => ctx.forget(pid),
            Ok(None) => {}
            Err(_) => return status,
        }
    }
}
