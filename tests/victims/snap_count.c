// Counts without end in memory of every kind: private, shared, not inherited by a fork, wiped by a fork, and
// in a second thread. In each moment the counters differ by one at most, in this order; a mixture of two
// moments would show at the next step. CKPT_DIR/beat tells the count to the outside.
#include "victim.h"

struct beat {
    volatile uint64_t now, first;
};

static struct beat *beat;
static volatile uint64_t *counter[5];
static volatile int end;
static volatile uint64_t turn;

static volatile uint64_t *counter_in(int flags, int advice) {
    size_t len = 64 * PAGE;
    char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
    CHECK(p != MAP_FAILED);
    if (advice) CHECK(madvise(p, len, advice) == 0);
    fill(p, len, (uint64_t)flags + (uint64_t)advice);
    volatile uint64_t *word = (volatile uint64_t *)(p + 32 * PAGE);
    *word = 0;
    return word;
}

// Takes every second step.
static void *other(void *unused) {
    (void)unused;
    uint64_t n = 0;
    for (;;) {
        while (turn != 1) {
            if (end) return NULL;
            sched_yield();
        }
        if (*counter[4] != n) fail("the other thread's counter is %lu, expected %lu", *counter[4], n);
        *counter[4] = ++n;
        turn = 0;
    }
}

static void *count(void *unused) {
    (void)unused;
    for (uint64_t n = 0; !end;) {
        for (int i = 0; i < 5; i++) {
            if (*counter[i] != n) fail("counter %d is %lu, expected %lu", i, *counter[i], n);
        }
        n++;
        for (int i = 0; i < 4; i++) *counter[i] = n;
        turn = 1;
        while (turn != 0 && !end) sched_yield();
        beat->now = n;
        if (!beat->first) beat->first = n;
    }
    return NULL;
}

int main(void) {
    int fd = open(in_dir("beat"), O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)PAGE) == 0);
    beat = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(beat != MAP_FAILED);
    close(fd);
    counter[0] = counter_in(MAP_PRIVATE, 0);
    counter[1] = counter_in(MAP_SHARED, 0);
    counter[2] = counter_in(MAP_PRIVATE, MADV_DONTFORK);
    counter[3] = counter_in(MAP_PRIVATE, MADV_WIPEONFORK);
    counter[4] = counter_in(MAP_PRIVATE, 0);
    // Some that takes its time to be written.
    size_t much = 64 << 20;
    void *p = mmap(NULL, much, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    fill(p, much, 7);
    pthread_t threads[2];
    CHECK(pthread_create(&threads[0], NULL, count, NULL) == 0);
    CHECK(pthread_create(&threads[1], NULL, other, NULL) == 0);
    ready();
    wait_go();
    end = 1;
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    verify(p, much, 7);
    return ok();
}
