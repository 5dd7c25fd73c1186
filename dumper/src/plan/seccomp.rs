//! Seccomp: which filters each thread installs. What all threads of a process have in common comes from the
//! leader, for all of them at once (SECCOMP_FILTER_FLAG_TSYNC): a later one of that kind is refused by the kernel
//! unless they share those before it.

use super::Builder;
use crate::collect::ThreadFacts;
use crate::collect::threads::SeccompFacts;
use ckpt_format::SeccompFilter;
use zerocopy::IntoBytes;

/// linux/seccomp.h.
pub const MODE_STRICT: u32 = 1;
const MODE_FILTER: u32 = 2;
const FLAG_TSYNC: u32 = 1;
const RET_ACTION: u32 = 0xffff_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
/// linux/filter.h: BPF_RET | BPF_K.
const RETURN: u16 = 0x06;
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Completes the records of a task's threads, which begin at `first`.
pub fn plan(builder: &mut Builder, threads: &[ThreadFacts], first: usize, pid: i32) {
    let common = common(threads);
    for (i, thread) in threads.iter().enumerate() {
        refuse(builder, thread, pid);
        let skipped = if i == 0 { 0 } else { common };
        let mut records = Vec::new();
        for (n, filter) in thread.seccomp_filters.iter().enumerate().skip(skipped) {
            let for_all = if i == 0 && n < common { FLAG_TSYNC } else { 0 };
            let program = builder.blob(&filter.program);
            records.push(SeccompFilter {
                program,
                flags: filter.flags | for_all,
                ..SeccompFilter::default()
            });
        }
        let filters = builder.blob(records.as_bytes());
        let record = &mut builder.tables.threads[first + i];
        record.seccomp_mode = thread.seccomp_mode;
        record.seccomp_filters = filters;
    }
}

/// How many filters, from the oldest on, all threads have in common; none where they come to have different
/// rights by that, as TSYNC sets no_new_privs for all.
fn common(threads: &[ThreadFacts]) -> usize {
    let [leader, others @ ..] = threads else { return 0 };
    let same_rights = |t: &ThreadFacts| t.creds.no_new_privs == leader.creds.no_new_privs;
    if others.is_empty() || !others.iter().all(same_rights) {
        return 0;
    }
    let with_leader = |t: &ThreadFacts| {
        let pairs = t.seccomp_filters.iter().zip(&leader.seccomp_filters);
        pairs.take_while(|(a, b)| a == b).count()
    };
    others.iter().map(with_leader).min().unwrap_or(0)
}

fn refuse(builder: &mut Builder, thread: &ThreadFacts, pid: i32) {
    let tid = thread.tid;
    if let Some(why) = &thread.seccomp_failed {
        let what = format!("thread {tid}: its seccomp filters cannot be read: {why}");
        builder.refuse(pid, what, "start the program without its sandbox");
    }
    if thread.seccomp_filters.iter().any(notifies) {
        let what = format!("thread {tid}: a seccomp filter asks another process (SECCOMP_RET_USER_NOTIF)");
        builder.refuse(pid, what, "start the program without that supervisor");
    }
    let may = thread.creds.no_new_privs || thread.creds.cap_effective & CAP_SYS_ADMIN != 0;
    if thread.seccomp_mode == MODE_FILTER && !may {
        let what = format!(
            "thread {tid}: has a seccomp filter, and neither no_new_privs nor the CAP_SYS_ADMIN to install it again"
        );
        builder.refuse(pid, what, "start the program with no_new_privs (setpriv --no-new-privs)");
    }
}

/// Whether it may return SECCOMP_RET_USER_NOTIF.
fn notifies(filter: &SeccompFacts) -> bool {
    // struct sock_filter: code (16 bits), jt, jf, k (32 bits).
    filter.program.chunks_exact(8).any(|i| {
        let code = u16::from_le_bytes([i[0], i[1]]);
        let k = u32::from_le_bytes([i[4], i[5], i[6], i[7]]);
        code == RETURN && k & RET_ACTION == RET_USER_NOTIF
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::CredsFacts;

    fn thread(tid: i32, filters: &[u8]) -> ThreadFacts {
        let creds = CredsFacts { no_new_privs: true, ..CredsFacts::default() };
        let filter =
            |k: &u8| SeccompFacts { program: vec![RETURN as u8, 0, 0, 0, *k, 0, 0xff, 0x7f], flags: 2 };
        let seccomp_filters = filters.iter().map(filter).collect();
        ThreadFacts { tid, creds, seccomp_mode: MODE_FILTER, seccomp_filters, ..ThreadFacts::default() }
    }

    fn planned(threads: &[ThreadFacts]) -> (Vec<Vec<u32>>, usize) {
        let mut b = Builder::default();
        b.tables.threads.resize(threads.len(), Default::default());
        plan(&mut b, threads, 0, 1);
        let records = |span: ckpt_format::Span| {
            let count = span.len as usize / size_of::<SeccompFilter>();
            let at = |i: usize| ckpt_format::Span { offset: span.offset + 32 * i as u64, len: 32 };
            (0..count).map(|i| b.payload_of::<SeccompFilter>(at(i)).unwrap().flags).collect()
        };
        let flags = b.tables.threads.iter().map(|t| records(t.seccomp_filters)).collect();
        (flags, b.obstacles.len())
    }

    #[test]
    fn what_all_have_is_installed_for_all() {
        let threads = [thread(1, &[1, 2, 3]), thread(2, &[1, 2]), thread(3, &[1, 2, 4, 5])];
        assert_eq!(planned(&threads), (vec![vec![3, 3, 2], vec![], vec![2, 2]], 0));
        assert_eq!(planned(&threads[..1]), (vec![vec![2, 2, 2]], 0));
        let mut other = threads[1].clone();
        other.creds.no_new_privs = false;
        assert_eq!(planned(&[threads[0].clone(), other]), (vec![vec![2, 2, 2], vec![2, 2]], 1));
    }

    #[test]
    fn filters_that_ask_others_are_refused() {
        let mut t = thread(1, &[1]);
        t.seccomp_filters[0].program[4..].copy_from_slice(&RET_USER_NOTIF.to_le_bytes());
        assert_eq!(planned(&[t]).1, 1);
    }
}
