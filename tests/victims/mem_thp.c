// Transparent huge pages wanted, and not wanted.
#include "maps.h"

int main(void) {
    size_t huge = 2 << 20;
    char *raw = map(10 * huge, PROT_READ | PROT_WRITE);
    char *aligned = (char *)(((uintptr_t)raw + huge - 1) & ~(huge - 1));
    CHECK(madvise(aligned, 4 * huge, MADV_HUGEPAGE) == 0);
    CHECK(madvise(aligned + 4 * huge, 4 * huge, MADV_NOHUGEPAGE) == 0);
    fill(aligned, 3 * huge, 1);
    fill(aligned + 3 * huge + PAGE, PAGE, 2);
    fill(aligned + 4 * huge, huge, 3);
    maps_save();
    ready();
    wait_go();
    maps_check();
    verify(aligned, 3 * huge, 1);
    verify_zero(aligned + 3 * huge, PAGE);
    verify(aligned + 3 * huge + PAGE, PAGE, 2);
    verify_zero(aligned + 3 * huge + 2 * PAGE, huge - 2 * PAGE);
    verify(aligned + 4 * huge, huge, 3);
    verify_zero(aligned + 5 * huge, 3 * huge);
    return ok();
}
