// 64 MiB that four children share copy-on-write with their parent, apart from a few pages: stored once.
#include "tree.h"

#define SIZE (64ul << 20)
#define CHILDREN 4
#define OWN 16

static char *memory;

// Pages of process n (0 is the root) that it has written since the fork.
static char *own(int n, int i) {
    return memory + (SIZE / OWN) * i + n * PAGE;
}

static void check(int n) {
    for (size_t at = 0; at < SIZE; at += PAGE) {
        bool mine = false;
        for (int i = 0; i < OWN; i++) mine |= memory + at == own(n, i);
        verify(memory + at, PAGE, mine ? 1000000000ul * (n + 1) + at : at / 8);
    }
}

static void change(int n) {
    for (int i = 0; i < OWN; i++) fill(own(n, i), PAGE, 1000000000ul * (n + 1) + (own(n, i) - memory));
}

int main(void) {
    pid_t below[CHILDREN];
    tree_begin();
    memory = map(SIZE, PROT_READ | PROT_WRITE);
    fill(memory, SIZE, 0);
    for (int n = 0; n < CHILDREN; n++) {
        below[n] = forked();
        if (below[n] == 0) {
            change(n + 1);
            prepared();
            await_go();
            check(n + 1);
            _exit(60 + n);
        }
    }
    wait_prepared(CHILDREN);
    change(0);
    ready();
    wait_go();
    check(0);
    for (int n = 0; n < CHILDREN; n++) reap(below[n], EXITED(60 + n));
    return ok();
}
