// A priority-inheriting mutex that is held, with a waiter in FUTEX_LOCK_PI; a robust one as well; a
// reader-writer lock, a barrier, a semaphore and a condition with waiters.
#include "victim.h"
#include <semaphore.h>

static pthread_mutex_t pi, robust_pi, plain = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static sem_t sem;
static atomic_int got;
static bool flag;

static void init(pthread_mutex_t *m, int robustness) {
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
    pthread_mutexattr_setrobust(&attr, robustness);
    CHECK(pthread_mutex_init(m, &attr) == 0);
}

static void *wait_pi(void *mutex) {
    EQ(pthread_mutex_lock(mutex), 0);
    got++;
    EQ(pthread_mutex_unlock(mutex), 0);
    return NULL;
}

static void *wait_rw(void *unused) {
    (void)unused;
    EQ(pthread_rwlock_wrlock(&rw), 0);
    got++;
    EQ(pthread_rwlock_unlock(&rw), 0);
    return NULL;
}

static void *wait_cond(void *unused) {
    (void)unused;
    pthread_mutex_lock(&plain);
    while (!flag) pthread_cond_wait(&cond, &plain);
    got++;
    pthread_mutex_unlock(&plain);
    return NULL;
}

static void *wait_barrier(void *unused) {
    (void)unused;
    pthread_barrier_wait(&barrier);
    got++;
    return NULL;
}

static void *wait_sem(void *unused) {
    (void)unused;
    EQ(sem_wait(&sem), 0);
    got++;
    return NULL;
}

int main(void) {
    init(&pi, PTHREAD_MUTEX_STALLED);
    init(&robust_pi, PTHREAD_MUTEX_ROBUST);
    pthread_barrier_init(&barrier, NULL, 2);
    sem_init(&sem, 0, 0);
    EQ(pthread_mutex_lock(&pi), 0);
    EQ(pthread_mutex_lock(&robust_pi), 0);
    EQ(pthread_rwlock_wrlock(&rw), 0);
    pthread_t thread[6];
    CHECK(pthread_create(&thread[0], NULL, wait_pi, &pi) == 0);
    CHECK(pthread_create(&thread[1], NULL, wait_pi, &robust_pi) == 0);
    CHECK(pthread_create(&thread[2], NULL, wait_rw, NULL) == 0);
    CHECK(pthread_create(&thread[3], NULL, wait_cond, NULL) == 0);
    CHECK(pthread_create(&thread[4], NULL, wait_barrier, NULL) == 0);
    CHECK(pthread_create(&thread[5], NULL, wait_sem, NULL) == 0);
    sleep_ms(30); // all are blocked then; if not, the test is only weaker
    ready();
    wait_go();
    EQ(got, 0);
    EQ(pthread_mutex_unlock(&pi), 0);
    EQ(pthread_mutex_unlock(&robust_pi), 0);
    EQ(pthread_rwlock_unlock(&rw), 0);
    pthread_mutex_lock(&plain);
    flag = true;
    pthread_cond_broadcast(&cond);
    pthread_mutex_unlock(&plain);
    pthread_barrier_wait(&barrier);
    EQ(sem_post(&sem), 0);
    for (int i = 0; i < 6; i++) CHECK(pthread_join(thread[i], NULL) == 0);
    EQ(got, 6);
    return ok();
}
