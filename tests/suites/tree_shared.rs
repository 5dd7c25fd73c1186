//! What processes of a tree have in common comes back in common: offsets, descriptor tables, directories,
//! address spaces, handlers, memory, locks, pipes.

use ckpt_tests::{Scenarios, Suite};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("tree_shared");
    let tree = Scenarios::tree;
    suite.victim("share_offset", tree());
    for (victim, kinds) in [
        ("share_clone", &["files", "fs", "both"][..]),
        ("share_vm", &["plain", "sighand", "all", "cleartid"][..]),
        ("share_shm", &["anon", "memfd", "posix", "posix-unlinked", "file", "deleted"][..]),
    ] {
        for &kind in kinds {
            let scenarios = Scenarios { args: vec![kind], ..tree() };
            suite.victim_named(&format!("{victim}_{kind}"), victim, scenarios);
        }
    }
    suite.victim("share_sync", tree());
    suite.victim("share_ring", tree());
    suite.run()
}
