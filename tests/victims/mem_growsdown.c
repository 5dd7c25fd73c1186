// MAP_GROWSDOWN: a stack that still grows.
#include "maps.h"

int main(void) {
    // Room below, so that it can grow.
    char *room = map(8 << 20, PROT_NONE);
    CHECK(munmap(room, 8 << 20) == 0);
    char *top = room + (8 << 20) - 4 * PAGE;
    char *p = mmap(top, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    CHECK(p == top);
    fill(p, 4 * PAGE, 1);
    fill(p - PAGE, PAGE, 2); // grown once
    maps_save();
    ready();
    wait_go();
    maps_check();
    verify(p, 4 * PAGE, 1);
    verify(p - PAGE, PAGE, 2);
    for (uint64_t i = 2; i < 100; i++) fill(p - i * PAGE, PAGE, i);
    for (uint64_t i = 2; i < 100; i++) verify(p - i * PAGE, PAGE, i);
    return ok();
}
