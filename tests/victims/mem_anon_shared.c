// Shared anonymous memory is one object, whoever maps it: two mappings, and a forked child.
#include "maps.h"

int main(void) {
    char *a = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(a != MAP_FAILED);
    char *b = mremap(a + 8 * PAGE, 0, 16 * PAGE, MREMAP_MAYMOVE);
    CHECK(b != MAP_FAILED && b != a);
    char *other = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(other != MAP_FAILED);
    fill(a, 32 * PAGE, 1);
    fill(other, 4 * PAGE, 3);
    maps_save();
    ready();
    wait_go();
    maps_check();
    verify(a, 32 * PAGE, 1);
    verify_zero(a + 32 * PAGE, 32 * PAGE);
    verify(other, 4 * PAGE, 3);
    EQ(memcmp(b, a + 8 * PAGE, 16 * PAGE), 0);
    fill(b, PAGE, 9);
    verify(a + 8 * PAGE, PAGE, 9);
    if (fork() == 0) {
        fill(a + 40 * PAGE, PAGE, 11);
        _exit(0);
    }
    CHECK(wait(NULL) > 0);
    verify(a + 40 * PAGE, PAGE, 11);
    return ok();
}
