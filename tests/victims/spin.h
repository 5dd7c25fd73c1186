// Threads that keep their registers in an asm loop until a flag in memory is set.
#ifndef SPIN_H
#define SPIN_H
#include "victim.h"

static volatile uint32_t spin_inside, spin_stop;

// Waits for go in a thread of its own, while the main thread spins.
static void *spin_waiter(void *unused) {
    (void)unused;
    while (!spin_inside) sched_yield();
    ready();
    wait_go();
    spin_stop = 1;
    return NULL;
}

static pthread_t spin_thread;

__attribute__((unused)) static void spin_begin(void) {
    CHECK(pthread_create(&spin_thread, NULL, spin_waiter, NULL) == 0);
}

__attribute__((unused)) static void spin_end(void) {
    CHECK(pthread_join(spin_thread, NULL) == 0);
}

// Spins on %[stop] after setting %[inside]; touches no register but the flags.
#define SPIN_ASM \
    "movl $1, spin_inside(%%rip)\n" \
    "1: pause\n" \
    "cmpl $0, spin_stop(%%rip)\n" \
    "je 1b\n"
#endif
