// rseq: the registration works after the restore, and a thread that was stopped inside a critical
// section goes on at its abort handler.
#include "victim.h"
#include <cpuid.h>
#include <sys/rseq.h>

extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned __rseq_size __attribute__((weak));

static struct rseq *area(void) {
    if (!&__rseq_size || !__rseq_size) skip("this libc does not register rseq");
    return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

uint32_t stop;
uint64_t gaps, longest, aborts, entered;
static uint64_t allowed;

// A critical section that spins until `stop`, and keeps the longest time between two of its rounds.
// When nothing restarts it, a stop of the process shows as such a gap.
static void section(struct rseq *r) {
    uint64_t now, last, max;
    __asm__ volatile(".pushsection __rseq_cs, \"aw\"\n .balign 32\n"
                     "3: .long 0, 0\n .quad 1f, 2f - 1f, 4f\n .popsection\n"
                     "0: lea 3b(%%rip), %%rax\n mov %%rax, %[cs]\n"
                     "1: rdtsc\n shl $32, %%rdx\n or %%rdx, %%rax\n mov %%rax, %[last]\n"
                     "incq entered(%%rip)\n"
                     "5: pause\n rdtsc\n shl $32, %%rdx\n or %%rdx, %%rax\n mov %%rax, %[now]\n"
                     "sub %[last], %%rax\n mov %[now], %[last]\n"
                     "cmp longest(%%rip), %%rax\n jbe 6f\n mov %%rax, longest(%%rip)\n"
                     "6: cmpl $0, stop(%%rip)\n je 5b\n"
                     "2: jmp 7f\n"
                     ".long %c[sig]\n"
                     "4: incq aborts(%%rip)\n jmp 0b\n"
                     "7:\n"
                     : [cs] "=m"(r->rseq_cs), [now] "=&r"(now), [last] "=&r"(last), [max] "=&r"(max)
                     : [sig] "i"(RSEQ_SIG)
                     : "rax", "rdx", "memory", "cc");
}

static void *waiter(void *unused) {
    (void)unused;
    while (!__atomic_load_n(&entered, __ATOMIC_RELAXED)) sched_yield();
    ready();
    wait_go();
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    return NULL;
}

int main(void) {
    struct rseq *r = area();
    uint64_t start = __builtin_ia32_rdtsc();
    long long t = now_ns(CLOCK_MONOTONIC);
    while (now_ns(CLOCK_MONOTONIC) - t < 10000000) {
    }
    allowed = (__builtin_ia32_rdtsc() - start) * 8; // 80 ms
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, waiter, NULL) == 0);
    section(r);
    CHECK(pthread_join(thread, NULL) == 0);
    if (longest > allowed) fail("the critical section went on after a pause of %lu ms", longest / (allowed / 80));
    // The registration lives: the kernel keeps cpu_id right wherever we are.
    cpu_set_t all, one;
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &all)) continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
        EQ(*(volatile uint32_t *)&r->cpu_id, cpu);
        unsigned real;
        CHECK(syscall(SYS_getcpu, &real, NULL, NULL) == 0);
        EQ(real, cpu);
    }
    fprintf(stderr, "%lu aborts\n", aborts);
    return ok();
}
