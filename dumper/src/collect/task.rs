//! What belongs to the whole process and not to memory, descriptors or signals.

use super::children::Children;
use super::{creds, proc, sandbox, surroundings};
use crate::ptrace::{Call, Frozen};
use anyhow::{Context, Result};
use std::collections::HashSet;
use std::os::unix::ffi::OsStringExt;

/// `/proc/PID/stat`, `status`, `limits` ... and prctl(2) values.
#[derive(Clone, Debug, Default)]
pub struct ProcessFacts {
    /// Process id in the target's own pid namespace, and likewise group and session.
    pub own_pid: i32,
    pub pgid: i32,
    pub sid: i32,
    /// Parent, process group and session, as we see them.
    pub ppid: i32,
    pub seen_pgid: i32,
    pub seen_sid: i32,
    /// It is in another pid namespace than the root of the tree.
    pub other_pid_namespace: bool,
    /// Controlling terminal, as `/proc/PID/stat` encodes it (`new_encode_dev`); 0 for none.
    pub tty_nr: u32,
    /// Foreground process group of that terminal, -1 for none.
    pub tty_pgrp: i32,
    pub exit_signal: i32,
    pub personality: u32,
    pub umask: u32,
    pub cwd: Vec<u8>,
    pub root: Vec<u8>,
    /// These paths lead us to other directories than the process is in.
    pub cwd_elsewhere: bool,
    pub root_elsewhere: bool,
    /// `(soft, hard)` by RLIMIT_* number.
    pub rlimits: [[u64; 2]; 16],
    pub oom_score_adj: i32,
    pub child_subreaper: bool,
    /// PR_GET_DUMPABLE.
    pub dumpable: u32,
    /// PR_GET_THP_DISABLE: 0, 1, or 3 (PR_THP_DISABLE_EXCEPT_ADVISED).
    pub thp_disable: u32,
    /// PR_GET_MDWE, PR_GET_TSC, PR_GET_MEMORY_MERGE; the kernel's default where it does not know them.
    pub mdwe: u32,
    pub tsc_sigsegv: bool,
    /// It has a local descriptor table: modify_ldt(2).
    pub ldt: bool,
    pub memory_merge: bool,
    /// membarrier(2) registrations, as their commands; `None` on kernels that do not tell (before 6.3).
    pub membarrier: Option<u32>,
    /// Namespaces other than ours in which the same names mean other things: `net`, `ipc` ...
    pub namespaces: Vec<String>,
    /// Threads that do not share what threads usually do, and what.
    pub apart: Vec<(i32, String)>,
    /// Signal that stopped the process, when it was in a group stop.
    pub stopped_by: Option<i32>,
    /// Children that are not in the image, pid and name.
    pub children: Vec<(i32, String)>,
    /// It has children, or traces somebody.
    pub waits_for_somebody: bool,
    /// `comm` of the leader, and the arguments separated by spaces.
    pub name: String,
    pub command: String,
    /// Fields of `struct prctl_mm_map`, from `/proc/PID/stat`; `brk` by an injected brk(0).
    pub mm: MmFields,
    pub sandbox: sandbox::SandboxFacts,
}

/// Start and end addresses of the parts of an address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MmFields {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
}

const PR_GET_DUMPABLE: u64 = 3;
const PR_GET_TSC: u64 = 25;
const PR_GET_CHILD_SUBREAPER: u64 = 37;
const PR_GET_THP_DISABLE: u64 = 42;
const PR_GET_MDWE: u64 = 66;
const PR_GET_MEMORY_MERGE: u64 = 68;
const PR_TSC_SIGSEGV: u32 = 2;
/// Options of waitid(2) with which it fails only for who has nobody to wait for, and changes nothing.
const ANYTHING: u64 =
    (libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL) as u64;
const MEMBARRIER_CMD_GET_REGISTRATIONS: u64 = 1 << 9;

/// Observes the process, which is one of `members` of the tree below `first`.
///
/// # Errors
/// When the target died, or `/proc/PID` cannot be read.
pub fn collect(
    target: &mut Frozen,
    first: i32,
    members: &HashSet<i32>,
    children: &mut Children,
) -> Result<ProcessFacts> {
    let pid = target.pid();
    let file = |name: &str| proc::read(&format!("/proc/{pid}/{name}"));
    let raw =
        proc::bytes(&format!("/proc/{pid}/stat")).with_context(|| format!("reading /proc/{pid}/stat"))?;
    let stat = proc::stat(&raw).with_context(|| format!("/proc/{pid}/stat is not understood"))?;
    let status = file("status")?;
    let own = |key, seen| proc::own_id(&status, key).unwrap_or(seen);
    let link = |name: &str| -> Result<Vec<u8>> {
        let path = format!("/proc/{pid}/{name}");
        Ok(std::fs::read_link(&path).with_context(|| format!("reading {path}"))?.into_os_string().into_vec())
    };
    let (cwd, root) = (link("cwd")?, link("root")?);
    let mut facts = ProcessFacts {
        own_pid: own("NSpid", pid),
        pgid: own("NSpgid", stat.pgrp),
        sid: own("NSsid", stat.session),
        ppid: stat.ppid,
        seen_pgid: stat.pgrp,
        seen_sid: stat.session,
        other_pid_namespace: surroundings::other_pid_namespace(first, pid),
        tty_nr: stat.tty_nr,
        tty_pgrp: stat.tpgid,
        exit_signal: stat.exit_signal,
        personality: u32::from_str_radix(file("personality")?.trim(), 16).unwrap_or(0),
        umask: proc::field(&status, "Umask").and_then(|u| u32::from_str_radix(u, 8).ok()).unwrap_or(0o22),
        cwd_elsewhere: surroundings::leads_elsewhere(pid, "cwd", &cwd),
        root_elsewhere: surroundings::leads_elsewhere(pid, "root", &root),
        cwd,
        root,
        rlimits: proc::limits(&file("limits")?),
        oom_score_adj: file("oom_score_adj")?.trim().parse().unwrap_or(0),
        stopped_by: target.threads().iter().find_map(|t| t.group_stop()),
        children: children_outside(target, members, children),
        namespaces: surroundings::namespaces(pid, first, &creds::parse(&status)),
        name: stat.comm.clone(),
        command: file("cmdline")?.trim_end_matches('\0').replace('\0', " "),
        mm: MmFields {
            start_code: stat.start_code,
            end_code: stat.end_code,
            start_data: stat.start_data,
            end_data: stat.end_data,
            start_brk: stat.start_brk,
            brk: 0,
            start_stack: stat.start_stack,
            arg_start: stat.arg_start,
            arg_end: stat.arg_end,
            env_start: stat.env_start,
            env_end: stat.env_end,
        },
        ..ProcessFacts::default()
    };
    ask(target, &mut facts)?;
    facts.sandbox = sandbox::collect(target, facts.own_pid, &creds::parse(&status))?;
    Ok(facts)
}

/// What only the process itself can tell.
fn ask(target: &mut Frozen, facts: &mut ProcessFacts) -> Result<()> {
    let scratch = target.scratch()?.addr;
    let prctl = |args: &[u64]| Call::new(libc::SYS_prctl, args);
    let results = target.batch(&[
        Call::new(libc::SYS_brk, &[0]),
        prctl(&[PR_GET_DUMPABLE]),
        prctl(&[PR_GET_THP_DISABLE]),
        prctl(&[PR_GET_MDWE]),
        prctl(&[PR_GET_MEMORY_MERGE]),
        prctl(&[PR_GET_CHILD_SUBREAPER, scratch.0]),
        prctl(&[PR_GET_TSC, scratch.offset(4).0]),
        Call::new(libc::SYS_membarrier, &[MEMBARRIER_CMD_GET_REGISTRATIONS]),
        // Read one entry.
        Call::new(libc::SYS_modify_ldt, &[0, scratch.offset(8).0, 8]),
        Call::new(libc::SYS_waitid, &[libc::P_ALL.into(), 0, scratch.offset(64).0, ANYTHING, 0]),
    ])?;
    let mut words = [0; 8];
    target.read(scratch, &mut words)?;
    let word = |i: usize| u32::from_le_bytes([words[i], words[i + 1], words[i + 2], words[i + 3]]);
    facts.mm.brk = results[0] as u64;
    facts.dumpable = results[1].max(0) as u32;
    facts.thp_disable = results[2].max(0) as u32;
    facts.mdwe = results[3].max(0) as u32;
    facts.memory_merge = results[4] == 1;
    facts.child_subreaper = results[5] == 0 && word(0) != 0;
    facts.membarrier = u32::try_from(results[7]).ok();
    // Bytes of the table; an error is an int that was not sign-extended.
    facts.ldt = results[8] as i32 > 0;
    facts.waits_for_somebody = results[9] != -i64::from(libc::ECHILD);
    facts.tsc_sigsegv = results[6] == 0 && word(4) == PR_TSC_SIGSEGV;
    Ok(())
}

fn children_outside(target: &Frozen, members: &HashSet<i32>, children: &mut Children) -> Vec<(i32, String)> {
    let mut found = children.of(target.pid(), &target.tids());
    found.retain(|child| !members.contains(child));
    found.sort_unstable();
    found.into_iter().map(|child| (child, proc::name(child))).collect()
}
