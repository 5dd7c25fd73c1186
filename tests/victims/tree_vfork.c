// tree_vfork MS: a thread is in vfork(2) when the dump comes: the child leaves it after so many ms.
#include "tree.h"

static volatile int in_vfork;
static int delay;

static void *forks(void *arg) {
    pid_t child = vfork();
    if (child == 0) {
        in_vfork = 1;
        struct timespec left = {delay / 1000, delay % 1000 * 1000000};
        while (nanosleep(&left, &left) && errno == EINTR) {
        }
        _exit(31);
    }
    CHECK(child > 0);
    *(pid_t *)arg = child;
    return NULL;
}

int main(int argc, char **argv) {
    pid_t child = 0, other;
    pthread_t thread;
    delay = argc > 1 ? atoi(argv[1]) : 200;
    other = forked();
    if (other == 0) {
        await_go();
        _exit(4);
    }
    CHECK(pthread_create(&thread, NULL, forks, &child) == 0);
    UNTIL(in_vfork);
    ready();
    wait_go();
    CHECK(pthread_join(thread, NULL) == 0);
    reap(child, EXITED(31));
    reap(other, EXITED(4));
    no_children();
    return ok();
}
