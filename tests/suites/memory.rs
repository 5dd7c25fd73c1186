//! Memory comes back exactly: the same VMAs, flags and contents, and it behaves the same afterwards.

use ckpt_tests::{Scenarios, Suite, Variant};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("memory");
    let plain = Scenarios::default;
    suite
        .victim("mem_anon", plain().all_pids().variants(&[Variant::Dynamic, Variant::Static, Variant::Musl]));
    suite.victim_named("mem_anon_no_aslr", "mem_anon", plain().wrapper(&["setarch", "-R"]));
    suite.victim("mem_stack", plain().all_pids());
    suite.victim("mem_brk", plain().variants(&[Variant::Dynamic, Variant::Static, Variant::StaticPie]));
    suite.victim("mem_realloc", plain().variants(&[Variant::Dynamic, Variant::Musl]));
    suite.victim("mem_file_private", plain());
    suite.victim("mem_file_shared", plain());
    suite.victim("mem_anon_shared", plain());
    suite.victim("mem_memfd", plain());
    suite.victim("mem_reserve", plain().pids(&["ns"]));
    suite.victim("mem_thp", plain());
    suite.victim("mem_hugetlb", plain());
    suite.victim("mem_guard", plain());
    suite.victim("mem_flags", plain());
    suite.victim("mem_zeros", plain());
    suite.victim("mem_fork", plain().pids(&["ns"]));
    suite.victim("mem_many", plain());
    suite.victim("mem_awkward", plain().all_pids());
    suite.victim_named("mem_awkward_no_aslr", "mem_awkward", plain().wrapper(&["setarch", "-R"]));
    let no_aslr = vec!["setarch", "-R"];
    let same_stack = Scenarios { wrapper: no_aslr.clone(), restore_wrapper: no_aslr, ..plain() };
    suite.victim_named("mem_anon_no_aslr_at_all", "mem_anon", same_stack.clone());
    suite.victim_named("mem_awkward_no_aslr_at_all", "mem_awkward", same_stack);
    suite.victim("mem_prot", plain());
    suite.victim("mem_growsdown", plain());
    suite.victim("mem_identity", plain().args(&["one", "two", "three four"]).all_pids());
    suite.run()
}
