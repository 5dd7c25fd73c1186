// FS and GS base of several threads, GS in use.
#include "victim.h"
#include <asm/prctl.h>

static uint64_t area[4][8];
static __thread uint64_t tls;

static uint64_t read_gs(void) {
    uint64_t value;
    __asm__ volatile("mov %%gs:8, %0" : "=r"(value));
    return value;
}

static void *run(void *number) {
    uint64_t i = (uint64_t)number;
    tls = mix(i);
    area[i][1] = mix(100 + i);
    CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, area[i]) == 0);
    if (i == 0) ready();
    wait_go();
    EQ(read_gs(), mix(100 + i));
    EQ(tls, mix(i));
    uint64_t base;
    CHECK(syscall(SYS_arch_prctl, ARCH_GET_GS, &base) == 0);
    EQ(base, (uint64_t)area[i]);
    CHECK(syscall(SYS_arch_prctl, ARCH_GET_FS, &base) == 0);
    EQ(base, (uint64_t)pthread_self());
    return NULL;
}

int main(void) {
    pthread_t thread[4];
    for (uint64_t i = 1; i < 4; i++) CHECK(pthread_create(&thread[i], NULL, run, (void *)i) == 0);
    run(0);
    for (int i = 1; i < 4; i++) CHECK(pthread_join(thread[i], NULL) == 0);
    return ok();
}
