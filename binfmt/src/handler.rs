//! `ckpt-restore`: from the kernel's call, or one by hand, to the restorer.
//!
//! The image is executed neither then nor now: binfmt_misc would hand it to us again. What is executed is a
//! small program in memory, made of the built-in restorer and the image's metadata, that gets the image as an
//! open descriptor.

use crate::cli::RestoreOptions;
use crate::policy::{self, Policy};
use crate::sys::{self, Aux};
use anyhow::{Context, Result, bail};
use ckpt_format::{EXIT_RESTORE_FAILED, FormatError};
use ckpt_reader::{ImageFile, ReadError};
use clap::Parser;
use elf_writer::restorer::restorer;
use elf_writer::stub::Stub;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::AccessFlags;
use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What is to be restored, how it was called, and what is demanded of it.
struct Call {
    path: CString,
    /// What was executed, if the kernel has called us.
    image: Option<OwnedFd>,
    /// As the image is to see them, with its own name.
    argv: Vec<CString>,
    policies: Vec<Policy>,
}

/// Returns only if there is nothing to restore: the exit status.
pub fn run(args: &[CString], aux: Aux) -> i32 {
    let plugs = plug(aux.image);
    let result = plugs.and_then(|image| match image {
        Some(image) => called_by_kernel(args, image, aux.argv0),
        None => called_by_hand(args),
    });
    let Err(error) = result.and_then(restore);
    // As the restorer's own messages.
    eprintln!("ckpt: {error:#}");
    EXIT_RESTORE_FAILED
}

/// What we open must not get the numbers of standard streams that are closed: they stay so for the image.
/// Takes them until exec, and the image's descriptor out of the way.
fn plug(image: Option<OwnedFd>) -> Result<Option<OwnedFd>> {
    let move_up = |fd: OwnedFd| fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(3)).map(sys::owned);
    let image = image.map(move_up).transpose().context("cannot duplicate a descriptor")?;
    while let Some(_closed) = (0..3).find(|fd| !sys::is_open(*fd)) {
        // Without /dev in a chroot: anything that is there.
        let any = ["/dev/null", "/"]
            .into_iter()
            .find_map(|path| File::options().read(true).custom_flags(OFlag::O_PATH.bits()).open(path).ok());
        std::mem::forget(any.context("cannot open /")?);
    }
    Ok(image)
}

/// `[handler, path, own name of the image, its arguments...]`, the name with flag P only.
fn called_by_kernel(args: &[CString], image: OwnedFd, argv0: bool) -> Result<Call> {
    let path = args.get(1).context("called by the kernel without a path")?.clone();
    let mut argv = args[2..].to_vec();
    if !(argv0 || preserves_argv0_silently()) || argv.is_empty() {
        argv.insert(0, path.clone());
    }
    let policies = vec![policy::system()?];
    Ok(Call { path, image: Some(image), argv, policies })
}

/// Linux before 5.12 passes the name with flag P, which is how we are registered, but does not tell so.
fn preserves_argv0_silently() -> bool {
    let release = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned());
    let mut numbers = release.iter().flat_map(|r| r.split(['.', '-'])).map_while(|n| n.parse::<u32>().ok());
    (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(0)) < (5, 12)
}

fn called_by_hand(args: &[CString]) -> Result<Call> {
    let args = args.iter().map(|a| OsStr::from_bytes(a.to_bytes()));
    let options = RestoreOptions::parse_from(args);
    let [path, rest @ ..] = &options.image[..] else { bail!("no image given") };
    let text = |s: &OsStr| CString::new(s.as_bytes()).context("an argument with a NUL");
    let path = text(path)?;
    let mut argv = vec![path.clone()];
    for arg in rest {
        argv.push(text(arg)?);
    }
    let system = match &options.config {
        Some(file) => policy::read(file)?,
        None => policy::system()?,
    };
    Ok(Call { path, image: None, argv, policies: vec![system, options.policy()?] })
}

/// Does not return if all goes well.
fn restore(mut call: Call) -> Result<Infallible> {
    let path = call.path.clone();
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    let named = || path.display().to_string();
    let file = open(call.image.take(), path).with_context(named)?;
    lends_no_rights(&file).with_context(named)?;
    for policy in &call.policies {
        policy.check_file(&file, path).with_context(named)?;
    }
    let image = ImageFile::read(file).map_err(explain).with_context(named)?;
    if call.policies.iter().any(|p| p.verify) {
        image.verify(Err).with_context(named)?;
    }
    let stub = Stub::built_in()?;
    let elf =
        restorer(&image.image()?, image.region(), &stub, image.file().as_raw_fd(), call.path.to_bytes())
            .with_context(named)?;
    let program = program(&elf, path)?;
    fcntl(image.file(), FcntlArg::F_SETFD(FdFlag::empty())).context("cannot pass the image on")?;
    execute(&program, &call.argv)
}

/// The image; not if whoever calls may not read it, as when it restores itself.
fn open(image: Option<OwnedFd>, path: &Path) -> Result<File> {
    let remedy = "cannot open the image; make it readable";
    let Some(fd) = image else {
        return File::options().read(true).open(path).context(remedy);
    };
    let flags = AtFlags::AT_EMPTY_PATH | AtFlags::AT_EACCESS;
    match nix::unistd::faccessat(&fd, c"", AccessFlags::R_OK, flags) {
        // No faccessat2(2), before Linux 5.8: through /proc.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            File::open(format!("/proc/self/fd/{}", fd.as_raw_fd())).context(remedy)
        }
        Err(e) => Err(e).context(remedy),
        Ok(()) => Ok(fd.into()),
    }
}

/// An image with other rights than its caller's is refused, as by its own restorer.
fn lends_no_rights(file: &File) -> Result<()> {
    let stat = file.metadata().context("cannot stat the image")?;
    let other_user = stat.mode() & libc::S_ISUID != 0 && stat.uid() != nix::unistd::geteuid().as_raw();
    let group = libc::S_ISGID | libc::S_IXGRP;
    let other_group = stat.mode() & group == group && stat.gid() != nix::unistd::getegid().as_raw();
    if other_user || other_group {
        bail!("a set-user-ID or set-group-ID image is not run; take that from the file (chmod ug-s)");
    }
    Ok(())
}

fn explain(error: ReadError) -> anyhow::Error {
    let remedy = match &error {
        ReadError::Format(
            FormatError::Version(_)
            | FormatError::Newer(_)
            | FormatError::UnknownCritical(_)
            | FormatError::Compression(_),
        ) => {
            "; ckpt-restore is older than the image: update it, or let the image restore itself (ckpt-binfmt unregister)"
        }
        ReadError::Format(
            FormatError::Truncated { .. } | FormatError::Checksum(_) | FormatError::Reference(_),
        ) => "; copy or dump it again",
        _ => "",
    };
    anyhow::anyhow!("{error}{remedy}")
}

/// The restorer as a file that can be executed: in memory, under the image's name.
fn program(elf: &[u8], path: &Path) -> Result<File> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    // memfd_create(2) takes 249 bytes.
    let name = CString::new(&name[..name.len().min(200)]).context("a path with a NUL")?;
    // The limit of file sizes is meant for others, and exceeding it is a signal.
    let limit = getrlimit(Resource::RLIMIT_FSIZE).context("cannot read limits")?;
    let need = elf.len() as u64;
    if limit.1 < need {
        bail!(
            "the limit of file sizes (ulimit -f) is {} bytes; the restorer needs {need} in memory",
            limit.1
        );
    }
    setrlimit(Resource::RLIMIT_FSIZE, limit.0.max(need), limit.1).context("cannot set a limit")?;
    let write = |name: &CStr| {
        let mut file = sys::executable_memfd(name)?;
        file.write_all(elf).map(|()| file)
    };
    let written = write(&name);
    setrlimit(Resource::RLIMIT_FSIZE, limit.0, limit.1).context("cannot set a limit")?;
    written.context("cannot make the restorer in memory (does vm.memfd_noexec forbid it?)")
}

fn execute(program: &File, argv: &[CString]) -> Result<Infallible> {
    let env: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())
        .collect();
    nix::unistd::execveat(program.as_fd(), c"", argv, &env, AtFlags::AT_EMPTY_PATH)
        .context("cannot execute the restorer in memory")
}
