//! CPU state of threads and what the kernel keeps per thread.

use super::{CredsFacts, creds, proc, signals};
use crate::ptrace::{Call, Frozen, RemoteAddr, raw};
use crate::sys;
use anyhow::{Context, Result};

/// One thread.
#[derive(Clone, Debug, Default)]
pub struct ThreadFacts {
    pub tid: i32,
    /// In the target's own pid namespace.
    pub own_tid: i32,
    pub name: [u8; 16],
    /// With which the thread goes on; an interrupted system call shows -ERESTART* in `rax`.
    pub regs: ckpt_format::Regs,
    pub xstate: Vec<u8>,
    pub sigmask: u64,
    pub altstack_sp: u64,
    pub altstack_flags: u64,
    pub altstack_size: u64,
    pub robust_list: u64,
    pub robust_list_len: u64,
    pub tid_address: u64,
    /// Address at which libc caches the thread id, and whose layout it is.
    pub tid_cache: Option<(u64, Libc)>,
    pub rseq: Rseq,
    pub sched: Sched,
    pub ioprio: u32,
    pub affinity: Vec<u8>,
    /// The mask allows every CPU that is online.
    pub affinity_all: bool,
    pub timer_slack_ns: u64,
    pub pdeathsig: u32,
    /// set_thread_area(2), ioperm(2).
    pub tls_segment: bool,
    pub io_permissions: bool,
    /// set_mempolicy(2) has set one.
    pub numa_policy: bool,
    pub creds: CredsFacts,
    /// PR_GET_SECCOMP, and filters, oldest first.
    pub seccomp_mode: u32,
    pub seccomp_filters: Vec<SeccompFacts>,
    /// Why they could not be read.
    pub seccomp_failed: Option<String>,
    /// Oldest first.
    pub pending: Vec<ckpt_format::PendingSignal>,
}

/// A filter of seccomp(2): `struct sock_filter`s, and SECCOMP_FILTER_FLAG_LOG.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeccompFacts {
    pub program: Vec<u8>,
    pub flags: u32,
}

/// C library whose thread control block was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libc {
    Glibc,
    Musl,
}

/// rseq(2) registration; address 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rseq {
    pub addr: u64,
    pub len: u32,
    pub sig: u32,
}

/// sched_getattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sched {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    pub util_min: u32,
    pub util_max: u32,
}

const PR_GET_PDEATHSIG: u64 = 2;
const PR_GET_SECUREBITS: u64 = 27;
const PR_GET_TIMERSLACK: u64 = 30;
const PR_GET_TID_ADDRESS: u64 = 40;

/// Observes all threads, the leader first.
///
/// # Errors
/// When the target died.
pub fn collect(target: &mut Frozen) -> Result<Vec<ThreadFacts>> {
    let online = proc::read("/sys/devices/system/cpu/online").unwrap_or_default();
    let online = proc::cpu_list(&online);
    let answers = ask(target)?;
    let mut all = Vec::with_capacity(answers.len());
    for (tid, answer) in target.tids().into_iter().zip(answers) {
        all.push(one(target, tid, &online, &answer).with_context(|| format!("thread {tid}"))?);
    }
    Ok(all)
}

fn one(target: &mut Frozen, tid: i32, online: &[usize], answer: &Answer) -> Result<ThreadFacts> {
    let pid = target.pid();
    let xstate = target.xstate(tid).context("reading its extended state")?;
    let status = target.status(tid)?;
    let thread = target.stopped(tid)?;
    let mut facts = ThreadFacts {
        tid,
        own_tid: proc::own_id(status, "NSpid").unwrap_or(tid),
        name: name(pid, tid, status)?,
        regs: thread.portable_regs(),
        xstate,
        sigmask: thread.mask(),
        rseq: rseq(tid)?,
        ioprio: sys::thread::ioprio(tid).context("ioprio_get")?,
        affinity: sys::thread::affinity(tid).context("sched_getaffinity")?,
        tls_segment: raw::has_tls_segment(tid),
        io_permissions: raw::has_io_permissions(tid),
        creds: creds::parse(status),
        pending: signals::queued(tid, false)?,
        ..ThreadFacts::default()
    };
    facts.affinity_all =
        online.iter().all(|cpu| facts.affinity.get(cpu / 8).is_some_and(|b| b & (1 << (cpu % 8)) != 0));
    (facts.robust_list, facts.robust_list_len) = sys::thread::robust_list(tid).context("get_robust_list")?;
    let attr = sys::thread::sched_attr(tid).context("sched_getattr")?;
    facts.sched = Sched {
        policy: attr.policy,
        flags: attr.flags,
        nice: if is_fair(attr.policy) { attr.nice } else { sys::thread::nice(tid).context("getpriority")? },
        priority: attr.priority,
        runtime: attr.runtime,
        deadline: attr.deadline,
        period: attr.period,
        util_min: attr.util_min,
        util_max: attr.util_max,
    };
    seccomp(status, &mut facts);
    told(answer, &mut facts)?;
    facts.tid_cache = tid_cache(target, &facts);
    Ok(facts)
}

fn name(pid: i32, tid: i32, status: &str) -> Result<[u8; 16]> {
    let comm = match proc::plain_name(status) {
        Some(name) => name.as_bytes().to_vec(),
        None => proc::bytes(&format!("/proc/{pid}/task/{tid}/comm")).context("reading its name")?,
    };
    let mut name = [0; 16];
    let len = comm.strip_suffix(b"\n").map_or(comm.len(), <[u8]>::len).min(15);
    name[..len].copy_from_slice(&comm[..len]);
    Ok(name)
}

/// sched_getattr(2) tells the nice value of these only.
fn is_fair(policy: u32) -> bool {
    [libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE].contains(&(policy as i32))
}

fn seccomp(status: &str, facts: &mut ThreadFacts) {
    const FILTERS: u32 = 2;
    facts.seccomp_mode = proc::field(status, "Seccomp").and_then(|s| s.parse().ok()).unwrap_or(0);
    while facts.seccomp_mode == FILTERS {
        match raw::seccomp_filter(facts.tid, facts.seccomp_filters.len()) {
            Ok(None) => break,
            Ok(Some((program, flags))) => {
                facts.seccomp_filters.push(SeccompFacts { program, flags: flags as u32 });
            }
            Err(e) => {
                facts.seccomp_failed = Some(e.to_string());
                break;
            }
        }
    }
}

fn rseq(tid: i32) -> Result<Rseq> {
    let conf = raw::rseq(tid).context("its rseq configuration")?.unwrap_or_default();
    Ok(Rseq { addr: conf.pointer, len: conf.size, sig: conf.signature })
}

/// Results of calls, and what they left in memory.
type Answer = (Vec<i64>, Vec<u8>);

/// What only the threads themselves can tell.
fn ask(target: &mut Frozen) -> Result<Vec<Answer>> {
    let prctl = |args: &[u64]| Call::new(libc::SYS_prctl, args);
    target.batch_in_all(48, |scratch| {
        vec![
            Call::new(libc::SYS_sigaltstack, &[0, scratch.0]),
            prctl(&[PR_GET_TID_ADDRESS, scratch.offset(24).0]),
            prctl(&[PR_GET_PDEATHSIG, scratch.offset(32).0]),
            prctl(&[PR_GET_SECUREBITS]),
            prctl(&[PR_GET_TIMERSLACK]),
            // Fails on kernels without NUMA.
            Call::new(libc::SYS_get_mempolicy, &[scratch.offset(40).0, 0, 0, 0, 0]),
        ]
    })
}

fn told((results, bytes): &Answer, facts: &mut ThreadFacts) -> Result<()> {
    let names =
        ["sigaltstack", "PR_GET_TID_ADDRESS", "PR_GET_PDEATHSIG", "PR_GET_SECUREBITS", "PR_GET_TIMERSLACK"];
    for (result, name) in results.iter().zip(names) {
        super::check_call(*result, || format!("{name} in the thread"))?;
    }
    let word = |i: usize| u64::from_le_bytes(bytes[i..i + 8].try_into().unwrap_or_default());
    // stack_t: ss_sp, ss_flags (32 bits), ss_size.
    facts.altstack_sp = word(0);
    facts.altstack_flags = word(8) & 0xffff_ffff;
    facts.altstack_size = word(16);
    facts.tid_address = word(24);
    facts.pdeathsig = word(32) as u32;
    facts.numa_policy = results[5] == 0 && word(40) as u32 != 0;
    facts.creds.securebits = results[3] as u32;
    facts.timer_slack_ns = results[4] as u64;
    Ok(())
}

/// Where libc caches the thread's id. glibc: `pd->tid`, which is also the kernel's clear_child_tid
/// (nptl, `struct pthread` behind a `tcbhead_t` that points to itself twice). musl: `tid` at 0x30 of
/// a `struct pthread` that points to itself.
fn tid_cache(target: &Frozen, facts: &ThreadFacts) -> Option<(u64, Libc)> {
    let fs = facts.regs.fs_base;
    let is_own =
        |addr: u64| target.word(RemoteAddr(addr)).is_some_and(|word| word as u32 as i32 == facts.own_tid);
    if fs == 0 || target.word(RemoteAddr(fs)) != Some(fs) {
        return None;
    }
    let in_block = (fs..fs + 0x1000).contains(&facts.tid_address);
    if in_block && target.word(RemoteAddr(fs + 0x10)) == Some(fs) && is_own(facts.tid_address) {
        return Some((facts.tid_address, Libc::Glibc));
    }
    is_own(fs + 0x30).then_some((fs + 0x30, Libc::Musl))
}
