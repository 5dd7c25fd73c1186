// Flags of VMAs: seen in VmFlags, and felt by a forked child.
#include "maps.h"

#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

int main(void) {
    // Apart, so that no two of them could be one VMA.
    char *p[10];
    for (int i = 0; i < 10; i++) {
        p[i] = map(8 * PAGE, PROT_READ | PROT_WRITE);
        CHECK(mprotect(p[i], PAGE, PROT_NONE) == 0);
        p[i] += PAGE;
        fill(p[i], 4 * PAGE, (uint64_t)i);
    }
    CHECK(mlock(p[0], 3 * PAGE) == 0);
    CHECK(mlock2(p[1], 3 * PAGE, MLOCK_ONFAULT) == 0);
    CHECK(madvise(p[2], 3 * PAGE, MADV_DONTFORK) == 0);
    CHECK(madvise(p[3], 3 * PAGE, MADV_WIPEONFORK) == 0);
    CHECK(madvise(p[4], 3 * PAGE, MADV_DONTDUMP) == 0);
    (void)madvise(p[5], 3 * PAGE, MADV_MERGEABLE); // where the kernel has it
    CHECK(madvise(p[6], 3 * PAGE, MADV_SEQUENTIAL) == 0);
    CHECK(madvise(p[7], 3 * PAGE, MADV_RANDOM) == 0);
    CHECK(madvise(p[8], 3 * PAGE, MADV_NOHUGEPAGE) == 0 || errno == EINVAL);
    char *untouched = map(8 * PAGE, PROT_READ | PROT_WRITE);
    CHECK(madvise(untouched, 8 * PAGE, MADV_DONTFORK) == 0);
    maps_save();
    ready();
    wait_go();
    maps_check();
    for (int i = 0; i < 10; i++) verify(p[i], 4 * PAGE, (uint64_t)i);
    pid_t child = fork();
    if (child == 0) {
        unsigned char in_core;
        CHECK(mincore(p[2], PAGE, &in_core) == -1 && errno == ENOMEM);
        verify_zero(p[3], 3 * PAGE);
        verify(p[3] + 3 * PAGE, PAGE, 3 + 3 * PAGE / 8);
        verify(p[4], 4 * PAGE, 4);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    EQ(status, 0);
    return ok();
}
