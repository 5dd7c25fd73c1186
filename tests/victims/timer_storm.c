// One-shot timers that expire all the time, also during the dump: each signals exactly once. And periodic
// ones, so quick that their signal is pending whenever the process is stopped, that go on.
#include "victim.h"

#define N 400

static volatile sig_atomic_t fired[N], ticks, alarms;

static void on_timer(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)context;
    if (info->si_value.sival_int == N) ticks++;
    else fired[info->si_value.sival_int]++;
}

static void on_alarm(int sig) {
    (void)sig;
    alarms++;
}

static void start(int value, long first_us, long period_us) {
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = value};
    struct itimerspec when = {{0, period_us * 1000}, {first_us / 1000000, first_us % 1000000 * 1000}};
    timer_t timer;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    CHECK(timer_settime(timer, 0, &when, NULL) == 0);
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct itimerval quick = {{0, 5000}, {0, 5000}};
    CHECK(sigaction(SIGRTMIN, &action, NULL) == 0);
    CHECK(signal(SIGALRM, on_alarm) != SIG_ERR);
    ready();
    for (int i = 0; i < N; i++) start(i, 1000 + 3000 * i, 0);
    start(N, 5000, 5000);
    CHECK(setitimer(ITIMER_REAL, &quick, NULL) == 0);
    wait_go();
    long long end = now_ns(CLOCK_MONOTONIC) + 20000000000ll;
    int before = alarms, ticks_before = ticks;
    while (alarms < before + 3 || ticks < ticks_before + 3) {
        if (now_ns(CLOCK_MONOTONIC) > end)
            fail("periodic timers stand still: %d and %d signals", alarms - before, ticks - ticks_before);
        sleep_ms(1);
    }
    for (int i = 0; i < N; i++) {
        while (!fired[i] && now_ns(CLOCK_MONOTONIC) < end) sleep_ms(1);
        EQ(fired[i], 1);
    }
    return ok();
}
