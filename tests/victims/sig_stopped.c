// In a group stop when dumped; SIGCONT continues it.
#include "victim.h"

static volatile int continued;

static void on_cont(int sig) {
    (void)sig;
    continued = 1;
}

static void *other(void *unused) {
    (void)unused;
    while (!continued) sleep_ms(1);
    return NULL;
}

int main(void) {
    signal(SIGCONT, on_cont);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, other, NULL) == 0);
    ready();
    CHECK(raise(SIGSTOP) == 0);
    while (!continued) sleep_ms(1);
    CHECK(pthread_join(thread, NULL) == 0);
    wait_go();
    return ok();
}
