// The main thread has ended; the others go on.
#include "victim.h"

static void *run(void *main_thread) {
    CHECK(pthread_join((pthread_t)main_thread, NULL) == 0);
    ready();
    wait_go();
    exit(ok());
}

int main(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run, (void *)pthread_self()) == 0);
    pthread_exit(NULL);
}
