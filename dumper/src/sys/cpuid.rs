//! CPUID and XGETBV.

use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::OnceLock;

/// `[eax, ebx, ecx, edx]` of a leaf; zeros for a leaf that this processor does not have.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let highest = __cpuid_count(leaf & 0x8000_0000, 0).eax;
    if leaf > highest {
        return [0; 4];
    }
    let r = __cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// State components that the kernel enabled (XCR0); x87 and SSE where there is no XSAVE.
#[must_use]
pub fn xcr0() -> u64 {
    #[target_feature(enable = "xsave")]
    fn read() -> u64 {
        // SAFETY: XCR0 (register 0) exists wherever XSAVE is enabled.
        unsafe { _xgetbv(0) }
    }
    const OSXSAVE: u32 = 1 << 27;
    if cpuid(1, 0)[2] & OSXSAVE == 0 {
        return 3;
    }
    // SAFETY: OSXSAVE says that the processor has XSAVE and that the kernel enabled it.
    unsafe { read() }
}

/// Offset of a state component in an uncompacted XSAVE area; 0 where this processor has none.
#[must_use]
pub fn xsave_offset(component: u32) -> u32 {
    let [len, offset, ..] = cpuid(0xd, component);
    if len == 0 { 0 } else { offset & 0xffff }
}

/// Size in bytes of an uncompacted XSAVE area that holds these components.
#[must_use]
pub fn xsave_size(components: u64) -> usize {
    // The processor is asked once: in a virtual machine each question takes microseconds.
    static ENDS: OnceLock<[usize; 64]> = OnceLock::new();
    let ends = ENDS.get_or_init(|| {
        std::array::from_fn(|bit| {
            let [len, offset, ..] = cpuid(0xd, bit as u32);
            // x87 and SSE lie in the legacy area; these leaves tell other things.
            if bit < 2 || bit == 63 { 0 } else { (len + offset) as usize }
        })
    });
    let of = |bit: usize| if components & (1 << bit) != 0 { ends[bit] } else { 0 };
    // Legacy area and header.
    (0..64).map(of).max().unwrap_or(0).max(576)
}
