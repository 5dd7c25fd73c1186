// Reservations of terabytes with parts in use.
#include "maps.h"

#define TB (1ul << 40)

int main(void) {
    char *none = mmap(NULL, 4 * TB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char *sparse = mmap(NULL, 200ul << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char *plain = mmap(NULL, TB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(none != MAP_FAILED && sparse != MAP_FAILED && plain != MAP_FAILED);
    for (uint64_t i = 0; i < 20; i++) {
        char *part = none + i * (TB / 8);
        CHECK(mprotect(part, 8 * PAGE, PROT_READ | PROT_WRITE) == 0);
        fill(part, 4 * PAGE, i);
        fill(sparse + i * (9ul << 30), PAGE, 100 + i);
    }
    // Written, then closed again: contents stay.
    CHECK(mprotect(none + TB / 16, PAGE, PROT_READ | PROT_WRITE) == 0);
    fill(none + TB / 16, PAGE, 50);
    CHECK(mprotect(none + TB / 16, PAGE, PROT_NONE) == 0);
    maps_save();
    ready();
    wait_go();
    maps_check();
    for (uint64_t i = 0; i < 20; i++) {
        verify(none + i * (TB / 8), 4 * PAGE, i);
        verify_zero(none + i * (TB / 8) + 4 * PAGE, 4 * PAGE);
        verify(sparse + i * (9ul << 30), PAGE, 100 + i);
        verify_zero(sparse + i * (9ul << 30) + PAGE, PAGE);
    }
    CHECK(mprotect(none + TB / 16, PAGE, PROT_READ) == 0);
    verify(none + TB / 16, PAGE, 50);
    CHECK(mprotect(none + TB * 3, PAGE, PROT_READ | PROT_WRITE) == 0);
    verify_zero(none + TB * 3, PAGE);
    return ok();
}
