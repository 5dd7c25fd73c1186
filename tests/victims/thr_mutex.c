// Mutexes held across the dump: recursive and error-checking ones know their owner; a robust one
// notices its owner's death; clear_child_tid wakes the joiner.
#include "victim.h"

static pthread_mutex_t recursive, checking, robust;
static pthread_mutex_t held_by_thread;
static volatile bool created;

static void init(pthread_mutex_t *m, int type, int robustness) {
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, type);
    pthread_mutexattr_setrobust(&attr, robustness);
    CHECK(pthread_mutex_init(m, &attr) == 0);
}

static void *run(void *unused) {
    (void)unused;
    EQ(pthread_mutex_lock(&robust), 0);
    EQ(pthread_mutex_lock(&held_by_thread), 0);
    // In pthread_create() signals are blocked, which would be seen before, and not after.
    while (!created) usleep(1000);
    ready();
    wait_go();
    EQ(pthread_mutex_lock(&held_by_thread), 0);
    EQ(pthread_mutex_unlock(&held_by_thread), 0);
    EQ(pthread_mutex_unlock(&held_by_thread), 0);
    return NULL; // dies with the robust one held
}

int main(void) {
    init(&recursive, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_STALLED);
    init(&held_by_thread, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_STALLED);
    init(&checking, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_STALLED);
    init(&robust, PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST);
    EQ(pthread_mutex_lock(&recursive), 0);
    EQ(pthread_mutex_lock(&checking), 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run, NULL) == 0);
    created = true;
    CHECK(pthread_join(thread, NULL) == 0);
    EQ(pthread_mutex_trylock(&recursive), 0);
    EQ(pthread_mutex_unlock(&recursive), 0);
    EQ(pthread_mutex_unlock(&recursive), 0);
    EQ(pthread_mutex_lock(&checking), EDEADLK);
    EQ(pthread_mutex_unlock(&checking), 0);
    EQ(pthread_mutex_lock(&robust), EOWNERDEAD);
    EQ(pthread_mutex_consistent(&robust), 0);
    EQ(pthread_mutex_unlock(&robust), 0);
    return ok();
}
