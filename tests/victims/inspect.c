// Threads that wait at known places, and text in memory: for who looks into an image.
#include "victim.h"
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

static pthread_barrier_t all_there;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static int stop;
volatile int known_global = 4711;

__attribute__((noinline)) static int descend(int depth, const char *why) {
    volatile int local = depth * 10;
    if (depth == 0) {
        ready();
        wait_go();
        return local + (why != NULL);
    }
    return descend(depth - 1, why) + local;
}

__attribute__((noinline)) static void *waits_for_condition(void *arg) {
    pthread_setname_np(pthread_self(), "condition");
    pthread_mutex_lock(&mutex);
    pthread_barrier_wait(&all_there);
    while (!stop) pthread_cond_wait(&never, &mutex);
    pthread_mutex_unlock(&mutex);
    return arg;
}

__attribute__((noinline)) static void *waits_for_event(void *arg) {
    pthread_setname_np(pthread_self(), "event");
    uint64_t count;
    pthread_barrier_wait(&all_there);
    CHECK(read((int)(intptr_t)arg, &count, 8) == 8);
    return arg;
}

int main(void) {
    int event = eventfd(0, 0);
    char *page = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    snprintf(page + 4096, 64, "the answer is %d", known_global);
    char where[32];
    snprintf(where, sizeof where, "%lx", (unsigned long)(page + 4096));
    put("address", where);
    pthread_barrier_init(&all_there, NULL, 3);
    pthread_t threads[2];
    pthread_create(&threads[0], NULL, waits_for_condition, NULL);
    pthread_create(&threads[1], NULL, waits_for_event, (void *)(intptr_t)event);
    pthread_barrier_wait(&all_there);
    EQ(descend(4, "no reason"), 101);
    EQ(page[4096 + 14] == '4', 1);
    stop = 1;
    pthread_cond_signal(&never);
    uint64_t one = 1;
    CHECK(write(event, &one, 8) == 8);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    return ok();
}
