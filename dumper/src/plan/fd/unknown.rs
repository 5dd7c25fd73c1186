//! Kinds that cannot be saved: refused by name.

use super::Planner;
use crate::collect::fd::Description;
use ckpt_format::Object;

/// Link prefix, what it is, what to do.
const NAMES: &[(&str, &str, &str)] = &[
    (
        "anon_inode:[io_uring]",
        "an io_uring instance",
        "run the program without io_uring (node and libuv: UV_USE_IO_URING=0; most programs that use liburing do \
         without where kernel.io_uring_disabled is 2)",
    ),
    (
        "anon_inode:[userfaultfd]",
        "a userfaultfd (memory whose faults a program handles)",
        "let it unregister its memory and close it",
    ),
    ("anon_inode:[perf_event]", "a perf event", "stop profiling the program before the dump"),
    ("anon_inode:bpf", "a BPF object", "close it before the dump"),
    ("anon_inode:kvm", "a KVM virtual machine", "end the virtual machine before the dump"),
    ("anon_inode:[landlock-ruleset]", "a Landlock ruleset", "close it before the dump"),
    ("anon_inode:seccomp notify", "a seccomp listener", "close it before the dump"),
    ("anon_inode:", "an object without a name", "close it before the dump"),
];

pub fn refuse(p: &mut Planner<'_>, d: &Description, what: &str) -> Option<Object> {
    let named = NAMES.iter().find(|(prefix, ..)| what.starts_with(prefix));
    let (words, remedy) = match named {
        Some((_, words, remedy)) => ((*words).to_owned(), *remedy),
        None if what.contains(":[") => {
            ("a namespace that the process is not in".to_owned(), "close it before the dump")
        }
        None if what.starts_with("a ") => (what.to_owned(), "close it before the dump"),
        None => ("an object of unknown kind".to_owned(), "close it before the dump"),
    };
    p.refuse(d, format!("{}: {words} cannot be saved", p.name(d)), remedy);
    None
}
