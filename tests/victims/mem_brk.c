// The break: grows and shrinks after the restore; new memory is zero.
#include "maps.h"

int main(void) {
    char *start = sbrk(0);
    CHECK(sbrk(1 << 20) == start);
    fill(start, 1 << 20, 1);
    maps_save();
    ready();
    wait_go();
    maps_check();
    EQ((long)sbrk(0), (long)start + (1 << 20));
    verify(start, 1 << 20, 1);
    CHECK(sbrk(2 << 20) == start + (1 << 20));
    verify_zero(start + (1 << 20), 2 << 20);
    fill(start + (1 << 20), 2 << 20, 2);
    verify(start, 1 << 20, 1);
    CHECK(sbrk(-(2 << 20) - (512 << 10)) != (void *)-1);
    unsigned char in_core;
    CHECK(mincore(start + (512 << 10), PAGE, &in_core) == -1 && errno == ENOMEM);
    CHECK(sbrk(512 << 10) == start + (512 << 10));
    verify_zero(start + (512 << 10), 512 << 10);
    verify(start, 512 << 10, 1);
    return ok();
}
