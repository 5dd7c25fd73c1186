//! Going back.

use crate::images::{self, Found};
use crate::sys::lock;
use crate::{Error, Id, save, sys};
use std::collections::HashSet;
use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// Replaces the calling program by what it was at a checkpoint.
pub fn revert(id: Id) -> Result<Infallible, Error> {
    let _turn = lock::LONG.take().ok_or(Error::Busy)?;
    let found = images::find(id)?;
    let taken = taken_numbers(id, &found)?;
    in_the_way(id)?;
    let failed = || Error::os(format!("cannot run the image of checkpoint {id}"));
    let before = Descriptors::read().map_err(failed())?;
    let kept = keep(&taken, found.file.as_raw_fd()).map_err(failed())?;

    let mut args = vec![found.name.clone(), "--pid".into(), "new".into()];
    args.extend(kept.iter().map(|(_, fd)| format!("--keep-fd={fd}")));
    let args: Vec<CString> = args.into_iter().filter_map(|a| CString::new(a).ok()).collect();
    let was_subreaper = sys::is_subreaper();
    // What restores is an orphan for a moment, which must not become a child of the program.
    sys::set_subreaper(false);
    let error = match execute(found.file.as_raw_fd(), &args) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    sys::set_subreaper(was_subreaper);
    before.put_back(&kept);
    Err(failed()(error))
}

/// Descriptor numbers of the image.
fn taken_numbers(id: Id, found: &Found) -> Result<HashSet<RawFd>, Error> {
    let why = |e: ckpt_format::FormatError| Error::Replaced {
        id,
        path: found.name.clone().into(),
        why: e.to_string(),
    };
    let image = found.image.image().map_err(why)?;
    match image.tasks.len() {
        1 => Ok(image.fds.iter().map(|entry| entry.fd).collect()),
        several => Err(Error::SeveralProcesses(id, several)),
    }
}

/// What an exec does not end, and the past did not have.
fn in_the_way(id: Id) -> Result<(), Error> {
    let blocked = |what: &str| Err(Error::InTheWay { id, what: what.into() });
    if sys::has_children() {
        return blocked(
            "the process has children, of which what it was knows nothing; end them and wait for them first",
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let seccomp = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    if seccomp.is_some_and(|mode| mode.trim() != "0") {
        return blocked("seccomp filters are in force, which would also bind what it was");
    }
    Ok(())
}

/// execve(2), patiently: the ckpt-dump that wrote the image may not have closed it yet.
fn execute(file: RawFd, args: &[CString]) -> io::Result<Infallible> {
    let env = save::environment();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let error = match sys::exec::replace(file, args, &env) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        if error.raw_os_error() != Some(libc::ETXTBSY) || Instant::now() > deadline {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Gives the images in memory numbers that are not the program's, and that are passed on; all other descriptors
/// beyond the standard streams end with the program. Returns the former numbers, too. `besides` is our own
/// duplicate of one.
fn keep(taken: &HashSet<RawFd>, besides: RawFd) -> io::Result<Vec<(RawFd, RawFd)>> {
    let mut kept = Vec::new();
    let mut all = images::in_memory();
    all.retain(|(_, number)| *number != besides);
    all.dedup_by_key(|(id, _)| *id);
    for (_, number) in all {
        let mut free = number;
        while taken.contains(&free) || (free != number && kept.iter().any(|(_, other)| *other == free)) {
            free = next_free(number, free + 1)?;
        }
        kept.push((number, free));
    }
    sys::fd::set_cloexec_from(3)?;
    kept.iter().try_for_each(|(_, fd)| sys::fd::set_cloexec(*fd, false))?;
    Ok(kept)
}

/// A duplicate at a number from `min` on, which stays.
fn next_free(number: RawFd, min: RawFd) -> io::Result<RawFd> {
    use std::os::fd::IntoRawFd;
    Ok(sys::fd::duplicate_above(number, min)?.into_raw_fd())
}

/// Which descriptors were closed on exec.
struct Descriptors(Vec<(RawFd, bool)>);

impl Descriptors {
    fn read() -> io::Result<Self> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir("/proc/self/fd")? {
            let number = entry?.file_name().to_str().and_then(|n| n.parse::<RawFd>().ok());
            // That of the directory is closed by then.
            if let Some(number) = number
                && let Ok(cloexec) = sys::fd::cloexec(number)
            {
                all.push((number, cloexec));
            }
        }
        Ok(Self(all))
    }

    /// The program runs on.
    fn put_back(&self, kept: &[(RawFd, RawFd)]) {
        for (number, free) in kept {
            if number != free {
                sys::fd::close_kept(*free);
            }
        }
        for (number, cloexec) in &self.0 {
            let _ = sys::fd::set_cloexec(*number, *cloexec);
        }
    }
}
