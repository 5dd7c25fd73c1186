// Runs itself anew all the time, under the same pid, until told to go. Now and then it has several other threads,
// which the exec kills: whoever attaches to one of them while another is dead must not wait for its own doing.
#include "victim.h"

static void *other(void *unused) {
    (void)unused;
    for (;;) sleep_ms(1000);
    return NULL;
}

int main(int argc, char **argv) {
    long n = argc > 1 ? atol(argv[1]) : 0;
    if (n == 20) ready();
    if (access(in_dir("go"), F_OK) == 0) return ok();
    if (n > 200000) fail("nobody said go");
    // Killed by the exec, sometimes.
    pthread_t thread;
    for (int i = 0; n % 3 == 0 && i < (n % 2 ? 1 : 8); i++) CHECK(pthread_create(&thread, NULL, other, NULL) == 0);
    char next[20];
    snprintf(next, sizeof next, "%ld", n + 1);
    execl(argv[0], argv[0], next, NULL);
    fail("cannot execute %s: %s", argv[0], strerror(errno));
}
