// The same 8 MiB three times: twice here, at other offsets from a page's neighbours and with pages of their own in
// between, and once in a child that has made them itself. Equal pages are stored once (--dedup).
#include "tree.h"

#define SIZE (8ul << 20)
#define SHIFT (37 * PAGE)

// Different pages, but the same ones for the same seed.
static void make(char *to, int n) {
    for (size_t at = 0; at < SIZE; at += PAGE) fill(to + at, PAGE, at * 977 + 5);
    // Some are its own; long and short runs are between them.
    for (size_t p = n; p < SIZE / PAGE; p += 1 + p % 61 + 3 * n) fill(to + p * PAGE, PAGE, 1000000007ul * (n + 1) + p);
}

static void check(char *have, int n) {
    char *expected = map(SIZE, PROT_READ | PROT_WRITE);
    make(expected, n);
    CHECK(memcmp(have, expected, SIZE) == 0);
    munmap(expected, SIZE);
}

int main(void) {
    tree_begin();
    char *one = map(SIZE, PROT_READ | PROT_WRITE);
    char *two = map(SIZE + SHIFT, PROT_READ | PROT_WRITE);
    pid_t child = forked();
    if (child == 0) {
        char *three = map(SIZE, PROT_READ | PROT_WRITE);
        make(three, 2);
        prepared();
        await_go();
        check(three, 2);
        _exit(33);
    }
    make(one, 0);
    make(two + SHIFT, 1);
    fill(two, PAGE, 9);
    wait_prepared(1);
    ready();
    wait_go();
    check(one, 0);
    check(two + SHIFT, 1);
    verify(two, PAGE, 9);
    reap(child, EXITED(33));
    return ok();
}
