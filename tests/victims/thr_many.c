// Many threads: each with its own TLS, counter and name, under one mutex, woken by a condition.
#include "victim.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int round_, waiting, total, threads;
static __thread uint64_t mine[100];

static void *run(void *number) {
    uint64_t seed = (uint64_t)number * 1000;
    char name[16], now[16];
    snprintf(name, sizeof name, "worker %d", (int)(uint64_t)number);
    CHECK(pthread_setname_np(pthread_self(), name) == 0);
    fill(mine, sizeof mine, seed);
    for (int round = 1; round <= 3; round++) {
        pthread_mutex_lock(&mutex);
        waiting++;
        pthread_cond_broadcast(&changed);
        while (round_ < round) pthread_cond_wait(&changed, &mutex);
        total++;
        pthread_mutex_unlock(&mutex);
        verify(mine, sizeof mine, seed);
        seed += 7;
        fill(mine, sizeof mine, seed);
    }
    CHECK(pthread_getname_np(pthread_self(), now, sizeof now) == 0);
    EQ(strcmp(now, name), 0);
    return number;
}

static void all_wait(int rounds) {
    pthread_mutex_lock(&mutex);
    while (waiting < threads * rounds) pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
}

static void next_round(void) {
    pthread_mutex_lock(&mutex);
    round_++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

int main(int argc, char **argv) {
    threads = argc > 1 ? atoi(argv[1]) : 8;
    pthread_t *thread = calloc((size_t)threads, sizeof *thread);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 128 << 10);
    for (long i = 0; i < threads; i++) CHECK(pthread_create(&thread[i], &attr, run, (void *)i) == 0);
    all_wait(1);
    next_round();
    all_wait(2);
    ready();
    wait_go();
    next_round();
    all_wait(3);
    next_round();
    for (long i = 0; i < threads; i++) {
        void *result;
        CHECK(pthread_join(thread[i], &result) == 0);
        EQ(result, i);
    }
    EQ(total, 3 * threads);
    return ok();
}
