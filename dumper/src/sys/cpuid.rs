//! CPUID and XGETBV.

use std::arch::x86_64::{__cpuid_count, _xgetbv};

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
    // Legacy area and header; x87 and SSE lie in these.
    let mut size = 576;
    for bit in 2..63 {
        if components & (1 << bit) != 0 {
            let [len, offset, ..] = cpuid(0xd, bit);
            size = size.max((len + offset) as usize);
        }
    }
    size
}
