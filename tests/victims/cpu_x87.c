// The x87 stack and control word, MXCSR, PKRU.
#include "spin.h"
#include <cpuid.h>

static long double in[8] = {1.25L, -2.5L, 3.75e100L, 4e-300L, 5, 6, 7.125L, 1.0L / 3}, out[8];

static bool has_pku(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c >> 4 & 1); // OSPKE
}

static uint32_t rdpkru(void) {
    uint32_t value, edx;
    __asm__ volatile("rdpkru" : "=a"(value), "=d"(edx) : "c"(0));
    return value;
}

static void wrpkru(uint32_t value) {
    __asm__ volatile("wrpkru" : : "a"(value), "c"(0), "d"(0) : "memory");
}

int main(void) {
    // Round up, single precision, some exceptions enabled in neither.
    uint16_t cw = 0x0b7f & ~0x300, cw_after;
    uint32_t mxcsr = 0x1f80 | 0x6000 | 0x8000, mxcsr_after, pkru = 0;
    bool pku = has_pku();
    if (pku) pkru = rdpkru() | 0xa0000000, wrpkru(pkru);
    spin_begin();
    __asm__ volatile("fldcw %0\n ldmxcsr %1\n" : : "m"(cw), "m"(mxcsr));
    for (int i = 7; i >= 0; i--) __asm__ volatile("fldt %0" : : "m"(in[i]));
    __asm__ volatile(SPIN_ASM ::: "memory", "cc");
    for (int i = 0; i < 8; i++) __asm__ volatile("fstpt %0" : "=m"(out[i]));
    __asm__ volatile("fnstcw %0\n stmxcsr %1\n" : "=m"(cw_after), "=m"(mxcsr_after));
    uint16_t normal_cw = 0x37f;
    uint32_t normal_mxcsr = 0x1f80;
    __asm__ volatile("fldcw %0\n ldmxcsr %1\n" : : "m"(normal_cw), "m"(normal_mxcsr));
    if (pku) EQ(rdpkru(), pkru);
    spin_end();
    EQ(cw_after, cw);
    EQ(mxcsr_after & ~0x3f, mxcsr);
    for (int i = 0; i < 8; i++) CHECK(memcmp(&out[i], &in[i], 10) == 0);
    return ok();
}
