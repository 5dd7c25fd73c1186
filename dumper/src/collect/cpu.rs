//! What this processor offers to user space.

use crate::sys::cpuid;
use ckpt_format::cpu::{CpuFeatures, WORDS};

/// CPUID words and XSAVE layout, as the image records them.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuFacts {
    pub features: CpuFeatures,
}

/// Observes the CPU on which we run.
#[must_use]
pub fn collect() -> CpuFacts {
    const EM_X86_64: u32 = 62;
    let [_, b, c, d] = cpuid::cpuid(0, 0);
    let mut vendor = [0; 12];
    for (chunk, word) in vendor.chunks_exact_mut(4).zip([b, d, c]) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    let xcr0 = cpuid::xcr0();
    let features = CpuFeatures {
        vendor,
        machine: EM_X86_64,
        words: WORDS.map(|(leaf, subleaf, register)| cpuid::cpuid(leaf, subleaf)[usize::from(register)]),
        xcr0,
        xstate_size: cpuid::xsave_size(xcr0) as u32,
        xstate_offsets: cpuid::xsave_offset(5) | cpuid::xsave_offset(9) << 16,
        // The plan knows the threads.
        xstate_in_use: 0,
    };
    CpuFacts { features }
}
