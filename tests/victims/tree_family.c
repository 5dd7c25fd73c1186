// Children and grandchildren with threads in each: memory of their own and memory as it was at the fork,
// thread-local variables, ids, who waits for whom.
#include "tree.h"

#define CHILDREN 3
#define GRANDCHILDREN 2
#define THREADS 2

static __thread uint64_t mine;
static uint64_t *inherited, *changed;
static pthread_barrier_t started;
static int me;

static void *other(void *arg) {
    pid_t tid = gettid();
    mine = mix((uintptr_t)arg);
    pthread_barrier_wait(&started);
    await_go();
    EQ(mine, mix((uintptr_t)arg));
    EQ(gettid(), tid);
    return arg;
}

// What every process prepares, then (after the go) checks.
static void member(int number, int descendants) {
    me = number;
    pthread_t threads[THREADS];
    struct ids before;
    uint64_t *own = map(16 * PAGE, PROT_READ | PROT_WRITE);
    fill(own, 16 * PAGE, number);
    fill(changed + 512 * number, PAGE, number);
    mine = mix(1000 + number);
    CHECK(pthread_barrier_init(&started, NULL, THREADS + 1) == 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, other, (void *)(number * 10 + i)) == 0);
    pthread_barrier_wait(&started);
    before = ids();
    if (number == 0) {
        wait_prepared(descendants);
        ready();
        wait_go();
    } else {
        prepared();
        await_go();
    }
    same_ids(before);
    EQ(me, number);
    EQ(mine, mix(1000 + number));
    verify(own, 16 * PAGE, number);
    verify(inherited, 32 * PAGE, 77);
    for (int i = 0; i < 32; i++)
        if (i == number) verify(changed + 512 * i, PAGE, i);
    for (uintptr_t i = 0; i < THREADS; i++) {
        void *result;
        CHECK(pthread_join(threads[i], &result) == 0);
        EQ((uintptr_t)result, number * 10 + i);
    }
    // Pages of the others are others.
    fill(inherited, 32 * PAGE, 100 + number);
}

static void child(int number) {
    pid_t below[GRANDCHILDREN];
    for (int i = 0; i < GRANDCHILDREN; i++) {
        below[i] = forked();
        if (below[i] == 0) {
            member(10 + number * GRANDCHILDREN + i, 0);
            verify(inherited, 32 * PAGE, 100 + me);
            no_children();
            _exit(50 + i);
        }
    }
    member(1 + number, 0);
    for (int i = GRANDCHILDREN - 1; i >= 0; i--) reap(below[i], EXITED(50 + i));
    verify(inherited, 32 * PAGE, 100 + me);
    no_children();
    _exit(20 + number);
}

int main(void) {
    tree_begin();
    inherited = map(32 * PAGE, PROT_READ | PROT_WRITE);
    changed = map(32 * PAGE, PROT_READ | PROT_WRITE);
    fill(inherited, 32 * PAGE, 77);
    pid_t below[CHILDREN];
    for (int i = 0; i < CHILDREN; i++) {
        below[i] = forked();
        if (below[i] == 0) child(i);
    }
    member(0, CHILDREN * (1 + GRANDCHILDREN));
    for (int i = 0; i < CHILDREN; i++) reap(below[i], EXITED(20 + i));
    verify(inherited, 32 * PAGE, 100);
    no_children();
    return ok();
}
