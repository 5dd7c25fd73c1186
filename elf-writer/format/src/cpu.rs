//! What the processor must offer for the saved program to go on.

crate::records! {
    /// Instruction sets that the program may have seen (CPUID as user space sees it), and the
    /// layout of its extended state.
    pub struct CpuFeatures[72] {
        /// Vendor string of CPUID leaf 0 (x86-64), NUL padded.
        pub vendor: [u8; 12],
        /// ELF machine (`EM_X86_64` = 62).
        pub machine: u32,
        /// CPUID words, in the order of [`WORDS`].
        pub words: [u32; 8],
        /// XCR0: state components enabled by the kernel.
        pub xcr0: u64,
        /// Size of the uncompacted XSAVE area, in bytes.
        pub xstate_size: u32,
        /// Offsets in that area of the opmask registers (component 5, low half; the rest of AVX-512 follows
        /// them) and of PKRU (component 9, high half): they differ between vendors. 0 where absent.
        pub xstate_offsets: u32,
        /// State components in use (XSTATE_BV) by any saved thread.
        pub xstate_in_use: u64,
    }
}

/// `(leaf, subleaf, register)` of each word; registers eax=0 ebx=1 ecx=2 edx=3.
pub const WORDS: [(u32, u32, u8); 8] =
    [(1, 0, 2), (1, 0, 3), (7, 0, 1), (7, 0, 2), (7, 0, 3), (7, 1, 0), (0x8000_0001, 0, 2), (0xd, 1, 0)];

/// User-visible features: `(word, bit, name as in /proc/cpuinfo)`. Only these are compared: the
/// other bits concern the kernel, or can only be asked for, not used.
pub const FEATURES: &[(u8, u8, &str)] = &[
    (0, 0, "sse3"),
    (0, 1, "pclmulqdq"),
    (0, 9, "ssse3"),
    (0, 12, "fma"),
    (0, 13, "cx16"),
    (0, 19, "sse4_1"),
    (0, 20, "sse4_2"),
    (0, 22, "movbe"),
    (0, 23, "popcnt"),
    (0, 25, "aes"),
    (0, 27, "osxsave"),
    (0, 28, "avx"),
    (0, 29, "f16c"),
    (0, 30, "rdrand"),
    (1, 4, "tsc"),
    (1, 8, "cx8"),
    (1, 15, "cmov"),
    (1, 19, "clflush"),
    (1, 23, "mmx"),
    (1, 24, "fxsr"),
    (1, 25, "sse"),
    (1, 26, "sse2"),
    (2, 0, "fsgsbase"),
    (2, 3, "bmi1"),
    (2, 5, "avx2"),
    (2, 8, "bmi2"),
    (2, 16, "avx512f"),
    (2, 17, "avx512dq"),
    (2, 18, "rdseed"),
    (2, 19, "adx"),
    (2, 21, "avx512ifma"),
    (2, 23, "clflushopt"),
    (2, 24, "clwb"),
    (2, 28, "avx512cd"),
    (2, 29, "sha_ni"),
    (2, 30, "avx512bw"),
    (2, 31, "avx512vl"),
    (3, 1, "avx512vbmi"),
    (3, 4, "ospke"),
    (3, 5, "waitpkg"),
    (3, 6, "avx512_vbmi2"),
    (3, 8, "gfni"),
    (3, 9, "vaes"),
    (3, 10, "vpclmulqdq"),
    (3, 11, "avx512_vnni"),
    (3, 12, "avx512_bitalg"),
    (3, 14, "avx512_vpopcntdq"),
    (3, 22, "rdpid"),
    (3, 27, "movdiri"),
    (3, 28, "movdir64b"),
    (4, 8, "avx512_vp2intersect"),
    (4, 14, "serialize"),
    (4, 22, "amx_bf16"),
    (4, 23, "avx512_fp16"),
    (4, 24, "amx_tile"),
    (4, 25, "amx_int8"),
    (5, 0, "sha512"),
    (5, 1, "sm3"),
    (5, 2, "sm4"),
    (5, 4, "avx_vnni"),
    (5, 5, "avx512_bf16"),
    (5, 7, "cmpccxadd"),
    (5, 21, "amx_fp16"),
    (5, 23, "avx_ifma"),
    (6, 0, "lahf_lm"),
    (6, 5, "abm"),
    (6, 6, "sse4a"),
    (6, 8, "3dnowprefetch"),
    (6, 11, "xop"),
    (6, 16, "fma4"),
    (6, 21, "tbm"),
    (7, 0, "xsaveopt"),
    (7, 1, "xsavec"),
];
