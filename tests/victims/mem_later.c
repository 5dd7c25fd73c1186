// 32 MiB that change between two dumps: single pages, a part that grows, one that shrinks, one given back with
// MADV_DONTNEED, one that has been split and moved, new ones; then a child with pages of its own.
#include "tree.h"

#define PART (8ul << 20)

static char *kept, *grown, *shrunk, *dropped, *split, *fresh;

static void write_some(char *at, size_t step, size_t seed) {
    for (size_t p = 1; p < PART / PAGE; p += step) fill(at + p * PAGE, PAGE, seed + p);
}

static void first(void) {
    kept = map(PART, PROT_READ | PROT_WRITE);
    grown = map(PART, PROT_READ | PROT_WRITE);
    shrunk = map(PART, PROT_READ | PROT_WRITE);
    dropped = map(PART, PROT_READ | PROT_WRITE);
    split = map(PART, PROT_READ | PROT_WRITE);
    fill(kept, PART, 1);
    fill(grown, PART, 2000000);
    fill(shrunk, PART, 4000000);
    fill(dropped, PART, 6000000);
    fill(split, PART, 8000000);
}

static void then(void) {
    write_some(kept, 97, 10000000);
    grown = mremap(grown, PART, 2 * PART, MREMAP_MAYMOVE);
    CHECK(grown != MAP_FAILED);
    fill(grown + PART, PART, 12000000);
    CHECK(munmap(shrunk + PART / 2, PART / 2) == 0);
    CHECK(madvise(dropped + 16 * PAGE, 64 * PAGE, MADV_DONTNEED) == 0);
    // To where other contents were.
    CHECK(mremap(split, PART / 2, PART / 2, MREMAP_MAYMOVE | MREMAP_FIXED, shrunk + PART / 2) != MAP_FAILED);
    fresh = map(PART, PROT_READ | PROT_WRITE);
    fill(fresh, PART, 14000000);
}

static void check(void) {
    for (size_t p = 0; p < PART / PAGE; p++) {
        size_t seed = p % 97 == 1 ? 10000000 + p : 1 + p * PAGE / 8;
        verify(kept + p * PAGE, PAGE, seed);
    }
    verify(grown, PART, 2000000);
    verify(grown + PART, PART, 12000000);
    verify(shrunk, PART / 2, 4000000);
    verify(dropped, 16 * PAGE, 6000000);
    verify_zero(dropped + 16 * PAGE, 64 * PAGE);
    verify(dropped + 80 * PAGE, PART - 80 * PAGE, 6000000 + 80 * PAGE / 8);
    verify(shrunk + PART / 2, PART / 2, 8000000);
    verify(split + PART / 2, PART / 2, 8000000 + PART / 16);
    verify(fresh, PART, 14000000);
}

int main(void) {
    tree_begin();
    first();
    ready();
    for (int i = 0; access(in_dir("change"), F_OK) != 0; i++) {
        if (i > 120000) fail("nobody said change");
        sleep_ms(1);
    }
    then();
    pid_t child = forked();
    if (child == 0) {
        fill(kept, PAGE, 77);
        prepared();
        await_go();
        verify(kept, PAGE, 77);
        fill(kept, PAGE, 1);
        check();
        _exit(44);
    }
    wait_prepared(1);
    put("changed", "");
    wait_go();
    check();
    reap(child, EXITED(44));
    return ok();
}
