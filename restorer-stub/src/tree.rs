//! Who becomes the program: the exec'd process itself (`new`), a child with the old id (`same`), or
//! a child with the old id in a new pid namespace (`ns`); and who traces it.

use crate::args::PidMode;
use crate::ctx::{self, Ctx, Mode};
use crate::family::{self, fork_begun};
use crate::mem::{lazy, own};
use crate::report::{self, Error, On, Result, fail, note, say};
use crate::restore::become_program;
use crate::shared::Step;
use crate::supervisor::Helper;
use crate::sys::process::{self, Wait};
use crate::sys::{CPath, Decimal, Errno, Fd, fd, signal, thread};
use crate::tracer::Outcome;
use crate::{clock, creds, signals, supervisor, sysv, tracer, tracer_lazy};
use ckpt_format::task::task_flags;
use ckpt_format::thread::thread_flags;
use ckpt_format::{EXIT_RESTORE_FAILED, Image};
use core::sync::atomic::Ordering;
use linux_raw_sys::general::{
    __WALL, CLONE_FILES, CLONE_FS, CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, O_RDONLY, WNOHANG,
};
use linux_raw_sys::prctl::{PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG};

const SIGKILL: i32 = 9;
const SIGCHLD: i32 = 17;
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Mount flags (`linux/mount.h`).
const MS_NOSUID_NODEV_NOEXEC: u32 = 2 | 4 | 8;
const MS_REC_SLAVE: u32 = 1 << 14 | 1 << 19;

/// Restores as the options say.
pub fn run(ctx: &'static Ctx) -> ! {
    let failure = match ctx.options.pid {
        PidMode::New if !ctx.is_alone() => {
            Error::new("the image holds several processes, which know each other's ids")
                .remedy("use --pid same (as root) or --pid ns")
        }
        PidMode::New => in_place(ctx),
        PidMode::Same => same(ctx),
        PidMode::Ns => namespace(ctx),
        PidMode::Auto => auto(ctx),
    };
    fail(failure)
}

/// `same` where it is permitted and the ids are free; else `ns` for several threads, which know
/// each other's ids; else, and where namespaces are forbidden, in place.
fn auto(ctx: &'static Ctx) -> Error {
    if let Some(in_the_way) = sysv::foreign(ctx) {
        return in_the_way;
    }
    let why_not = same(ctx);
    note(format_args!("not with the same ids: {why_not}"));
    if !ctx.is_alone() {
        return match namespaces_work(ctx) {
            Ok(()) => namespace(ctx),
            Err(e) => {
                say(format_args!("{why_not}"));
                e.remedy("its processes know each other's ids, so it needs them back: run it as root or allow user namespaces")
            }
        };
    }
    // In place it may be a group leader, which cannot start a session.
    let has_terminal = ctx.image.tasks.iter().any(|t| t.flags & task_flags::CTTY_INSIDE != 0);
    // Other ids would have to be looked for in all of its memory.
    let at_once = ctx.options.is_at_once();
    let own_clocks = ctx.options.time_namespace;
    if ctx.image.threads.len() > 1 || sysv::is_needed(ctx) || has_terminal || at_once || own_clocks {
        match namespaces_work(ctx) {
            Ok(()) => return namespace(ctx),
            // Go and others keep ids that nobody knows how to correct.
            Err(e) if !ids_are_known(ctx) => {
                return e.remedy(
                    "its threads know each other's ids, so it needs them back: run it as root or allow user \
                     namespaces; --pid new takes the risk",
                );
            }
            Err(e) => note(format_args!("not in a namespace: {e}")),
        }
    }
    in_place(ctx)
}

/// Whether the places of all threads' ids in memory are known (glibc, musl).
fn ids_are_known(ctx: &Ctx) -> bool {
    ctx.image.threads.iter().all(|t| t.flags & (thread_flags::LIBC_GLIBC | thread_flags::LIBC_MUSL) != 0)
}

fn check_creds(ctx: &Ctx, in_user_ns: bool) -> Result<()> {
    for t in ctx.image.threads {
        creds::check(ctx, Image::get(ctx.image.creds, t.creds, "credentials")?, in_user_ns)?;
    }
    Ok(())
}

/// In place. The tracer is a grandchild, so that the program has no child that it did not make.
fn in_place(ctx: &'static Ctx) -> Error {
    match try_in_place(ctx) {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

fn try_in_place(ctx: &'static Ctx) -> Result<core::convert::Infallible> {
    check_creds(ctx, false)?;
    sysv::check(ctx)?;
    clock::enter(ctx)?;
    ctx.set_mode(Mode::New);
    lazy::decide(ctx, Mode::New);
    note(format_args!("restoring in place, as process {}", process::getpid()));
    let failed = Error::os("cannot start the tracer");
    // Before there is a tracer, which waits for our word.
    ctx.own()?.own()?;
    // It only makes the tracer, which gets a copy of the memory: that one copy is enough.
    let stack = ctx.work.stack(BETWEEN_STACK)?;
    let between = thread::spawn(stack, CLONE_FILES | CLONE_FS, None, make_tracer, ctx, 0).map_err(&failed)?;
    match process::wait(between, __WALL).map_err(&failed)? {
        Some((_, Wait::Exited(0))) => become_program(ctx),
        Some((_, Wait::Exited(e))) => {
            Err(failed(Errno(e)).remedy("raise the limit of processes (ulimit -u)"))
        }
        _ => Err(Error::new("somebody killed the tracer")),
    }
}

/// Bytes of the stack of the process between the program and its tracer.
const BETWEEN_STACK: usize = 64 << 10;

/// The process between the program and its tracer, in the program's memory.
fn make_tracer(ctx: &'static Ctx, _: usize) -> ! {
    match fork_begun(0, 0, None, || ctx.shared.own_tracer()) {
        Ok(0) => helper(ctx),
        Ok(_) => process::exit_group(0),
        Err(e) => process::exit_group(e.0),
    }
}

/// The tracer of a program that is restored in place.
fn helper(ctx: &'static Ctx) -> ! {
    close_unneeded(ctx);
    match tracer::run(ctx) {
        Ok(_) => process::exit_group(0),
        Err(e) => {
            // The stub may be there still: the program ends by itself, with the status of a failed restore.
            ctx.shared.give_up();
            fail(e)
        }
    }
}

/// Before a restore is traced: closes what is not needed any more. Every descriptor would keep pipes and
/// terminals open that the program has closed.
fn close_unneeded(ctx: &Ctx) {
    close_all_but_messages(ctx.shared.is_lazy().then_some(ctx.image_fd));
}

fn close_all_but_messages(and: Option<Fd>) {
    let mut keep = [and.map(|fd| fd.0 as u32), None, None];
    for (slot, messages) in keep.iter_mut().skip(1).zip(report::descriptors()) {
        *slot = Some(messages);
    }
    keep.sort_unstable();
    let mut first = 0;
    for keep in keep.into_iter().flatten() {
        let _ = keep.checked_sub(1).map(|last| fd::close_range(first, last));
        first = keep + 1;
    }
    let _ = fd::close_range(first, u32::MAX);
}

/// When the program runs: nothing is said any more, unless its memory is still being filled.
fn close_rest(ctx: &Ctx) {
    if tracer_lazy::is_at_work(ctx) {
        return close_all_but_messages(None);
    }
    let _ = fd::close_range(0, u32::MAX);
    report::end();
}

/// Traces the restore, in a process of its own where that has to go on when the program runs.
fn trace(ctx: &'static Ctx) -> Result<Outcome> {
    if ctx.shared.is_lazy() {
        return tracer_lazy::run_apart(ctx);
    }
    ctx.shared.own_tracer()?;
    tracer::run(ctx)
}

/// With the same ids, in the present pid namespace.
fn same(ctx: &'static Ctx) -> Error {
    match try_same(ctx) {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

fn try_same(ctx: &'static Ctx) -> Result<core::convert::Infallible> {
    check_creds(ctx, false)?;
    ids_are_free(ctx)?;
    sysv::check(ctx)?;
    clock::for_children(ctx)?;
    lazy::decide(ctx, Mode::Same);
    ctx.shared.own_supervisor()?;
    if !ctx.is_alone() {
        // Whatever loses its parent while a restore fails comes to us, to be ended.
        process::prctl(PR_SET_CHILD_SUBREAPER, 1, 0).map_err(Error::os("cannot become a subreaper"))?;
    }
    let program = fork_program(ctx, Mode::Same)?;
    note(format_args!("restoring with the same ids: process {program}"));
    close_unneeded(ctx);
    match own::unmap_all(&ctx.config).and_then(|()| trace(ctx)) {
        Ok(Outcome::Running) => {}
        Ok(Outcome::Failed) => {
            let _ = process::kill(program, SIGKILL);
            family::destroy(ctx, program);
            process::exit_group(EXIT_RESTORE_FAILED);
        }
        Ok(Outcome::Lost(index)) => {
            let status = family::destroy(ctx, program);
            supervisor::lost(ctx, index, status)
        }
        Err(e) => {
            report::say(format_args!("{e}"));
            let _ = process::kill(program, SIGKILL);
            family::destroy(ctx, program);
            process::exit_group(EXIT_RESTORE_FAILED);
        }
    }
    close_rest(ctx);
    let guarding = process::fork(0, None).ok();
    if guarding == Some(0) {
        guard(ctx, program);
    }
    supervise(ctx, program, guarding, Helper::Guard)
}

/// No id of the image means another process here.
fn ids_are_free(ctx: &Ctx) -> Result<()> {
    let threads = ctx.image.threads.iter().map(|t| t.tid);
    let tasks = ctx.image.tasks.iter().filter(|t| ctx::is_brief(t)).map(|t| t.pid);
    let mut patience = ZOMBIE_PATIENCE_MS;
    for id in threads.chain(tasks) {
        while process::kill(id, 0) != Err(Errno::ESRCH) {
            // Killed a moment ago, and adopted by an init that takes its time.
            let is_zombie = supervisor::state_of(id) == Some(b'Z');
            if !is_zombie || patience == 0 {
                let what = if is_zombie { "the id is in use: zombie" } else { "the id is in use: process" };
                return Err(Error::new(what)
                    .on(On::Process(id, name_of(ctx, id)))
                    .remedy("end it (perhaps it is the one that was dumped), or use --pid ns"));
            }
            process::sleep_ms(1);
            patience -= 1;
        }
    }
    Ok(())
}

/// How long is waited, in all, for zombies that have the ids of the image.
const ZOMBIE_PATIENCE_MS: u32 = 3000;

/// Name of a process of this machine; empty if it cannot be known.
pub fn name_of(ctx: &Ctx, id: i32) -> &'static [u8] {
    let read = || {
        let path = CPath::concat(&[b"/proc/", Decimal::new(id as u64).as_bytes(), b"/comm"]).ok()?;
        let file = fd::open_at(Fd::CWD, &path, O_RDONLY, 0).ok()?;
        let name = ctx.work.slice::<u8>(32).ok()?;
        let len = fd::read(file, name).unwrap_or(0);
        fd::close(file);
        Some(name[..len].trim_ascii_end())
    };
    read().unwrap_or(b"")
}

/// Kills the program when the supervisor is killed, as `kill -9` of a job is meant. PR_SET_PDEATHSIG
/// would do it without a process, but the program can see that one, and it has its own.
fn guard(ctx: &Ctx, program: i32) -> ! {
    let _ = fd::close_range(0, u32::MAX);
    if let Ok(program) = process::pidfd_open(program) {
        ctx.shared.wait_for_tracer_end();
        let _ = process::pidfd_kill(program, SIGKILL);
    }
    process::exit_group(0)
}

/// Creates the child with the saved id, which becomes the program. SIGCHLD must not be ignored here.
fn fork_program(ctx: &'static Ctx, mode: Mode) -> Result<i32> {
    signals::reset(SIGCHLD);
    ctx.set_mode(mode);
    let root = ctx.root()?;
    let child = fork_begun(SIGCHLD as u32, 0, Some(root.pid), || {
        // Until the thread gets its own value, at the end; then the tracer's word says it.
        ctx.shared.end_with_supervisor();
        ctx.own()?.own()
    })
    .map_err(|e| family::cannot_make(e, root.pid))?;
    if child == 0 {
        become_program(ctx);
    }
    Ok(child)
}

/// In a new pid namespace: without privileges also in a new user namespace, which grants them.
fn namespace(ctx: &'static Ctx) -> Error {
    match try_namespace(ctx) {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

/// Enters namespaces. Only children are in the pid namespace.
fn unshare(ctx: &Ctx) -> Result<()> {
    let forbidden = |e| {
        Error::os("cannot create a pid namespace")(e).remedy(
            "user namespaces must be allowed (user.max_user_namespaces, kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns): use --pid new",
        )
    };
    let ipc = if sysv::is_needed(ctx) { CLONE_NEWIPC } else { 0 };
    if process::caps().effective & CAP_SYS_ADMIN != 0
        && process::unshare(CLONE_NEWPID | CLONE_NEWNS | ipc).is_ok()
    {
        check_creds(ctx, false)?;
        clock::for_children(ctx)?;
        // Else the new /proc would show up outside.
        return fd::mount(b"none", b"/", b"none", MS_REC_SLAVE)
            .map_err(Error::os("cannot make mounts private"));
    }
    check_creds(ctx, true)?;
    process::unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | ipc).map_err(forbidden)?;
    let map = |path: &[u8], id: u32| {
        let id = Decimal::new(u64::from(id));
        let line = CPath::concat(&[id.as_bytes(), b" ", id.as_bytes(), b" 1"])?;
        fd::write_file(path, line.as_bytes())
    };
    // Absent before Linux 3.19 only; denied is what gid_map asks for.
    let _ = fd::write_file(b"/proc/self/setgroups", b"deny");
    map(b"/proc/self/uid_map", ctx.caller.uids[1])
        .and_then(|()| map(b"/proc/self/gid_map", ctx.caller.gids[1]))
        .map_err(|e| {
            Error::os("cannot map ids into the user namespace")(e).remedy("mount /proc, or use --pid new")
        })?;
    // In that namespace everything is permitted.
    clock::for_children(ctx)
}

/// Tries all that `namespace` needs in a child, so that `auto` can still go another way.
fn namespaces_work(ctx: &Ctx) -> Result<()> {
    let failed = Error::os("cannot create a pid namespace");
    let probe = process::fork(0, None).map_err(&failed)?;
    if probe == 0 {
        report::end();
        let ok = unshare(ctx).is_ok()
            && process::fork(0, Some(1))
                .inspect(|p| {
                    if *p == 0 {
                        process::exit_group(0);
                    }
                    let _ = process::wait(*p, __WALL);
                })
                .is_ok();
        process::exit_group(i32::from(!ok));
    }
    match process::wait(probe, __WALL).map_err(&failed)? {
        Some((_, Wait::Exited(0))) => Ok(()),
        _ => Err(failed(Errno::EPERM)),
    }
}

fn try_namespace(ctx: &'static Ctx) -> Result<core::convert::Infallible> {
    unshare(ctx)?;
    lazy::decide(ctx, Mode::Ns);
    ctx.shared.own_supervisor()?;
    signals::reset(SIGCHLD);
    let init = process::fork(SIGCHLD as u32, None).map_err(Error::os("cannot start the namespace's init"))?;
    if init == 0 {
        run_init(ctx);
    }
    // Its child with the saved id must not come before it: the first one is process 1.
    if !ctx.shared.wait_for_tracer_of(init) {
        return Err(Error::new("somebody killed the namespace's init"));
    }
    let program = fork_program(ctx, Mode::Ns)?;
    note(format_args!("restoring in a pid namespace: process {program} outside of it"));
    close_unneeded(ctx);
    let _ = own::unmap_all(&ctx.config);
    supervise(ctx, program, Some(init), Helper::Init)
}

/// Stays in front of the program. Messages are still possible until it runs.
fn supervise(ctx: &Ctx, program: i32, helper: Option<i32>, kind: Helper) -> ! {
    supervisor::run(ctx, program, helper.map(|pid| (kind, pid)))
}

/// Process 1 of the namespace: mounts /proc, traces, then reaps orphans. Dies with the supervisor,
/// and everything in the namespace with it.
fn run_init(ctx: &'static Ctx) -> ! {
    ctx.shared.end_with_supervisor();
    process::set_name(b"ckpt-init\0\0\0\0\0\0\0");
    if let Err(e) = fd::mount(b"proc", b"/proc", b"proc", MS_NOSUID_NODEV_NOEXEC) {
        note(format_args!("/proc shows the ids outside of the namespace: {e}"));
    }
    close_unneeded(ctx);
    match trace(ctx) {
        Ok(Outcome::Running) => {}
        Ok(Outcome::Failed) => {
            ctx.shared.give_up();
            process::exit_group(EXIT_RESTORE_FAILED);
        }
        Ok(Outcome::Lost(index)) => {
            // The root's end the supervisor sees by itself.
            if index != ctx.image.header.root_task as usize {
                family::say_lost(ctx, index);
            }
            ctx.shared.give_up();
            process::exit_group(EXIT_RESTORE_FAILED);
        }
        Err(e) => {
            ctx.shared.explained.store(1, Ordering::SeqCst);
            fail(e);
        }
    }
    close_rest(ctx);
    let mut attached = true;
    loop {
        // All children that ended; then until the next SIGCHLD.
        let none_left = loop {
            match process::wait(-1, __WALL | WNOHANG) {
                Ok(Some((pid, status))) => drop(tracer_lazy::ended(ctx, pid, status)),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        if ctx.shared.detach.load(Ordering::SeqCst) != 0 {
            if none_left {
                process::exit_group(0);
            }
            if attached {
                // The program has ended, but has left others behind, as it may have at home.
                let _ = process::prctl(PR_SET_PDEATHSIG, 0, 0);
                ctx.shared.all_done(Step::Ready);
                attached = false;
            }
        }
        let _ = signal::wait_info(1 << (SIGCHLD - 1));
    }
}
