// eventfd, timerfd, signalfd.
#include "victim.h"
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

static long left_ms(int fd, long *interval) {
    struct itimerspec t;
    CHECK(timerfd_gettime(fd, &t) == 0);
    *interval = t.it_interval.tv_sec * 1000 + t.it_interval.tv_nsec / 1000000;
    return t.it_value.tv_sec * 1000 + t.it_value.tv_nsec / 1000000;
}

int main(void) {
    int count = eventfd(1234567890, EFD_NONBLOCK), semaphore = eventfd(3, EFD_SEMAPHORE | EFD_CLOEXEC);
    CHECK(count >= 0 && semaphore >= 0);
    uint64_t value = 12345678900, big;
    CHECK(write(count, &value, 8) == 8);
    int far = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), real = timerfd_create(CLOCK_REALTIME, 0);
    int ticking = timerfd_create(CLOCK_BOOTTIME, 0), expired = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    int idle = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec t = {{7, 0}, {500, 0}};
    CHECK(timerfd_settime(far, 0, &t, NULL) == 0);
    struct itimerspec absolute = {{0, 0}, {time(NULL) + 800, 0}};
    CHECK(timerfd_settime(real, TFD_TIMER_ABSTIME, &absolute, NULL) == 0);
    struct itimerspec fast = {{0, 5000000}, {0, 5000000}}, once = {{0, 0}, {0, 1}};
    CHECK(timerfd_settime(ticking, 0, &fast, NULL) == 0);
    CHECK(timerfd_settime(expired, 0, &once, NULL) == 0);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGRTMIN + 3);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    int signals = signalfd(-1, &set, SFD_NONBLOCK);
    CHECK(signals >= 0);
    union sigval v = {.sival_int = 99};
    CHECK(sigqueue(getpid(), SIGRTMIN + 3, v) == 0);
    sleep_ms(2);
    ready();
    wait_go();
    CHECK(read(count, &big, 8) == 8);
    EQ(big, 1234567890 + 12345678900);
    CHECK(read(count, &big, 8) == -1 && errno == EAGAIN);
    for (int i = 0; i < 3; i++) {
        CHECK(read(semaphore, &big, 8) == 8);
        EQ(big, 1);
    }
    EQ(fcntl(semaphore, F_GETFD), FD_CLOEXEC);
    long interval, left = left_ms(far, &interval);
    EQ(interval, 7000);
    CHECK(left > 400000 && left <= 500000);
    left = left_ms(real, &interval);
    CHECK(left > 700000 && left <= 800000);
    CHECK(read(ticking, &big, 8) == 8 && big > 0);
    CHECK(read(ticking, &big, 8) == 8 && big > 0);
    CHECK(read(expired, &big, 8) == 8);
    EQ(big, 1);
    CHECK(read(expired, &big, 8) == -1 && errno == EAGAIN);
    CHECK(read(idle, &big, 8) == -1 && errno == EAGAIN);
    struct signalfd_siginfo info;
    CHECK(read(signals, &info, sizeof info) == sizeof info);
    EQ(info.ssi_signo, SIGRTMIN + 3);
    EQ(info.ssi_int, 99);
    CHECK(kill(getpid(), SIGUSR2) == 0);
    CHECK(read(signals, &info, sizeof info) == sizeof info);
    EQ(info.ssi_signo, SIGUSR2);
    CHECK(read(signals, &info, sizeof info) == -1 && errno == EAGAIN);
    return ok();
}
