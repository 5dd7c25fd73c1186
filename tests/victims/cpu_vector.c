// Vector registers: xmm, ymm, zmm and masks, whatever this CPU has.
#include "spin.h"

uint8_t in[32 * 64] __attribute__((aligned(64))), out[32 * 64] __attribute__((aligned(64)));
uint64_t masks_in[8], masks_out[8];

#define LOAD(insn, reg, n, step) insn " " #n "*" #step "(%0), %%" reg #n "\n"
#define STORE(insn, reg, n, step) insn " %%" reg #n ", " #n "*" #step "(%1)\n"
#define ALL16(op, insn, reg, step) \
    op(insn, reg, 0, step) op(insn, reg, 1, step) op(insn, reg, 2, step) op(insn, reg, 3, step) \
    op(insn, reg, 4, step) op(insn, reg, 5, step) op(insn, reg, 6, step) op(insn, reg, 7, step) \
    op(insn, reg, 8, step) op(insn, reg, 9, step) op(insn, reg, 10, step) op(insn, reg, 11, step) \
    op(insn, reg, 12, step) op(insn, reg, 13, step) op(insn, reg, 14, step) op(insn, reg, 15, step)
#define NEXT16(op, insn, reg, step) \
    op(insn, reg, 16, step) op(insn, reg, 17, step) op(insn, reg, 18, step) op(insn, reg, 19, step) \
    op(insn, reg, 20, step) op(insn, reg, 21, step) op(insn, reg, 22, step) op(insn, reg, 23, step) \
    op(insn, reg, 24, step) op(insn, reg, 25, step) op(insn, reg, 26, step) op(insn, reg, 27, step) \
    op(insn, reg, 28, step) op(insn, reg, 29, step) op(insn, reg, 30, step) op(insn, reg, 31, step)
#define MASK(op, n) op(n)
#define KLOAD(n) "kmovq " #n "*8(%2), %%k" #n "\n"
#define KSTORE(n) "kmovq %%k" #n ", " #n "*8(%3)\n"
#define ALL8(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7)

__attribute__((target("avx512f,avx512bw"))) static void avx512(void) {
    __asm__ volatile(ALL16(LOAD, "vmovdqu64", "zmm", 64) NEXT16(LOAD, "vmovdqu64", "zmm", 64) ALL8(KLOAD) SPIN_ASM
                         ALL16(STORE, "vmovdqu64", "zmm", 64) NEXT16(STORE, "vmovdqu64", "zmm", 64) ALL8(KSTORE)
                     : : "r"(in), "r"(out), "r"(masks_in), "r"(masks_out) : "memory", "cc");
}

__attribute__((target("avx"))) static void avx(void) {
    __asm__ volatile(ALL16(LOAD, "vmovdqu", "ymm", 32) SPIN_ASM ALL16(STORE, "vmovdqu", "ymm", 32)
                     : : "r"(in), "r"(out) : "memory", "cc");
}

static void sse(void) {
    __asm__ volatile(ALL16(LOAD, "movdqu", "xmm", 16) SPIN_ASM ALL16(STORE, "movdqu", "xmm", 16)
                     : : "r"(in), "r"(out) : "memory", "cc");
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "sse";
    size_t len = 16 * 16;
    fill(in, sizeof in, 1);
    for (int i = 0; i < 8; i++) masks_in[i] = mix((uint64_t)i);
    if (!strcmp(what, "avx512")) {
        if (!__builtin_cpu_supports("avx512bw")) skip("this CPU has no AVX-512");
        spin_begin();
        avx512();
        len = sizeof in;
        for (int i = 0; i < 8; i++) EQ(masks_out[i], masks_in[i]);
    } else if (!strcmp(what, "avx")) {
        if (!__builtin_cpu_supports("avx")) skip("this CPU has no AVX");
        spin_begin();
        avx();
        len = 16 * 32;
    } else {
        spin_begin();
        sse();
    }
    spin_end();
    verify(out, len, 1);
    return ok();
}
