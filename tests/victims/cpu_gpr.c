// All general registers, and the direction flag, of a thread that was never in a system call.
#include "spin.h"

uint64_t in[16], out[16];

int main(void) {
    for (int i = 0; i < 16; i++) in[i] = mix((uint64_t)i);
    spin_begin();
    // rsp is switched to nothing: the loop needs no stack, and signals are not used here.
    __asm__ volatile("push %%rbp\n push %%rbx\n"
                     "lea in(%%rip), %%rax\n"
                     "mov 8(%%rax), %%rbx\n mov 16(%%rax), %%rcx\n mov 24(%%rax), %%rdx\n"
                     "mov 32(%%rax), %%rsi\n mov 40(%%rax), %%rdi\n mov 48(%%rax), %%rbp\n"
                     "mov 56(%%rax), %%r8\n mov 64(%%rax), %%r9\n mov 72(%%rax), %%r10\n"
                     "mov 80(%%rax), %%r11\n mov 88(%%rax), %%r12\n mov 96(%%rax), %%r13\n"
                     "mov 104(%%rax), %%r14\n mov 112(%%rax), %%r15\n mov 0(%%rax), %%rax\n"
                     "std\n" SPIN_ASM
                     "mov %%rax, out(%%rip)\n"
                     "lea out(%%rip), %%rax\n"
                     "mov %%rbx, 8(%%rax)\n mov %%rcx, 16(%%rax)\n mov %%rdx, 24(%%rax)\n"
                     "mov %%rsi, 32(%%rax)\n mov %%rdi, 40(%%rax)\n mov %%rbp, 48(%%rax)\n"
                     "mov %%r8, 56(%%rax)\n mov %%r9, 64(%%rax)\n mov %%r10, 72(%%rax)\n"
                     "mov %%r11, 80(%%rax)\n mov %%r12, 88(%%rax)\n mov %%r13, 96(%%rax)\n"
                     "mov %%r14, 104(%%rax)\n mov %%r15, 112(%%rax)\n"
                     "pushfq\n pop %%rcx\n mov %%rcx, 120(%%rax)\n"
                     "cld\n pop %%rbx\n pop %%rbp\n" ::
                         : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
                           "r15", "memory", "cc");
    spin_end();
    for (int i = 0; i < 15; i++) EQ(out[i], in[i]);
    CHECK(out[15] & 0x400);
    return ok();
}
