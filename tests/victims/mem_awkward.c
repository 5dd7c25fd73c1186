// Mappings where nobody expects them: right above mmap_min_addr, in the last page, and all over the
// window where the kernel puts a new stack.
#include "maps.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

static int used;
static char *place[100];

static void put_at(uint64_t address, size_t len) {
    char *p = mmap((void *)address, len, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (p == MAP_FAILED) return;
    EQ((uint64_t)p, address);
    fill(p, len, address);
    place[used++] = p;
}

int main(void) {
    put_at(0x10000, PAGE);
    EQ(used, 1);
    put_at(0x12000, PAGE);
    put_at(0x7fffffffe000, PAGE);
    put_at(0x7ffffffde000, PAGE);
    int at_the_top = used; // without ASLR the stack itself is there
    CHECK(at_the_top >= 2);
    uint64_t here = (uint64_t)&here & ~(PAGE - 1);
    for (uint64_t a = 0x7ffc00000000; a < 0x7fffff000000; a += 0x0c000000) {
        // The stack must be able to grow.
        if (a < here - (32 << 20) || a > here) put_at(a, PAGE);
    }
    CHECK(used > 20);
    // Beside our own vDSO and stack.
    put_at(here - (64 << 20), PAGE);
    maps_save();
    ready();
    wait_go();
    maps_check();
    for (int i = 0; i < used; i++) verify(place[i], PAGE, (uint64_t)place[i]);
    return ok();
}
