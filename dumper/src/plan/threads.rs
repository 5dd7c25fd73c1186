//! Threads: registers with which they go on, and what the kernel keeps per thread.

use super::Builder;
use crate::collect::threads::Libc;
use crate::collect::{CredsFacts, ThreadFacts};
use crate::ptrace::restart;
use ckpt_format::thread::thread_flags;
use ckpt_format::*;

/// XSTATE_BV: first word behind the legacy area.
const XSTATE_BV: usize = 512;

/// Adds a thread of the task with this index and id.
pub fn plan(builder: &mut Builder, thread: &ThreadFacts, task: u32, pid: i32) {
    refuse(builder, thread, pid);
    let mut flags = 0;
    if restart::is_restarting(&thread.regs) {
        flags |= thread_flags::IN_SYSCALL;
    }
    if thread.affinity_all {
        flags |= thread_flags::AFFINITY_ALL;
    }
    flags |= match thread.tid_cache {
        Some((_, Libc::Glibc)) => thread_flags::LIBC_GLIBC,
        Some((_, Libc::Musl)) => thread_flags::LIBC_MUSL,
        None => 0,
    };
    if let Some(in_use) = thread.xstate.get(XSTATE_BV..XSTATE_BV + 8) {
        builder.header.cpu.xstate_in_use |= u64::from_le_bytes(in_use.try_into().unwrap_or_default());
    }
    let sched = &thread.sched;
    let record = Thread {
        tid: thread.own_tid,
        task,
        name: thread.name,
        regs: restart::for_image(&thread.regs),
        xstate: builder.blob(&thread.xstate),
        sigmask: thread.sigmask,
        altstack_sp: thread.altstack_sp,
        altstack_flags: thread.altstack_flags,
        altstack_size: thread.altstack_size,
        robust_list: thread.robust_list,
        robust_list_len: thread.robust_list_len,
        tid_address: thread.tid_address,
        tid_cache: thread.tid_cache.map_or(0, |(address, _)| address),
        rseq_addr: thread.rseq.addr,
        rseq_len: thread.rseq.len,
        rseq_sig: thread.rseq.sig,
        sched_policy: sched.policy,
        sched_nice: sched.nice,
        sched_priority: sched.priority,
        sched_util_min: sched.util_min,
        sched_util_max: sched.util_max,
        // Without a class there is no level; 5.10 shows one, but refuses to set it (ioprio_set(2)).
        ioprio: if thread.ioprio >> 13 == 0 { 0 } else { thread.ioprio },
        sched_flags: sched.flags,
        sched_runtime: sched.runtime,
        sched_deadline: sched.deadline,
        sched_period: sched.period,
        affinity: builder.blob(&thread.affinity),
        timer_slack_ns: thread.timer_slack_ns,
        pdeathsig: thread.pdeathsig,
        creds: creds(builder, &thread.creds),
        pending: builder.pending(&thread.pending),
        flags,
        ..Thread::default()
    };
    builder.tables.threads.push(record);
}

fn refuse(builder: &mut Builder, thread: &ThreadFacts, pid: i32) {
    if thread.numa_policy {
        let text = format!("thread {}: its NUMA policy (set_mempolicy(2)) is not saved", thread.tid);
        builder.note("numa", pid, &text);
    }
    for (has, what) in [
        (thread.tls_segment, "a segment of set_thread_area(2)"),
        (thread.io_permissions, "access to I/O ports (ioperm(2))"),
    ] {
        if has {
            let what = format!("thread {}: has {what}, which is not saved", thread.tid);
            builder.refuse(pid, what, "dump it before it asks for that");
        }
    }
}

fn creds(builder: &mut Builder, facts: &CredsFacts) -> u32 {
    let groups: Vec<u8> = facts.groups.iter().flat_map(|g| g.to_le_bytes()).collect();
    let groups = builder.blob(&groups);
    builder.creds(Creds {
        uid: facts.uid,
        gid: facts.gid,
        groups,
        cap_inheritable: facts.cap_inheritable,
        cap_permitted: facts.cap_permitted,
        cap_effective: facts.cap_effective,
        cap_bounding: facts.cap_bounding,
        cap_ambient: facts.cap_ambient,
        securebits: facts.securebits,
        no_new_privs: u32::from(facts.no_new_privs),
        ..Creds::default()
    })
}
