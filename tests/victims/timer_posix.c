// POSIX timers: ids (sparse), clocks, remaining times and intervals, targets, and that they fire.
#include "victim.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define N 8
static int ids[N];
static volatile int fired[N], in_thread;
static volatile pid_t target_tid;
static __thread bool is_target;
static volatile bool thread_stop;

static void on_signal(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)context;
    if (info->si_code != SI_TIMER) return;
    fired[info->si_value.sival_int]++;
    if (info->si_value.sival_int == 5 && is_target) in_thread++;
}

static void *target(void *unused) {
    (void)unused;
    is_target = true;
    target_tid = gettid();
    while (!thread_stop) sleep_ms(1);
    return NULL;
}

static void create(int i, clockid_t clock, struct sigevent *e) {
    e->sigev_value.sival_int = i;
    CHECK(syscall(SYS_timer_create, clock, e, &ids[i]) == 0);
}

static void set(int i, long ms, long interval_ms) {
    struct itimerspec t = {{interval_ms / 1000, interval_ms % 1000 * 1000000}, {ms / 1000, ms % 1000 * 1000000}};
    CHECK(syscall(SYS_timer_settime, ids[i], 0, &t, NULL) == 0);
}

static void expect(int i, long max_ms, long interval_ms) {
    struct itimerspec t;
    CHECK(syscall(SYS_timer_gettime, ids[i], &t) == 0);
    long left = t.it_value.tv_sec * 1000 + t.it_value.tv_nsec / 1000000;
    EQ(t.it_interval.tv_sec * 1000 + t.it_interval.tv_nsec / 1000000, interval_ms);
    if (left > max_ms || left < max_ms - 90000 || (max_ms && !left))
        fail("timer %d: %ld ms remain of %ld", i, left, max_ms);
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    CHECK(sigaction(SIGRTMIN + 1, &action, NULL) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, target, NULL) == 0);
    while (!target_tid) sleep_ms(1);
    struct sigevent by_signal = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct sigevent by_rt = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1};
    struct sigevent silent = {.sigev_notify = SIGEV_NONE};
    struct sigevent by_thread = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    by_thread.sigev_notify_thread_id = target_tid;
    int gap;
    create(0, CLOCK_MONOTONIC, &by_signal);
    for (int i = 0; i < 50; i++) {
        CHECK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &silent, &gap) == 0);
        CHECK(syscall(SYS_timer_delete, gap) == 0);
    }
    create(1, CLOCK_REALTIME, &by_rt);
    create(2, CLOCK_MONOTONIC, &silent);
    create(3, CLOCK_BOOTTIME, &by_signal);
    create(4, CLOCK_PROCESS_CPUTIME_ID, &silent);
    create(5, CLOCK_MONOTONIC, &by_thread);
    create(6, CLOCK_MONOTONIC, &by_signal); // never armed
    create(7, CLOCK_REALTIME, &by_rt); // absolute
    ready();
    set(0, 300000, 0);
    set(1, 400000, 5000);
    set(2, 500000, 7000);
    set(3, 600000, 0);
    set(4, 700000, 0);
    set(5, 20, 20);
    struct itimerspec at = {{0, 0}, {time(NULL) + 800, 0}};
    CHECK(syscall(SYS_timer_settime, ids[7], TIMER_ABSTIME, &at, NULL) == 0);
    wait_go();
    expect(0, 300000, 0);
    expect(1, 400000, 5000);
    expect(2, 500000, 7000);
    expect(3, 600000, 0);
    expect(4, 700000, 0);
    expect(6, 0, 0);
    expect(7, 800000, 0);
    in_thread = 0;
    fired[5] = 0;
    while (in_thread < 3) sleep_ms(1);
    thread_stop = true;
    CHECK(pthread_join(thread, NULL) == 0);
    set(0, 1, 0);
    set(1, 1, 1);
    while (!fired[0] || fired[1] < 3) sleep_ms(1);
    EQ(fired[3] + fired[6] + fired[7], 0);
    for (int i = 0; i < N; i++) CHECK(syscall(SYS_timer_delete, ids[i]) == 0);
    return ok();
}
