// Process-shared synchronisation in use: a chain of waiters, each of which lets the next one go on.
#include "tree.h"
#include <linux/futex.h>
#include <semaphore.h>

struct shared {
    pthread_mutex_t mutex, checked, robust;
    pthread_cond_t cond;
    pthread_rwlock_t rwlock;
    pthread_barrier_t barrier;
    sem_t sem;
    uint32_t word;
    _Atomic int waiting, signalled, held, robust_held, log[8], logged;
};

static struct shared *s;

static void say(int who) {
    s->log[s->logged++] = who;
}

static void *waits_for_sem(void *arg) {
    s->waiting++;
    while (sem_wait(&s->sem)) CHECK(errno == EINTR);
    say(3);
    return arg;
}

static pid_t spawn(void (*body)(void), int code) {
    pid_t pid = forked();
    if (pid) return pid;
    body();
    _exit(code);
}

// Holds the mutexes; the one that checks its owner, too.
static void holder(void) {
    CHECK(pthread_mutex_lock(&s->mutex) == 0);
    CHECK(pthread_mutex_lock(&s->checked) == 0);
    CHECK(pthread_rwlock_rdlock(&s->rwlock) == 0);
    s->held = 1;
    prepared();
    await_go();
    EQ(pthread_mutex_lock(&s->checked), EDEADLK);
    CHECK(pthread_mutex_unlock(&s->checked) == 0);
    say(0);
    CHECK(pthread_rwlock_unlock(&s->rwlock) == 0);
    CHECK(pthread_mutex_unlock(&s->mutex) == 0);
}

static void waits_for_mutex(void) {
    UNTIL(s->held);
    prepared();
    s->waiting++;
    CHECK(pthread_mutex_lock(&s->mutex) == 0);
    say(1);
    s->signalled = 1;
    CHECK(pthread_cond_broadcast(&s->cond) == 0);
    CHECK(pthread_mutex_unlock(&s->mutex) == 0);
}

static void waits_for_cond(void) {
    CHECK(pthread_mutex_lock(&s->mutex) == 0);
    prepared();
    s->waiting++;
    while (!s->signalled) CHECK(pthread_cond_wait(&s->cond, &s->mutex) == 0);
    say(2);
    CHECK(pthread_mutex_unlock(&s->mutex) == 0);
    CHECK(sem_post(&s->sem) == 0);
}

static void waits_for_rwlock(void) {
    UNTIL(s->held);
    prepared();
    s->waiting++;
    CHECK(pthread_rwlock_wrlock(&s->rwlock) == 0);
    CHECK(pthread_rwlock_unlock(&s->rwlock) == 0);
}

static void waits_at_barrier(void) {
    prepared();
    s->waiting++;
    int result = pthread_barrier_wait(&s->barrier);
    CHECK(result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD);
}

static void waits_for_futex(void) {
    prepared();
    s->waiting++;
    while (__atomic_load_n(&s->word, __ATOMIC_SEQ_CST) == 0) syscall(SYS_futex, &s->word, FUTEX_WAIT, 0, NULL, NULL, 0);
}

// Dies with it.
static void robust_holder(void) {
    CHECK(pthread_mutex_lock(&s->robust) == 0);
    s->robust_held = 1;
    prepared();
    await_go();
}

static void robust_heir(void) {
    UNTIL(s->robust_held);
    prepared();
    s->waiting++;
    EQ(pthread_mutex_lock(&s->robust), EOWNERDEAD);
    CHECK(pthread_mutex_consistent(&s->robust) == 0);
    CHECK(pthread_mutex_unlock(&s->robust) == 0);
}

static void init(void) {
    pthread_mutexattr_t plain, checked, robust;
    pthread_condattr_t cond;
    pthread_rwlockattr_t rwlock;
    pthread_barrierattr_t barrier;
    pthread_mutexattr_init(&plain);
    CHECK(pthread_mutexattr_setpshared(&plain, PTHREAD_PROCESS_SHARED) == 0);
    checked = robust = plain;
    CHECK(pthread_mutexattr_settype(&checked, PTHREAD_MUTEX_ERRORCHECK) == 0);
    CHECK(pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST) == 0);
    CHECK(pthread_mutex_init(&s->mutex, &plain) == 0 && pthread_mutex_init(&s->checked, &checked) == 0);
    CHECK(pthread_mutex_init(&s->robust, &robust) == 0);
    pthread_condattr_init(&cond);
    CHECK(pthread_condattr_setpshared(&cond, PTHREAD_PROCESS_SHARED) == 0);
    CHECK(pthread_cond_init(&s->cond, &cond) == 0);
    pthread_rwlockattr_init(&rwlock);
    CHECK(pthread_rwlockattr_setpshared(&rwlock, PTHREAD_PROCESS_SHARED) == 0);
    CHECK(pthread_rwlock_init(&s->rwlock, &rwlock) == 0);
    pthread_barrierattr_init(&barrier);
    CHECK(pthread_barrierattr_setpshared(&barrier, PTHREAD_PROCESS_SHARED) == 0);
    CHECK(pthread_barrier_init(&s->barrier, &barrier, 3) == 0);
    CHECK(sem_init(&s->sem, 1, 0) == 0);
}

int main(void) {
    tree_begin();
    s = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(s != MAP_FAILED);
    init();
    pid_t pids[9];
    int count = 0;
    pthread_t thread;
    // This one first: it gives the mutex back only by waiting.
    pids[count++] = spawn(waits_for_cond, 12);
    UNTIL(s->waiting == 1);
    CHECK(pthread_mutex_lock(&s->mutex) == 0 && pthread_mutex_unlock(&s->mutex) == 0);
    pids[count++] = spawn(holder, 13);
    pids[count++] = spawn(waits_for_mutex, 14);
    pids[count++] = spawn(waits_for_rwlock, 15);
    pids[count++] = spawn(waits_at_barrier, 16);
    pids[count++] = spawn(waits_at_barrier, 17);
    pids[count++] = spawn(waits_for_futex, 18);
    pids[count++] = spawn(robust_holder, 19);
    pids[count++] = spawn(robust_heir, 20);
    CHECK(pthread_create(&thread, NULL, waits_for_sem, NULL) == 0);
    wait_prepared(count);
    UNTIL(s->waiting == 8);
    // They say so just before they wait.
    sleep_ms(20);
    EQ(s->logged, 0);
    ready();
    wait_go();
    CHECK(pthread_join(thread, NULL) == 0);
    EQ(s->logged, 4);
    for (int i = 0; i < 4; i++) EQ(s->log[i], i);
    // It may not be there yet; woken for nothing, it waits again.
    UNTIL(syscall(SYS_futex, &s->word, FUTEX_WAKE, 10, NULL, NULL, 0) == 1);
    __atomic_store_n(&s->word, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &s->word, FUTEX_WAKE, 10, NULL, NULL, 0);
    int result = pthread_barrier_wait(&s->barrier);
    CHECK(result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD);
    for (int i = 0; i < count; i++) reap(pids[i], EXITED(12 + i));
    no_children();
    return ok();
}
