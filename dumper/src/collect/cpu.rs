//! What this processor offers to user space.

/// CPUID words and XSAVE layout, as the image records them.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuFacts {
    pub features: ckpt_format::cpu::CpuFeatures,
}
