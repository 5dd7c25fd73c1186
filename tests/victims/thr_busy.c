// Threads that never rest: counters under a mutex and by atomics agree in the end.
#include "victim.h"

#define N 4
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static volatile bool stop;
static long under_mutex, sums[N];
static atomic_long atomic;
static _Thread_local long own;

static void *run(void *number) {
    double x = (double)(long)number;
    while (!stop) {
        for (int i = 0; i < 200; i++) x = x * 1.0000001 + 0.5;
        pthread_mutex_lock(&mutex);
        under_mutex++;
        pthread_mutex_unlock(&mutex);
        atomic++;
        own++;
    }
    sums[(long)number] = own;
    CHECK(x == x);
    return NULL;
}

int main(void) {
    pthread_t thread[N];
    for (long i = 0; i < N; i++) CHECK(pthread_create(&thread[i], NULL, run, (void *)i) == 0);
    ready();
    wait_go();
    stop = true;
    long sum = 0;
    for (long i = 0; i < N; i++) {
        CHECK(pthread_join(thread[i], NULL) == 0);
        sum += sums[i];
    }
    EQ(sum, under_mutex);
    EQ(sum, atomic);
    return ok();
}
