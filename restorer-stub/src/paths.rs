//! `--path OLD=NEW`: what was at or below a directory (or was a file) is looked for elsewhere, so that one
//! image serves for many instances.
//!
//! It concerns every path by which the image finds something: regular files, directories, FIFOs, devices,
//! mapped files, the executable, what had been deleted, watched files, names of unix sockets, working and
//! root directories. Not: `/proc/PID` of the program's own processes, terminals, and whatever the program
//! itself remembers.

use crate::args::Options;
use crate::ctx::Ctx;
use crate::mem::work::Work;
use crate::report::{Error, Result};
use crate::sys::{CPath, Errno};
use ckpt_format::fd::regular::{OpenFile, open_file_flags};
use ckpt_format::fd::socket::UnixSocket;
use ckpt_format::{Image, ObjectKind, Span};

/// One `--path`. Neither has a slash at its end, so that the root directory is empty.
#[derive(Clone, Copy)]
pub struct Renamed {
    pub old: &'static [u8],
    pub new: &'static [u8],
}

impl Renamed {
    pub fn parse(value: &'static [u8]) -> Result<Self> {
        let bad = Error::new("--path does not understand")
            .path(value)
            .remedy("use --path OLD=NEW with absolute paths");
        let at = value.iter().position(|b| *b == b'=').ok_or(bad)?;
        let trimmed = |mut path: &'static [u8]| {
            if path.first() != Some(&b'/') {
                return Err(bad);
            }
            while let Some(shorter) = path.strip_suffix(b"/") {
                path = shorter;
            }
            Ok(path)
        };
        Ok(Self { old: trimmed(&value[..at])?, new: trimmed(&value[at + 1..])? })
    }

    /// What of a path is below the old one.
    fn rest<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        path.strip_prefix(self.old).filter(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

/// The option that a path falls under: that with the longest OLD.
fn find<'a>(options: &Options, path: &'a [u8]) -> Option<(&'static [u8], &'a [u8])> {
    if path.first() != Some(&b'/') {
        return None;
    }
    let fitting = options.paths().iter().filter_map(|p| Some((p, p.rest(path)?)));
    fitting.max_by_key(|(p, _)| p.old.len()).map(|(p, rest)| match (p.new, rest) {
        (b"", b"") => (&b"/"[..], rest),
        // The root directory's own path is the slash that others begin with.
        (new, b"/") if !new.is_empty() => (new, &b""[..]),
        (new, rest) => (new, rest),
    })
}

/// A path as the caller wants it.
pub fn rename(options: &Options, path: &[u8]) -> crate::sys::Result<CPath> {
    match find(options, path) {
        Some((new, rest)) => CPath::concat(&[new, rest]),
        None => CPath::new(path),
    }
}

/// The same for each file of the image; `None` for those that stay.
pub fn of_files(
    work: &Work,
    image: &Image<'static>,
    options: &Options,
) -> Result<&'static [Option<&'static &'static [u8]>]> {
    if options.paths().is_empty() {
        return Ok(&[]);
    }
    let renamed = work.slice::<Option<&'static &'static [u8]>>(image.files.len())?;
    for (file, slot) in image.files.iter().zip(renamed.iter_mut()) {
        let path = image.blob(file.path)?;
        let Some((new, rest)) = named(file).then(|| find(options, path)).flatten() else { continue };
        if new.len() + rest.len() > CPath::MAX {
            return Err(Error::os("--path: cannot use")(Errno::ENAMETOOLONG).path(path));
        }
        let bytes = work.slice::<u8>(new.len() + rest.len())?;
        let (head, tail) = bytes.split_at_mut(new.len());
        head.copy_from_slice(new);
        tail.copy_from_slice(rest);
        *slot = Some(work.value(&*bytes)?);
    }
    Ok(renamed)
}

/// Whether the path of a file is one.
fn named(file: &ckpt_format::FileIdent) -> bool {
    use ckpt_format::file::file_flags::{ANON_SHARED, MEMFD, SYSV_SHM};
    file.path.len != 0 && file.flags & (MEMFD | ANON_SHARED | SYSV_SHM) == 0
}

/// Refuses an OLD that nothing of the image is at or below.
pub fn check(ctx: &Ctx) -> Result<()> {
    for renamed in ctx.options.paths() {
        let falls = |span: Span| ctx.image.blob(span).is_ok_and(|path| renamed.rest(path).is_some());
        let of_process = |index: usize| {
            let is_it = |o: &&ckpt_format::Object| o.kind == ObjectKind::File as u32;
            ctx.image.objects.iter().filter(is_it).any(|o| {
                ctx.image.payload::<OpenFile>(o.payload).is_ok_and(|f| {
                    const OF_PROCESS: u32 = open_file_flags::OF_PROCESS | open_file_flags::OPEN_LATE;
                    f.file as usize == index && f.flags & OF_PROCESS != 0
                })
            })
        };
        let mut files = ctx.image.files.iter().enumerate().filter(|(_, f)| named(f));
        let sockets = ctx.image.objects.iter().filter(|o| o.kind == ObjectKind::UnixSocket as u32);
        let mut sockets = sockets.filter_map(|o| ctx.image.payload::<UnixSocket>(o.payload).ok());
        let found = files.any(|(i, f)| falls(f.path) && !of_process(i))
            || ctx.image.fs_infos.iter().any(|fs| falls(fs.cwd) || falls(fs.root))
            || sockets.any(|s| falls(s.name) || falls(s.dir) || falls(s.remote));
        if !found {
            return Err(Error::new("--path: nothing that the saved program had open was at or below")
                .path(if renamed.old.is_empty() { b"/" } else { renamed.old })
                .remedy("see --info for the paths"));
        }
    }
    Ok(())
}
