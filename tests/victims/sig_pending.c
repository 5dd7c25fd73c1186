// Pending signals of the process and of one thread: all of them, in order, with their siginfo.
#include "victim.h"

static sigset_t set;

static void queue(int sig, int value) {
    union sigval v = {.sival_ptr = (void *)(0x1234500000000 + (long)value)};
    CHECK(sigqueue(getpid(), sig, v) == 0);
}

static void expect(int sig, int code, long value) {
    siginfo_t info;
    struct timespec zero = {0, 0};
    memset(&info, 0, sizeof info);
    // Not sigtimedwait(): glibc shows SI_TKILL as SI_USER.
    int got = (int)syscall(SYS_rt_sigtimedwait, &set, &info, &zero, 8);
    if (got != sig) fail("signal %d (value %#lx), expected %d", got, (long)info.si_value.sival_ptr, sig);
    EQ(info.si_code, code);
    EQ(info.si_uid, getuid());
    if (code == SI_QUEUE) EQ((long)info.si_value.sival_ptr, 0x1234500000000 + value);
}

static void *idle(void *unused) {
    (void)unused;
    wait_go();
    return NULL;
}

int main(void) {
    sigfillset(&set);
    CHECK(pthread_sigmask(SIG_SETMASK, &set, NULL) == 0);
    pthread_t other;
    CHECK(pthread_create(&other, NULL, idle, NULL) == 0);
    int rt = SIGRTMIN + 5;
    for (int i = 0; i < 10; i++) queue(rt, i);
    queue(rt + 1, 100);
    queue(SIGUSR2, 200);
    CHECK(kill(getpid(), SIGTERM) == 0);
    for (int i = 0; i < 3; i++) {
        union sigval v = {.sival_ptr = (void *)(0x1234500000000 + 50l + i)};
        CHECK(pthread_sigqueue(pthread_self(), rt + 2, v) == 0);
    }
    CHECK(pthread_kill(pthread_self(), SIGHUP) == 0);
    ready();
    wait_go();
    CHECK(pthread_join(other, NULL) == 0);
    // The thread's own queue comes first, lower numbers before higher ones.
    expect(SIGHUP, SI_TKILL, 0);
    for (int i = 0; i < 3; i++) expect(rt + 2, SI_QUEUE, 50 + i);
    expect(SIGUSR2, SI_QUEUE, 200);
    expect(SIGTERM, SI_USER, 0);
    for (int i = 0; i < 10; i++) expect(rt, SI_QUEUE, i);
    expect(rt + 1, SI_QUEUE, 100);
    struct timespec zero = {0, 0};
    CHECK(sigtimedwait(&set, NULL, &zero) == -1 && errno == EAGAIN);
    return ok();
}
