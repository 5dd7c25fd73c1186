//! Names for numbers.

use ckpt_format::task::task_flags;
use ckpt_format::vma_flags;

/// `SIGTERM`, `SIGRTMIN+2` ...
pub fn signal(number: u32) -> String {
    /// SIGRTMIN as the C library counts: the kernel's first two are its own.
    const RTMIN: u32 = 34;
    match i32::try_from(number).ok().and_then(|n| nix::sys::signal::Signal::try_from(n).ok()) {
        Some(signal) => signal.as_str().into(),
        None if number >= RTMIN => format!("SIGRTMIN+{}", number - RTMIN),
        None => format!("signal {number}"),
    }
}

/// The signals of a mask.
pub fn signals(mask: u64) -> Vec<String> {
    (1..=64).filter(|n| mask >> (n - 1) & 1 == 1).map(signal).collect()
}

pub fn system_call(number: u64) -> String {
    let known = usize::try_from(number).ok().and_then(syscalls::Sysno::new);
    known.map_or_else(|| format!("system call {number}"), |s| s.name().into())
}

fn set(flags: u64, names: &[(u64, &str)]) -> Vec<String> {
    names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| (*name).to_owned()).collect()
}

pub fn vma(flags: u64) -> Vec<String> {
    set(
        flags,
        &[
            (vma_flags::GROWSDOWN, "growsdown"),
            (vma_flags::LOCKED, "locked"),
            (vma_flags::LOCK_ONFAULT, "lock-onfault"),
            (vma_flags::SEQUENTIAL, "sequential"),
            (vma_flags::RANDOM, "random"),
            (vma_flags::DONTFORK, "dontfork"),
            (vma_flags::WIPEONFORK, "wipeonfork"),
            (vma_flags::DONTDUMP, "dontdump"),
            (vma_flags::NORESERVE, "noreserve"),
            (vma_flags::HUGEPAGE, "hugepage"),
            (vma_flags::NOHUGEPAGE, "nohugepage"),
            (vma_flags::MERGEABLE, "mergeable"),
            (vma_flags::HUGETLB, "hugetlb"),
            (vma_flags::SYNC, "sync"),
            (vma_flags::SEALED, "sealed"),
            (vma_flags::DROPPABLE, "droppable"),
        ],
    )
}

pub fn task(flags: u32) -> Vec<String> {
    set(
        flags.into(),
        &[
            (task_flags::HELPER.into(), "helper"),
            (task_flags::ZOMBIE.into(), "zombie"),
            (task_flags::STOPPED.into(), "stopped"),
            (task_flags::STOP_REPORTED.into(), "its parent knows"),
            (task_flags::CHILD_SUBREAPER.into(), "subreaper"),
            (task_flags::ADOPTS.into(), "adopts"),
            (task_flags::BEFORE_SETSID.into(), "made before setsid"),
            (task_flags::PGRP_OF_CALLER.into(), "group of the caller"),
            (task_flags::SESSION_OF_CALLER.into(), "session of the caller"),
        ],
    )
}

/// RLIMIT_* by number.
pub const LIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

#[cfg(test)]
mod tests {
    #[test]
    fn signals_have_names() {
        assert_eq!(super::signals(1 << 14 | 1 << 35), ["SIGTERM", "SIGRTMIN+2"]);
        assert_eq!(super::signal(32), "signal 32");
        assert_eq!(super::system_call(0), "read");
    }
}
