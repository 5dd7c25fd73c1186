// setitimer: what remains, and that it fires.
#include "victim.h"

static volatile int fired[65];
static volatile uint64_t sink;

static void on_signal(int sig) {
    fired[sig]++;
}

static long long us(struct timeval t) {
    return t.tv_sec * 1000000ll + t.tv_usec;
}

int main(void) {
    signal(SIGALRM, on_signal);
    signal(SIGVTALRM, on_signal);
    signal(SIGPROF, on_signal);
    struct itimerval real = {{3, 250000}, {1000, 0}}, virtual = {{0, 5000}, {0, 40000}}, prof = {{7, 0}, {500, 0}};
    ready();
    // Armed after ready(), so that the test takes no part of the remaining time.
    CHECK(setitimer(ITIMER_REAL, &real, NULL) == 0);
    CHECK(setitimer(ITIMER_VIRTUAL, &virtual, NULL) == 0);
    CHECK(setitimer(ITIMER_PROF, &prof, NULL) == 0);
    wait_go();
    struct itimerval now;
    CHECK(getitimer(ITIMER_REAL, &now) == 0);
    EQ(us(now.it_interval), 3250000);
    CHECK(us(now.it_value) > 900000000 && us(now.it_value) <= 1000050000);
    CHECK(getitimer(ITIMER_PROF, &now) == 0);
    EQ(us(now.it_interval), 7000000);
    CHECK(us(now.it_value) > 490000000 && us(now.it_value) <= 500050000);
    CHECK(getitimer(ITIMER_VIRTUAL, &now) == 0);
    EQ(us(now.it_interval), 5000);
    while (fired[SIGVTALRM] < 3) sink++;
    EQ(fired[SIGALRM], 0);
    EQ(fired[SIGPROF], 0);
    struct itimerval soon = {{0, 0}, {0, 1000}};
    CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    while (!fired[SIGALRM]) sleep_ms(1);
    return ok();
}
