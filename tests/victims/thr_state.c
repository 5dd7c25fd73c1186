// What the kernel keeps for each thread: mask, alternate stack, name, affinity, policy, nice, slack,
// robust list, ids as libc caches them.
#include "victim.h"

#define N 4

struct state {
    sigset_t mask;
    stack_t alt;
    char name[16];
    cpu_set_t cpus;
    int policy, nice, ioprio;
    struct sched_param param;
    long slack;
    uint64_t robust, robust_len;
};

static struct state before[N];
static pthread_barrier_t barrier;

static void look(struct state *s) {
    memset(s, 0, sizeof *s);
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &s->mask) == 0);
    CHECK(sigaltstack(NULL, &s->alt) == 0);
    CHECK(prctl(PR_GET_NAME, s->name) == 0);
    CHECK(sched_getaffinity(0, sizeof s->cpus, &s->cpus) == 0);
    CHECK((s->policy = sched_getscheduler(0)) >= 0);
    CHECK(sched_getparam(0, &s->param) == 0);
    s->nice = getpriority(PRIO_PROCESS, (id_t)gettid());
    CHECK((s->ioprio = (int)syscall(SYS_ioprio_get, 1, 0)) >= 0);
    CHECK((s->slack = prctl(PR_GET_TIMERSLACK)) >= 0);
    CHECK(syscall(SYS_get_robust_list, 0, &s->robust, &s->robust_len) == 0);
}

static void prepare(int i) {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1 + i);
    sigaddset(&mask, SIGRTMIN + i);
    CHECK(pthread_sigmask(SIG_SETMASK, &mask, NULL) == 0);
    stack_t alt = {.ss_sp = map(8 * PAGE, PROT_READ | PROT_WRITE), .ss_size = 8 * PAGE - 64 * (size_t)i};
    if (i != 2) CHECK(sigaltstack(&alt, NULL) == 0);
    char name[16];
    snprintf(name, sizeof name, i == 3 ? "fifteen letters" : "t%d", i);
    CHECK(prctl(PR_SET_NAME, name) == 0);
    cpu_set_t cpus;
    CHECK(sched_getaffinity(0, sizeof cpus, &cpus) == 0);
    if (i == 1 && CPU_COUNT(&cpus) > 1) {
        int first = 0;
        while (!CPU_ISSET(first, &cpus)) first++;
        CPU_CLR(first, &cpus);
        CHECK(sched_setaffinity(0, sizeof cpus, &cpus) == 0);
    }
    struct sched_param param = {0};
    if (i == 1) CHECK(sched_setscheduler(0, SCHED_BATCH, &param) == 0);
    if (i == 2) CHECK(sched_setscheduler(0, SCHED_IDLE, &param) == 0);
    CHECK(setpriority(PRIO_PROCESS, (id_t)gettid(), 2 * i) == 0);
    if (i == 3) {
        param.sched_priority = 7;
        (void)sched_setscheduler(0, SCHED_FIFO, &param); // where permitted
    }
    // Best effort, level i + 2.
    CHECK(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | (i + 2)) == 0);
    CHECK(prctl(PR_SET_TIMERSLACK, 12345 + i) == 0);
}

static void *run(void *number) {
    long i = (long)number;
    prepare((int)i);
    look(&before[i]);
    pthread_barrier_wait(&barrier);
    if (i == 0) ready();
    wait_go();
    struct state now, *was = &before[i];
    look(&now);
    EQ(memcmp(&now.mask, &was->mask, 8), 0);
    EQ((uint64_t)now.alt.ss_sp, (uint64_t)was->alt.ss_sp);
    EQ(now.alt.ss_size, was->alt.ss_size);
    EQ(now.alt.ss_flags, was->alt.ss_flags);
    if (strcmp(now.name, was->name)) fail("the name was %s, is %s", was->name, now.name);
    CHECK(CPU_EQUAL(&now.cpus, &was->cpus));
    EQ(now.policy, was->policy);
    EQ(now.param.sched_priority, was->param.sched_priority);
    EQ(now.nice, was->nice);
    EQ(now.ioprio, was->ioprio);
    EQ(now.slack, was->slack);
    EQ(now.robust, was->robust);
    EQ(now.robust_len, was->robust_len);
    // raise() uses the id that libc has cached, or the kernel's: the signal must arrive here.
    sigset_t pending;
    CHECK(pthread_kill(pthread_self(), SIGUSR1 + (int)i) == 0);
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1 + (int)i));
    return NULL;
}

int main(void) {
    pthread_t thread[N];
    pthread_barrier_init(&barrier, NULL, N);
    for (long i = 1; i < N; i++) CHECK(pthread_create(&thread[i], NULL, run, (void *)i) == 0);
    run(0);
    for (long i = 1; i < N; i++) CHECK(pthread_join(thread[i], NULL) == 0);
    return ok();
}
