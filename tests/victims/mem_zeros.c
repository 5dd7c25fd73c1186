// What makes eager restores exact: DONTNEED and growth by mremap give zeros, not the saved bytes.
#include "maps.h"

int main(void) {
    char *p = map(64 * PAGE, PROT_READ | PROT_WRITE);
    char *grow = map(16 * PAGE, PROT_READ | PROT_WRITE);
    char *down = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fill(p, 64 * PAGE, 1);
    fill(grow, 16 * PAGE, 2);
    fill(down, 64 * PAGE, 3);
    maps_save();
    ready();
    wait_go();
    maps_check();
    verify(p, 64 * PAGE, 1);
    CHECK(madvise(p + 3 * PAGE, 20 * PAGE, MADV_DONTNEED) == 0);
    verify(p, 3 * PAGE, 1);
    verify_zero(p + 3 * PAGE, 20 * PAGE);
    CHECK((grow = mremap(grow, 16 * PAGE, 256 * PAGE, MREMAP_MAYMOVE)) != MAP_FAILED);
    verify(grow, 16 * PAGE, 2);
    verify_zero(grow + 16 * PAGE, 240 * PAGE);
    CHECK((down = mremap(down, 64 * PAGE, 8 * PAGE, 0)) != MAP_FAILED);
    CHECK((down = mremap(down, 8 * PAGE, 64 * PAGE, MREMAP_MAYMOVE)) != MAP_FAILED);
    verify(down, 8 * PAGE, 3);
    verify_zero(down + 8 * PAGE, 56 * PAGE);
    return ok();
}
