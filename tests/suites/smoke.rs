//! The least that must work, in every mode and linking.

use ckpt_tests::{Scenarios, Suite, Variant};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("smoke");
    suite.test("victims_run_without_a_dump", |t| {
        let mut victim = t.victim("counter").start()?;
        t.ping()?;
        t.go()?;
        victim.expect_exit(0)?;
        t.expect_ok()
    });
    let variants = [Variant::Dynamic, Variant::Static, Variant::StaticPie, Variant::Musl];
    suite.victim("counter", Scenarios::default().all_pids().variants(&variants));
    suite.run()
}
