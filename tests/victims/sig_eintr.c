// A handled signal interrupts a read without SA_RESTART (EINTR) and restarts one with it.
#include "victim.h"

static int fds[2][2];
static volatile int handled;
static atomic_int done;

static void on_signal(int sig) {
    (void)sig;
    handled++;
}

static void *reader(void *which) {
    char c;
    ssize_t n = read(fds[(long)which][0], &c, 1);
    int error = errno;
    if ((long)which == 0) {
        if (n != -1 || error != EINTR) fail("read without SA_RESTART: %zd, errno %d", n, error);
    } else if (n != 1 || c != 'x') {
        fail("read with SA_RESTART: %zd, errno %d", n, error);
    }
    done++;
    return NULL;
}

int main(void) {
    struct sigaction action = {.sa_handler = on_signal};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    action.sa_flags = SA_RESTART;
    CHECK(sigaction(SIGUSR2, &action, NULL) == 0);
    pthread_t thread[2];
    for (long i = 0; i < 2; i++) {
        CHECK(pipe(fds[i]) == 0);
        CHECK(pthread_create(&thread[i], NULL, reader, (void *)i) == 0);
    }
    sleep_ms(50); // both are in read() then; if not, the test is only weaker
    ready();
    wait_go();
    EQ(done, 0);
    CHECK(pthread_kill(thread[0], SIGUSR1) == 0);
    CHECK(pthread_kill(thread[1], SIGUSR2) == 0);
    CHECK(pthread_join(thread[0], NULL) == 0);
    while (handled < 2) sleep_ms(1);
    EQ(done, 1);
    CHECK(write(fds[1][1], "x", 1) == 1);
    CHECK(pthread_join(thread[1], NULL) == 0);
    return ok();
}
