// timerfd: all clocks, absolute and relative, periodic with expirations, cancelled by a change of the time,
// disarmed ones; the periodic one in all forms.
#include "forms.h"
#include <sys/timerfd.h>

#define G 1000000000ll

static int relative[5] = {-1, -1, -1, -1, -1}, absolute[5] = {-1, -1, -1, -1, -1}, idle, expired, cancel;
static const clockid_t clocks[5] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME_ALARM,
                                    CLOCK_BOOTTIME_ALARM};
static long long until[5];

static int made(clockid_t clock, int flags, long long value, long long interval) {
    int fd = timerfd_create(clock, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0) return fd;
    struct itimerspec t = {{interval / G, interval % G}, {value / G, value % G}};
    CHECK(timerfd_settime(fd, flags, &t, NULL) == 0);
    return fd;
}

static int make(void) {
    for (int i = 0; i < 5; i++) {
        // The clock behind an alarm clock.
        clockid_t shown = i == 3 ? CLOCK_REALTIME : i == 4 ? CLOCK_BOOTTIME : clocks[i];
        relative[i] = made(clocks[i], 0, 900 * G, 70 * G);
        until[i] = now_ns(shown) + 800 * G;
        absolute[i] = made(clocks[i], TFD_TIMER_ABSTIME, until[i], 0);
        if (relative[i] < 0 && i < 3) fail("no timerfd of clock %d: %s", clocks[i], strerror(errno));
    }
    idle = made(CLOCK_MONOTONIC, 0, 0, 5 * G);
    expired = made(CLOCK_MONOTONIC, 0, 1, 0);
    cancel = made(CLOCK_REALTIME, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, until[0], 0);
    int periodic = made(CLOCK_BOOTTIME, 0, 1, 300 * G);
    struct pollfd both[2] = {{periodic, POLLIN, 0}, {expired, POLLIN, 0}};
    while (poll(both, 2, 1000) != 2) {
    }
    return periodic;
}

static long long left(int fd, long long *interval) {
    struct itimerspec t;
    CHECK(timerfd_gettime(fd, &t) == 0);
    *interval = t.it_interval.tv_sec * G + t.it_interval.tv_nsec;
    return t.it_value.tv_sec * G + t.it_value.tv_nsec;
}

// Absolute times of a clock that went on meanwhile are the same; best of some looks.
static void same_time(int fd, long long expected) {
    long long best = LLONG_MAX, interval;
    for (int i = 0; i < 20; i++) {
        long long off = llabs(now_ns(CLOCK_REALTIME) + left(fd, &interval) - expected);
        if (off < best) best = off;
    }
    if (best > 2000000) fail("a timer for a time of day is off by %lld ns", best);
}

static void check(int fd) {
    uint64_t count;
    long long interval, rest;
    for (int i = 0; i < 5; i++) {
        if (relative[i] < 0) continue;
        rest = left(relative[i], &interval);
        CHECK(rest > 700 * G && rest <= 900 * G);
        EQ(interval, 70 * G);
        rest = left(absolute[i], &interval);
        CHECK(rest > 600 * G && rest <= 800 * G);
        EQ(interval, 0);
        if (i == 0 || i == 3) same_time(absolute[i], until[i]);
    }
    EQ(left(idle, &interval), 0);
    EQ(interval, 5 * G);
    CHECK(read(idle, &count, 8) == -1 && errno == EAGAIN);
    CHECK(read(expired, &count, 8) == 8);
    EQ(count, 1);
    CHECK(read(expired, &count, 8) == -1 && errno == EAGAIN);
    same_time(cancel, until[0]);
    char path[64], text[600] = "";
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", cancel);
    int info = open(path, O_RDONLY | O_CLOEXEC);
    if (info >= 0) {
        CHECK(read(info, text, sizeof text - 1) > 0);
        CHECK(strstr(text, "settime flags: 03"));
        close(info);
    }
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    CHECK(read(fd, &count, 8) == 8);
    EQ(count, 1);
    CHECK(read(fd, &count, 8) == -1 && errno == EAGAIN);
    rest = left(fd, &interval);
    CHECK(rest > 100 * G && rest <= 300 * G);
    EQ(interval, 300 * G);
}

int main(int argc, char **argv) {
    return forms(argc, argv, &(struct kind){make, check, EPOLLIN, false});
}
