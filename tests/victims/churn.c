// churn KIND: never at rest, so that a dump meets it anywhere. It verifies itself all the time.
#include "victim.h"
#include <sys/socket.h>

static volatile bool stop;
static atomic_long rounds;

// Threads that come and go.
static void *short_lived(void *number) {
    return (void *)((long)number * 3);
}

static void *threads(void *seed) {
    for (long i = (long)seed; !stop; i++) {
        pthread_t thread;
        void *result;
        int error = pthread_create(&thread, NULL, short_lived, (void *)i);
        if (error) fail("pthread_create: %s", strerror(error));
        CHECK(pthread_join(thread, &result) == 0);
        EQ(result, i * 3);
        rounds++;
    }
    return NULL;
}

// Bytes through a pipe, each of them accounted for.
static int pipes[8][2];

static void *writer(void *which) {
    uint64_t n = 0;
    while (!stop) {
        EQ(write(pipes[(long)which][1], &n, 8), 8);
        n++;
    }
    n = UINT64_MAX;
    EQ(write(pipes[(long)which][1], &n, 8), 8);
    return NULL;
}

static void *reader(void *which) {
    for (uint64_t expected = 0;; expected++) {
        uint64_t n;
        EQ(read(pipes[(long)which][0], &n, 8), 8);
        if (n == UINT64_MAX) return NULL;
        EQ(n, expected);
        rounds++;
    }
}

// Memory that is mapped, moved, protected, and given back.
static void *memory(void *seed) {
    for (uint64_t i = (uint64_t)seed; !stop; i++) {
        size_t len = (1 + i % 20) * PAGE;
        char *p = map(len, PROT_READ | PROT_WRITE);
        fill(p, len, i);
        CHECK((p = mremap(p, len, len + 8 * PAGE, MREMAP_MAYMOVE)) != MAP_FAILED);
        verify(p, len, i);
        verify_zero(p + len, 8 * PAGE);
        CHECK(mprotect(p, PAGE, PROT_READ) == 0);
        CHECK(madvise(p, len, MADV_DONTNEED) == 0);
        verify_zero(p, len);
        CHECK(munmap(p, len + 8 * PAGE) == 0);
        rounds++;
    }
    return NULL;
}

// Short sleeps and waits: each ends with what it should.
static void *sleeps(void *unused) {
    (void)unused;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    while (!stop) {
        struct timespec t = {0, 300000};
        EQ(clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL), 0);
        clock_gettime(CLOCK_REALTIME, &t);
        t.tv_nsec += 200000;
        if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
        pthread_mutex_lock(&mutex);
        EQ(pthread_cond_timedwait(&never, &mutex, &t), ETIMEDOUT);
        pthread_mutex_unlock(&mutex);
        CHECK(syscall(SYS_getppid) >= 0);
        rounds++;
    }
    return NULL;
}

// Signals all the time, from a timer and from the thread itself.
static atomic_long by_timer, by_raise;

static void on_alarm(int sig) {
    (void)sig;
    by_timer++;
}

static void on_usr1(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)context;
    by_raise += info->si_value.sival_int;
}

static void *signals(void *unused) {
    (void)unused;
    long expected = 0, sum = 0;
    union sigval v = {.sival_int = 3};
    while (!stop) {
        CHECK(pthread_sigqueue(pthread_self(), SIGUSR1, v) == 0);
        expected += 3;
        EQ(by_raise, expected);
        double x = (double)expected;
        for (int i = 0; i < 100; i++) x = x * 0.5 + 1;
        sum += (long)x;
        rounds++;
    }
    CHECK(sum != -1);
    return NULL;
}

static void start(pthread_t *to, void *(*run)(void *), long argument) {
    CHECK(pthread_create(to, NULL, run, (void *)argument) == 0);
}

int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "threads";
    pthread_t thread[8];
    int n = 4;
    if (!strcmp(kind, "signals")) {
        struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
        CHECK(sigaction(SIGALRM, &action, NULL) == 0);
        struct sigaction queued = {.sa_sigaction = on_usr1, .sa_flags = SA_SIGINFO | SA_RESTART};
        CHECK(sigaction(SIGUSR1, &queued, NULL) == 0);
        struct itimerval often = {{0, 500}, {0, 500}};
        CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    }
    for (long i = 0; i < n; i++) {
        CHECK(pipe(pipes[i]) == 0);
        if (!strcmp(kind, "threads")) start(&thread[i], threads, i * 1000000);
        else if (!strcmp(kind, "pipes")) start(&thread[i], i % 2 ? reader : writer, i / 2);
        else if (!strcmp(kind, "memory")) start(&thread[i], memory, i * 1000);
        else if (!strcmp(kind, "sleeps")) start(&thread[i], sleeps, 0);
        else if (!strcmp(kind, "signals") && i == 0) start(&thread[i], signals, n = 1);
        else fail("no such kind: %s", kind);
    }
    while (rounds < 100) sleep_ms(1);
    ready();
    wait_go();
    // It goes on, not only survives.
    long now = rounds;
    while (rounds < now + 100) sleep_ms(1);
    stop = true;
    for (int i = 0; i < n; i++) CHECK(pthread_join(thread[i], NULL) == 0);
    return ok();
}
