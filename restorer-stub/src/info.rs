//! `--info`: what is saved in this image, in short. ckpt-info tells all of it.

use crate::ctx::Ctx;
use crate::files;
use crate::objects::inet_address;
use crate::paths;
use crate::report::{Printable, print};
use crate::sys::Fd;
use ckpt_format::fd::regular::{Inherited, OpenFile};
use ckpt_format::fd::socket::{InetSocket, UnixSocket, socket_state};
use ckpt_format::fd::{pipe::Pipe, tty::Tty};
use ckpt_format::task::task_flags;
use ckpt_format::words::Utc;
use ckpt_format::{Image, NONE, ObjectKind, Range, Span, Task, Vma};
use core::fmt;

fn blob(ctx: &Ctx, span: Span) -> Printable<'static> {
    Printable(ctx.image.blob(span).unwrap_or(b"?"))
}

/// Prints to standard output.
fn out(args: fmt::Arguments<'_>) {
    print(Fd(1), args);
}

/// A number and what is counted.
struct Count(usize, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = match (self.0, self.1.as_bytes().last()) {
            (1, _) => "",
            (_, Some(b's')) => "es",
            _ => "s",
        };
        write!(f, "{} {}{plural}", self.0, self.1)
    }
}

/// What, when, where.
pub fn summary(ctx: &Ctx) {
    let h = ctx.image.header;
    let processes = ctx.image.tasks.iter().filter(|t| !is_helper(t)).count();
    out(format_args!(
        "Program:  {}\nCommand:  {}\nSaved:    {} by ckpt-dump {}\nHost:     {}\nKernel:   {}\n\
         Contents: {}, {}, {} of memory\n",
        blob(ctx, h.program),
        blob(ctx, h.command),
        Utc(h.time_realtime / 1_000_000_000),
        blob(ctx, h.dumper),
        blob(ctx, h.host),
        blob(ctx, h.kernel),
        Count(processes, "process"),
        Count(ctx.image.threads.len(), "thread"),
        Size(h.stored_bytes),
    ));
}

/// What was saved, on one line.
pub struct Saved<'a>(pub &'a Ctx);

impl fmt::Display for Saved<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let h = self.0.image.header;
        write!(
            f,
            "{} ({}), saved {}",
            blob(self.0, h.program),
            blob(self.0, h.command),
            Utc(h.time_realtime / 1_000_000_000)
        )
    }
}

/// What is not in the image.
pub fn losses(ctx: &Ctx) {
    for loss in ctx.image.losses {
        out(format_args!("Not saved: {} (allowed as {})\n", blob(ctx, loss.text), blob(ctx, loss.kind)));
    }
}

/// A process by id and name.
pub struct Named<'a>(pub &'a Ctx, pub &'a Task);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(ctx, task) = self;
        let name = ctx.threads(task).map_or([0; 16], |t| t[0].name);
        write!(f, "{} {}", task.pid, Printable(until_nul(&name)))?;
        f.write_str(match task.flags {
            flags if flags & task_flags::ZOMBIE != 0 => "(has ended, not waited for yet)",
            flags if flags & task_flags::STOPPED != 0 => " (stopped)",
            _ => "",
        })
    }
}

fn until_nul(name: &[u8]) -> &[u8] {
    name.split(|b| *b == 0).next().unwrap_or(b"")
}

pub fn show(ctx: &Ctx) {
    summary(ctx);
    losses(ctx);
    let known = |pid: i32| ctx.image.tasks.iter().any(|t| t.pid == pid && !is_helper(t));
    for task in ctx.image.tasks.iter().filter(|t| !is_helper(t) && !known(t.ppid)) {
        tree(ctx, task, 0);
    }
    for (index, file) in ctx.image.files.iter().enumerate() {
        let is_mapped = ctx.image.vmas.iter().any(|v| v.file as usize == index);
        if is_mapped && !files::is_unnamed(file) {
            out(format_args!("Mapped:   {}\n", blob(ctx, file.path)));
        }
    }
}

fn is_helper(task: &Task) -> bool {
    task.flags & task_flags::HELPER != 0
}

/// As deep as the stack allows.
const MAX_DEPTH: usize = 100;

/// A process, and those below it.
#[inline(never)]
fn tree(ctx: &Ctx, task: &Task, depth: usize) {
    let pad = 2 * depth;
    out(format_args!("{:pad$}{}", "", Named(ctx, task)));
    if task.flags & task_flags::ZOMBIE == 0 {
        one(ctx, task, pad);
    } else {
        out(format_args!("\n"));
    }
    let is_child = |t: &&Task| t.ppid == task.pid && t.pid != task.pid && !is_helper(t);
    let mut children = ctx.image.tasks.iter().filter(is_child);
    if depth < MAX_DEPTH {
        children.for_each(|child| tree(ctx, child, depth + 1));
    } else if children.next().is_some() {
        out(format_args!("{:pad$}  ... (ckpt-info shows what is below)\n", ""));
    }
}

#[inline(never)]
fn one(ctx: &Ctx, task: &Task, pad: usize) {
    let vmas = ctx.mm(task).and_then(|mm| Ok(Image::slice(ctx.image.vmas, mm.vmas, "VMAs")?)).unwrap_or(&[]);
    let table = Image::get(ctx.image.fd_tables, task.fd_table, "descriptor table");
    let fds = table.and_then(|t| Image::slice(ctx.image.fds, t.fds, "descriptors")).unwrap_or(&[]);
    let cwd =
        Image::get(ctx.image.fs_infos, task.fs, "directory").map_or(Printable(b"?"), |fs| blob(ctx, fs.cwd));
    out(format_args!(
        ": {}, {} ({}, {} stored), {}, in {cwd}\n",
        Count(task.threads.count as usize, "thread"),
        Count(vmas.len(), "VMA"),
        Size(vmas.iter().map(|v| v.end.saturating_sub(v.start)).sum()),
        Size(vmas.iter().map(|v| stored(ctx, v)).sum()),
        Count(fds.len(), "descriptor"),
    ));
    for thread in ctx.threads(task).unwrap_or(&[]).iter().skip(1) {
        out(format_args!("{:pad$}  thread {} {}\n", "", thread.tid, Printable(until_nul(&thread.name))));
    }
    for entry in fds {
        out(format_args!("{:pad$}  fd {}: {}\n", "", entry.fd, What(ctx, entry.object)));
    }
}

fn stored(ctx: &Ctx, vma: &Vma) -> u64 {
    let of = |range: Range| Image::slice(ctx.image.extents, range, "extents").unwrap_or(&[]);
    of(vma.dirty).iter().chain(of(vma.embedded)).map(|e| e.len).sum()
}

/// An object: its kind and number, and by what the caller's options know it.
pub struct What<'a>(pub &'a Ctx, pub u32);

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ctx, image) = (self.0, &self.0.image);
        let Ok(object) = Image::get(image.objects, self.1, "object") else { return f.write_str("?") };
        let Some(kind) = ObjectKind::from_u32(object.kind) else { return f.write_str("?") };
        write!(f, "{kind:?} #{}", self.1)?;
        let at = object.payload;
        match kind {
            ObjectKind::File | ObjectKind::Memfd => {
                let file = image.payload::<OpenFile>(at).map_or(NONE, |o| o.file);
                write!(f, "{} at {}", File(ctx, file), object.offset)
            }
            ObjectKind::PipeEnd => {
                let pipe = Image::get(image.objects, object.inner, "pipe");
                let pipe = pipe.and_then(|p| image.payload::<Pipe>(p.payload));
                write!(f, " of #{}{}", object.inner, File(ctx, pipe.map_or(NONE, |p| p.file)))
            }
            ObjectKind::InetSocket => image.payload::<InetSocket>(at).map_or(Ok(()), |s| inet(f, s)),
            ObjectKind::UnixSocket => {
                let name = image.payload::<UnixSocket>(at).map(|s| s.name).unwrap_or_default();
                let name = image.blob(name).unwrap_or(b"");
                // Abstract names stay.
                match paths::rename(&ctx.options, name) {
                    Ok(path) => write!(f, " {}", Printable(path.as_bytes())),
                    Err(_) => write!(f, " {}", Printable(name)),
                }
            }
            ObjectKind::Inherited => {
                let was = image.payload::<Inherited>(at).map(|s| s.was);
                write!(f, ": the caller's; was {}", blob(ctx, was.unwrap_or_default()))
            }
            ObjectKind::Tty => {
                let was = image.payload::<Tty>(at).map(|s| s.path);
                write!(f, ": the caller's; was {}", blob(ctx, was.unwrap_or_default()))
            }
            _ => Ok(()),
        }
    }
}

fn inet(f: &mut fmt::Formatter<'_>, s: &InetSocket) -> fmt::Result {
    if s.local_len > 0 {
        write!(f, " {}", inet_address(&s.local, s.local_len))?;
    }
    if s.remote_len > 0 {
        write!(f, " to {}", inet_address(&s.remote, s.remote_len))?;
    }
    f.write_str(if s.state == socket_state::LISTENING { ", listening" } else { "" })
}

/// A file of the file table.
struct File<'a>(&'a Ctx, u32);

impl fmt::Display for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(file) = files::get(self.0, self.1) else { return Ok(()) };
        let gone = if files::is_recreated(file) { " (without a name)" } else { "" };
        write!(f, " {}{gone}", Printable(files::path(self.0, file).unwrap_or(b"?")))
    }
}

/// A number of bytes for people.
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 10 << 30 => write!(f, "{} GiB", n >> 30),
            n if n >= 10 << 20 => write!(f, "{} MiB", n >> 20),
            n => write!(f, "{} KiB", n.div_ceil(1024)),
        }
    }
}
