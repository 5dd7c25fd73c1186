//! What belongs to a process as a whole: limits, directories, personality, marks in /proc, the
//! addresses that /proc shows.

use crate::ctx::{Ctx, Mode};
use crate::report::{Error, On, Printable, Result, detail, note};
use crate::sys::{Decimal, Errno, fd, mm, process, signal};
use crate::{family, files, paths};
use ckpt_format::mm::mm_flags;
use ckpt_format::task::task_flags;
use ckpt_format::{Image, Mm, NONE, Task};
use linux_raw_sys::general::{O_RDONLY, RLIMIT_MEMLOCK, RLIMIT_NOFILE, RLIMIT_SIGPENDING};
use linux_raw_sys::prctl::{PR_SET_CHILD_SUBREAPER, PR_SET_MEMORY_MERGE, PR_SET_THP_DISABLE, prctl_mm_map};

/// Soft limits up to the hard ones, while the stub needs descriptors and locks memory.
pub fn raise_limits() {
    for resource in [RLIMIT_NOFILE, RLIMIT_MEMLOCK, RLIMIT_SIGPENDING] {
        if let Ok((soft, hard)) = process::getrlimit(resource)
            && soft < hard
        {
            let _ = process::setrlimit(resource, (hard, hard));
        }
    }
}

/// The program's limits. A hard limit is never raised: root may lack CAP_SYS_RESOURCE, and a user
/// may not anyway.
pub fn set_limits(task: &Task) -> Result<()> {
    for (&[soft, hard], resource) in task.rlimits.iter().zip(0..) {
        let (now_soft, now_hard) = process::getrlimit(resource).map_err(Error::os("cannot read limits"))?;
        let wanted = (soft.min(now_hard), hard.min(now_hard));
        if wanted != (soft, hard) {
            note(format_args!("limit {resource} stays at {now_hard}, {hard} is more than is allowed here"));
        }
        if wanted != (now_soft, now_hard) {
            process::setrlimit(resource, wanted)
                .map_err(|e| Error::os("cannot set limit")(e).on(On::Number(u64::from(resource))))?;
        }
    }
    Ok(())
}

/// Root, working directory, umask.
pub fn set_directories(ctx: &Ctx, task: &Task) -> Result<()> {
    let fs = Image::get(ctx.image.fs_infos, task.fs, "working directory")?;
    let saved = ctx.image.blob(fs.cwd)?;
    let rename = |path| paths::rename(&ctx.options, path);
    match ctx.options.chdir {
        Some(dir) => fd::chdir(dir).map_err(|e| Error::os("--chdir: cannot change to")(e).path(dir))?,
        None => {
            let changed = rename(saved).and_then(|dir| {
                detail(format_args!("working directory {}", Printable(dir.as_bytes())));
                fd::chdir(dir.as_bytes())
            });
            changed.map_err(|e| {
                Error::os("cannot change to the program's working directory")(e)
                    .path(saved)
                    .remedy("create it, or choose another with --chdir DIR or --path OLD=NEW")
            })?
        }
    }
    // Last: the working directory is known by the path that it has outside.
    let root = ctx.image.blob(fs.root)?;
    if !root.is_empty() && root != b"/" {
        rename(root).and_then(|root| fd::chroot(root.as_bytes())).map_err(|e| {
            Error::os("cannot change the root directory to")(e).path(root).remedy(
                "it needs CAP_SYS_CHROOT: run the image as root, or from inside of that root with chroot(8)",
            )
        })?;
    }
    fd::umask(fs.umask);
    Ok(())
}

/// PR_SET_MM_MAP: brk, arguments, environment, auxiliary vector; the exe link where permitted.
pub fn set_mm(ctx: &Ctx, mm: &Mm) -> Result<()> {
    let auxv = ctx.image.blob(mm.auxv)?;
    let mut map = prctl_mm_map {
        start_code: mm.start_code,
        end_code: mm.end_code,
        start_data: mm.start_data,
        end_data: mm.end_data,
        start_brk: mm.start_brk,
        brk: mm.brk,
        start_stack: mm.start_stack,
        arg_start: mm.arg_start,
        arg_end: mm.arg_end,
        env_start: mm.env_start,
        env_end: mm.env_end,
        auxv: auxv.as_ptr() as *mut u64,
        auxv_size: auxv.len() as u32,
        exe_fd: u32::MAX,
    };
    if let Some(exe) = open_exe(ctx, mm) {
        map.exe_fd = exe.0 as u32;
        let done = mm::set_mm_map(&map);
        fd::close(exe);
        match done {
            Ok(()) => return Ok(()),
            Err(e) => note(format_args!("/proc/PID/exe stays the image: {e}")),
        }
        map.exe_fd = u32::MAX;
    }
    mm::set_mm_map(&map).map_err(|e| {
        let error = Error::os("cannot set the program's memory layout (PR_SET_MM_MAP)")(e);
        match e {
            Errno::EINVAL => error.remedy("the limit of data (ulimit -d) may be too small, or the kernel lacks CONFIG_CHECKPOINT_RESTORE"),
            _ => error,
        }
    })
}

fn open_exe(ctx: &Ctx, mm: &Mm) -> Option<crate::sys::Fd> {
    if mm.exe == NONE {
        return None;
    }
    let file = files::get(ctx, mm.exe).ok()?;
    let fd = fd::open(files::path(ctx, file).ok()?, O_RDONLY, 0).ok()?;
    if files::is_recreated(file) || !files::is_identical(ctx, file, fd) {
        fd::close(fd);
        return None;
    }
    Some(fd)
}

/// Marks of the process: personality, THP, subreaper, OOM score, core dump filter.
pub fn set_marks(ctx: &Ctx, task: &Task, mm: &Mm) -> Result<()> {
    process::personality(task.personality).map_err(|e| {
        Error::os("cannot set the personality")(e).on(On::Number(u64::from(task.personality)))
    })?;
    if mm.flags & mm_flags::THP_DISABLE != 0 {
        const EXCEPT_ADVISED: u64 = 2;
        let mode = if mm.flags & mm_flags::THP_EXCEPT_ADVISED != 0 { EXCEPT_ADVISED } else { 0 };
        match process::prctl(PR_SET_THP_DISABLE, 1, mode) {
            Ok(_) => {}
            Err(e) if mode != 0 => note(format_args!("huge pages stay enabled where not advised: {e}")),
            Err(e) => return Err(Error::os("cannot disable huge pages")(e)),
        }
    }
    if mm.flags & mm_flags::MEMORY_MERGE != 0 {
        process::prctl(PR_SET_MEMORY_MERGE, 1, 0).map_err(Error::os("cannot have memory merged"))?;
    }
    for bit in mm_flags::MEMBARRIER_SHIFT..u32::BITS {
        // Commands that this kernel does not know fail in the program as they would have here.
        if mm.flags & (1 << bit) != 0 {
            let _ = process::membarrier(1 << (bit - mm_flags::MEMBARRIER_SHIFT));
        }
    }
    if task.flags & task_flags::CHILD_SUBREAPER != 0 {
        process::prctl(PR_SET_CHILD_SUBREAPER, 1, 0).map_err(Error::os("cannot become a subreaper"))?;
    }
    let later = task.flags & task_flags::CTTY_INSIDE == 0;
    if ctx.mode() == Mode::New && later && family::leads_session(task) && process::setsid().is_err() {
        // A shell may have made us a group leader already, which forbids it.
        note(format_args!("the program stays in the session of its caller"));
    }
    set_proc_marks(task, mm);
    Ok(())
}

/// Best effort: they need /proc, and lowering the OOM score CAP_SYS_RESOURCE.
fn set_proc_marks(task: &Task, mm: &Mm) {
    let mut text = [0u8; 24];
    let digits = Decimal::new(u64::from(task.oom_score_adj.unsigned_abs()));
    let digits = digits.as_bytes();
    let sign = usize::from(task.oom_score_adj < 0);
    text[0] = b'-';
    text[sign..sign + digits.len()].copy_from_slice(digits);
    // Only what differs: the OOM score adjustment of the caller is usually the same.
    let mut now = [0u8; 24];
    let path = b"/proc/self/oom_score_adj";
    let n = fd::open(path, O_RDONLY, 0).map_or(0, |f| {
        let n = fd::read(f, &mut now).unwrap_or(0);
        fd::close(f);
        n
    });
    let wanted = &text[..sign + digits.len()];
    if now[..n].trim_ascii() != wanted
        && let Err(e) = fd::write_file(path, wanted)
    {
        note(format_args!("oom_score_adj stays as it is here: {e}"));
    }
    if let Err(e) =
        fd::write_file(b"/proc/self/coredump_filter", Decimal::new(u64::from(mm.coredump_filter)).as_bytes())
    {
        note(format_args!("coredump_filter stays as it is here: {e}"));
    }
}

/// Stops the caller's own interval timers, which survive exec: the program has its own.
pub fn stop_timers() {
    for which in 0..3 {
        let _ = signal::set_itimer(which, &ckpt_format::Itimer::default());
    }
}
