// 5,000 VMAs.
#include "maps.h"

#define N 5000

int main(void) {
    char *p = map(N * 2 * PAGE, PROT_READ | PROT_WRITE);
    for (uint64_t i = 0; i < N; i++) {
        if (i % 7 != 3) fill(p + i * 2 * PAGE, PAGE, i);
        if (i % 2) CHECK(mprotect(p + i * 2 * PAGE, 2 * PAGE, PROT_READ) == 0);
    }
    maps_save();
    ready();
    wait_go();
    maps_check();
    for (uint64_t i = 0; i < N; i++) {
        if (i % 7 != 3) verify(p + i * 2 * PAGE, PAGE, i);
        else verify_zero(p + i * 2 * PAGE, PAGE);
        verify_zero(p + i * 2 * PAGE + PAGE, PAGE);
    }
    return ok();
}
