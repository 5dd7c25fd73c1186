//! Bulk work over memory with 32-byte vectors (AVX2), which the stub, built for any x86-64, cannot have the
//! compiler use: checksums, and the search for ids. Everything has a plain version for older CPUs.
#![allow(unsafe_code)]

use super::{cpuid, xcr0};
use core::arch::x86_64::*;

/// Whether CPU and kernel let programs use AVX2.
fn has_avx2() -> bool {
    const SSE_AND_AVX: u64 = 2 | 4;
    cpuid(7, 0, 1) & 1 << 5 != 0 && xcr0() & SSE_AND_AVX == SSE_AND_AVX
}

/// As [`ckpt_format::checksum`] (XXH3, 64 bits, no seed).
pub fn checksum(bytes: &[u8]) -> u64 {
    if bytes.len() > BLOCK && has_avx2() {
        // SAFETY: the CPU has AVX2; longer than a block.
        unsafe { xxh3_avx2(bytes) }
    } else {
        ckpt_format::checksum(bytes)
    }
}

const STRIPE: usize = 64;
/// As many stripes as the secret has shifts of 8 bytes.
const BLOCK: usize = (SECRET.len() - STRIPE) / 8 * STRIPE;

/// The default secret (XXH3 specification, "Secret").
#[rustfmt::skip]
const SECRET: [u8; 192] = [
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
];

const PRIME32: [u32; 3] = [0x9E37_79B1, 0x85EB_CA77, 0xC2B2_AE3D];
const PRIME64: [u64; 5] = [
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x27D4_EB2F_1656_67C5,
];

/// Two accumulators of 32 bytes.
type Acc = [__m256i; 2];

/// # Safety
/// The CPU has AVX2; `bytes` is longer than [`BLOCK`].
#[target_feature(enable = "avx2")]
unsafe fn xxh3_avx2(bytes: &[u8]) -> u64 {
    let start: [u64; 8] = [
        u64::from(PRIME32[2]),
        PRIME64[0],
        PRIME64[1],
        PRIME64[2],
        PRIME64[3],
        u64::from(PRIME32[1]),
        PRIME64[4],
        u64::from(PRIME32[0]),
    ];
    let (data, key) = (bytes.as_ptr(), SECRET.as_ptr());
    let blocks = (bytes.len() - 1) / BLOCK;
    let stripes = (bytes.len() - 1 - blocks * BLOCK) / STRIPE;
    let mut words = [0u64; 8];
    // SAFETY: every stripe read lies in `bytes`: whole blocks and stripes are counted from its length, the
    // last one ends with it. Keys end at `SECRET`'s end at most. Loads and stores are unaligned ones.
    unsafe {
        let mut acc: Acc = [load(start.as_ptr().cast()), load(start.as_ptr().add(4).cast())];
        for block in 0..blocks {
            let data = data.add(block * BLOCK);
            for stripe in 0..BLOCK / STRIPE {
                accumulate(&mut acc, data.add(stripe * STRIPE), key.add(stripe * 8));
            }
            scramble(&mut acc, key.add(SECRET.len() - STRIPE));
        }
        for stripe in 0..stripes {
            accumulate(&mut acc, data.add(blocks * BLOCK + stripe * STRIPE), key.add(stripe * 8));
        }
        accumulate(&mut acc, data.add(bytes.len() - STRIPE), key.add(SECRET.len() - STRIPE - 7));
        _mm256_storeu_si256(words.as_mut_ptr().cast(), acc[0]);
        _mm256_storeu_si256(words.as_mut_ptr().add(4).cast(), acc[1]);
    }
    merge(&words, (bytes.len() as u64).wrapping_mul(PRIME64[0]))
}

/// # Safety
/// 32 bytes at `at` can be read.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load(at: *const u8) -> __m256i {
    // SAFETY: the caller's; no alignment is needed.
    unsafe { _mm256_loadu_si256(at.cast()) }
}

/// # Safety
/// 64 bytes can be read at both addresses.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn accumulate(acc: &mut Acc, data: *const u8, key: *const u8) {
    for (half, acc) in acc.iter_mut().enumerate() {
        // SAFETY: the caller's.
        let (data, key) = unsafe { (load(data.add(half * 32)), load(key.add(half * 32))) };
        let mixed = _mm256_xor_si256(data, key);
        let product = _mm256_mul_epu32(mixed, _mm256_srli_epi64::<32>(mixed));
        // The words of each pair change places.
        let swapped = _mm256_shuffle_epi32::<0b01_00_11_10>(data);
        *acc = _mm256_add_epi64(product, _mm256_add_epi64(*acc, swapped));
    }
}

/// # Safety
/// 64 bytes can be read at `key`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn scramble(acc: &mut Acc, key: *const u8) {
    let prime = _mm256_set1_epi32(PRIME32[0] as i32);
    for (half, acc) in acc.iter_mut().enumerate() {
        // SAFETY: the caller's.
        let key = unsafe { load(key.add(half * 32)) };
        let mixed = _mm256_xor_si256(_mm256_xor_si256(*acc, _mm256_srli_epi64::<47>(*acc)), key);
        let low = _mm256_mul_epu32(mixed, prime);
        let high = _mm256_mul_epu32(_mm256_srli_epi64::<32>(mixed), prime);
        *acc = _mm256_add_epi64(low, _mm256_slli_epi64::<32>(high));
    }
}

/// The accumulators in one word.
fn merge(acc: &[u64; 8], start: u64) -> u64 {
    let key = |i: usize| {
        let at = 11 + i * 8;
        u64::from_le_bytes(core::array::from_fn(|n| SECRET[at + n]))
    };
    let mut hash = start;
    for i in 0..4 {
        let product = u128::from(acc[i * 2] ^ key(i * 2)) * u128::from(acc[i * 2 + 1] ^ key(i * 2 + 1));
        hash = hash.wrapping_add(product as u64 ^ (product >> 64) as u64);
    }
    hash ^= hash >> 37;
    hash = hash.wrapping_mul(0x1656_6791_9E37_79F9);
    hash ^ hash >> 32
}

/// Which words of each pair are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Words {
    Even,
    Odd,
}

/// Whether one of the `which` words of any pair, with `mask` applied, is in `min..=max`.
pub fn any_in_range(words: &[[u32; 2]], which: Words, mask: u32, min: u32, max: u32) -> bool {
    let odd = usize::from(which == Words::Odd);
    let found = |pair: &[u32; 2]| (pair[odd] & mask).wrapping_sub(min) <= max.wrapping_sub(min);
    if !has_avx2() {
        return words.iter().any(found);
    }
    let (chunks, rest) = words.as_chunks::<8>();
    // SAFETY: the CPU has AVX2.
    unsafe { any_in_range_avx2(chunks, odd == 1, mask, min, max) || rest.iter().any(found) }
}

/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2")]
unsafe fn any_in_range_avx2(chunks: &[[[u32; 2]; 8]], odd: bool, mask: u32, min: u32, max: u32) -> bool {
    let all = |n: u32| _mm256_set1_epi32(n as i32);
    let (mask, lowest, width) = (all(mask), all(min), all(max.wrapping_sub(min)));
    let mut found = _mm256_setzero_si256();
    for chunk in chunks {
        let at = chunk.as_ptr().cast::<u8>();
        // SAFETY: a chunk is 64 bytes.
        let (a, b) = unsafe { (load(at), load(at.add(32))) };
        let (a, b) = (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
        // One word of each pair, in whatever order.
        let words = if odd {
            _mm256_shuffle_ps::<0b11_01_11_01>(a, b)
        } else {
            _mm256_shuffle_ps::<0b10_00_10_00>(a, b)
        };
        let above = _mm256_sub_epi32(_mm256_and_si256(_mm256_castps_si256(words), mask), lowest);
        // Unsigned above <= width.
        let inside = _mm256_cmpeq_epi32(_mm256_min_epu32(above, width), above);
        found = _mm256_or_si256(found, inside);
    }
    _mm256_testz_si256(found, found) == 0
}
