//! Keyrings and Landlock: what of them can be known. Nothing shows a Landlock domain; but a process in one may
//! not look into a process outside of it (hook_ptrace_access_check() in security/landlock/task.c), such as us.

use super::{CredsFacts, creds, proc};
use crate::ptrace::{Call, Frozen};
use crate::sys::process;
use anyhow::Result;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxFacts {
    /// It has a thread keyring, a process keyring (keyrings(7)).
    pub keyrings: Vec<&'static str>,
    /// Its session keyring is not ours, which whoever runs the image is likely to have.
    pub own_session_keyring: bool,
    /// Something forbids it what its credentials allow.
    pub landlocked: bool,
}

const GET_KEYRING_ID: u64 = 0;
const THREAD_KEYRING: i32 = -1;
const PROCESS_KEYRING: i32 = -2;
const SESSION_KEYRING: i32 = -3;
const KCMP_VM: u64 = 1;
const CAP_SYS_PTRACE: u64 = 1 << 19;

pub fn collect(target: &mut Frozen, own_pid: i32, theirs: &CredsFacts) -> Result<SandboxFacts> {
    let (pid, ours) = (target.pid(), std::process::id());
    // Without creating one.
    let keyring = |id: i32| Call::new(libc::SYS_keyctl, &[GET_KEYRING_ID, i64::from(id) as u64, 0]);
    let kcmp = [own_pid as u64, u64::from(ours), KCMP_VM, 0, 0];
    let results = target.batch(&[
        keyring(THREAD_KEYRING),
        keyring(PROCESS_KEYRING),
        keyring(SESSION_KEYRING),
        Call::new(libc::SYS_kcmp, &kcmp),
    ])?;
    let named = [(results[0], "thread"), (results[1], "process")];
    let forbidden = results[3] == -i64::from(libc::EPERM);
    Ok(SandboxFacts {
        keyrings: named.into_iter().filter(|(id, _)| *id > 0).map(|(_, name)| name).collect(),
        own_session_keyring: results[2] > 0
            && process::session_keyring().is_some_and(|own| results[2] != own),
        landlocked: forbidden && own_pid == pid && may_look_into_us(pid, theirs),
    })
}

/// Whether its credentials allow it (__ptrace_may_access() in kernel/ptrace.c).
fn may_look_into_us(pid: i32, theirs: &CredsFacts) -> bool {
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/user")).ok();
    if namespace("self") != namespace(&pid.to_string()) {
        return false;
    }
    if theirs.cap_effective & CAP_SYS_PTRACE != 0 {
        return true;
    }
    let ours = creds::parse(&proc::read("/proc/self/status").unwrap_or_default());
    let same = |ours: &[u32; 4], theirs: &[u32; 4]| ours[..3].iter().all(|id| *id == theirs[0]);
    same(&ours.uid, &theirs.uid)
        && same(&ours.gid, &theirs.gid)
        && ours.cap_permitted & !theirs.cap_permitted == 0
}
