//! Registers, extended state, vDSO, rseq, and what the kernel keeps for each thread.

use ckpt_tests::{Scenarios, Suite, T, TestResult, Variant};
use std::time::{Duration, Instant};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("cpu");
    let plain = Scenarios::default;
    suite.victim("cpu_gpr", plain().pids(&["same", "ns"]));
    for unit in ["sse", "avx", "avx512"] {
        suite.victim_named(&format!("cpu_vector_{unit}"), "cpu_vector", plain().args(&[unit]));
    }
    suite.victim("cpu_x87", plain());
    suite.victim("cpu_segments", plain());
    suite.victim("cpu_vdso", plain().all_pids().variants(&[Variant::Dynamic, Variant::Static]));
    suite.victim("cpu_rseq", plain().once());
    suite.test("rseq_critical_section_is_aborted", rseq_abort);

    let threads = |n: &'static str| plain().args(&[n]);
    suite.victim_named(
        "thr_8",
        "thr_many",
        threads("8").all_pids().variants(&[Variant::Dynamic, Variant::Musl]),
    );
    suite.victim_named("thr_100", "thr_many", threads("100").all_pids());
    suite.victim_named("thr_1000", "thr_many", threads("1000").once());
    suite.victim("thr_busy", plain().all_pids());
    suite.victim("thr_state", plain().all_pids());
    suite.victim("thr_altstack", plain());
    suite.victim("thr_mutex", plain().all_pids());
    suite.victim("thr_pi", plain().all_pids());
    suite.run()
}

/// The pause between dump and restore is long enough to be told from an unlucky preemption.
fn rseq_abort(t: &T) -> TestResult {
    let mut victim = t.victim("cpu_rseq").start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit()?;
    let since = Instant::now();
    t.wait_until("a noticeable pause", || Ok(since.elapsed() > Duration::from_millis(200)))?;
    let mut restored = t.restore("saved.ckpt").pid("new").start()?;
    t.ping()?;
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}
