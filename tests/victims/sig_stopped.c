// In a group stop when dumped, with a signal under way; SIGCONT continues it, and it gets the signal.
#include "victim.h"

static volatile int continued;

static void on_cont(int sig) {
    (void)sig;
    continued = 1;
}

static volatile int usr2;

static void on_usr2(int sig) {
    (void)sig;
    usr2++;
}

static void *other(void *unused) {
    (void)unused;
    while (!continued) sleep_ms(1);
    return NULL;
}

int main(void) {
    signal(SIGCONT, on_cont);
    signal(SIGUSR2, on_usr2);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, other, NULL) == 0);
    ready();
    CHECK(raise(SIGSTOP) == 0);
    while (!continued) sleep_ms(1);
    CHECK(pthread_join(thread, NULL) == 0);
    wait_go();
    EQ(usr2, 1);
    return ok();
}
