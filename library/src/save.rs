//! One checkpoint.

use crate::dumper::Found;
use crate::sys::lock;
use crate::sys::signals::Blocked;
use crate::sys::spawn::{Command, Helper, Program};
use crate::{Error, Outcome, dumper, hooks, images, sys};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Where the image goes.
#[derive(Clone, Copy, Debug)]
pub enum To<'a> {
    File(&'a Path),
    Memory,
}

/// Makes a checkpoint, with hooks. `options` go to ckpt-dump.
pub fn checkpoint(to: To<'_>, options: &[OsString]) -> Result<Outcome, Error> {
    lock::survive_forks().map_err(Error::os("pthread_atfork"))?;
    let _turn = lock::LONG.take().ok_or(Error::Busy)?;
    if std::process::id() == 1 {
        return Err(Error::IsInit);
    }
    let dumper = dumper::find()?;
    hooks::call_before();
    let result = save(to, options, dumper);
    hooks::call_after(&result);
    result
}

fn save(to: To<'_>, options: &[OsString], dumper: Found) -> Result<Outcome, Error> {
    let id = images::new_id();
    let uuid = sys::random::<16>().map_err(Error::os("no random number"))?;
    let memory = match to {
        To::Memory => Some(images::make(id)?),
        To::File(path) => {
            images::note(id, path, uuid).map_err(Error::os("the working directory has no path"))?;
            None
        }
    };
    let Found { program, file: of_dumper } = dumper;
    let result = dump(program, arguments(to, options, memory.as_ref(), of_dumper.as_ref(), uuid), &memory);
    match result {
        Ok(Run::Saved) => {
            images::settle(id);
            if let Some(file) = memory {
                // It is whole without, too.
                let _ = sys::fd::seal(file.as_raw_fd());
                // From here on it is known by its name.
                mem::forget(file);
            }
            Ok(Outcome::Saved { id })
        }
        Ok(Run::Restored) => {
            images::settle(id);
            // These numbers are not ours here, unless it is an image that was passed on.
            memory.into_iter().chain(of_dumper).for_each(mem::forget);
            Ok(Outcome::Restored { id })
        }
        Err(error) => {
            images::unnote(id);
            Err(error)
        }
    }
}

/// In which run the caller is.
enum Run {
    Saved,
    Restored,
}

/// Of ckpt-dump, but for those that tell who calls.
fn arguments(
    to: To<'_>,
    options: &[OsString],
    memory: Option<&OwnedFd>,
    of_dumper: Option<&OwnedFd>,
    uuid: [u8; 16],
) -> Vec<OsString> {
    let mut args: Vec<OsString> = ["ckpt-dump", "--json"].map(OsString::from).to_vec();
    args.extend_from_slice(options);
    args.extend(match (to, memory) {
        (To::File(path), _) => ["--output".into(), path.into()],
        (To::Memory, file) => ["--output-fd".into(), file.map_or(-1, AsRawFd::as_raw_fd).to_string().into()],
    });
    args.push(format!("--uuid={:032x}", u128::from_be_bytes(uuid)).into());
    // The new one among them.
    let kept = images::in_memory().into_iter().map(|(_, fd)| fd);
    let left_out = kept.chain(of_dumper.map(AsRawFd::as_raw_fd));
    args.extend(left_out.map(|fd| format!("--leave-out-fd={fd}").into()));
    args
}

fn dump(program: Program, mut args: Vec<OsString>, memory: &Option<OwnedFd>) -> Result<Run, Error> {
    let failed = || Error::os("cannot start ckpt-dump");
    let channel = sys::fd::socket_pair().map_err(failed())?;
    args.push(format!("--caller={}:{}", sys::gettid(), channel.0.as_raw_fd()).into());
    args.push(std::process::id().to_string().into());
    let args = args.into_iter().map(|a| CString::new(a.into_vec())).collect::<Result<_, _>>();
    let args = args.map_err(|_| failed()(io::ErrorKind::InvalidInput.into()))?;
    let inherits: Vec<RawFd> = memory.iter().map(AsRawFd::as_raw_fd).collect();
    let command = Command { program, args, env: environment(), inherits };

    let _blocked = Blocked::all();
    let was_subreaper = sys::is_subreaper();
    if was_subreaper {
        // Or it would be adopted by the caller, which would hear of its end.
        sys::set_subreaper(false);
    }
    let helper = Helper::start(command, channel);
    if was_subreaper {
        sys::set_subreaper(true);
    }
    let helper = helper.map_err(failed())?;
    let yama = std::fs::read("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|scope| scope.starts_with(b"1"));
    if yama {
        sys::set_ptracer(helper.pid());
    }
    match helper.run().map_err(failed())? {
        None => Ok(Run::Restored),
        Some(said) => {
            if yama {
                sys::set_ptracer(0);
            }
            dumper::result(&said).map(|()| Run::Saved)
        }
    }
}

/// The environment, for execve(2).
pub fn environment() -> Vec<CString> {
    let env = std::env::vars_os().map(|(name, value)| [name, value].join(OsStr::new("=")));
    env.filter_map(|text| CString::new(text.into_vec()).ok()).collect()
}
