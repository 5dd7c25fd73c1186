// Private anonymous memory: dense, sparse, zero pages, pages that were only read.
#include "maps.h"

#define SPARSE (1ul << 30)

int main(void) {
    char *dense = map(3 << 20, PROT_READ | PROT_WRITE);
    char *sparse = map(SPARSE, PROT_READ | PROT_WRITE);
    char *zero = map(64 * PAGE, PROT_READ | PROT_WRITE);
    char *readonly = map(16 * PAGE, PROT_READ | PROT_WRITE);
    fill(dense, 3 << 20, 1);
    for (size_t at = 0; at < SPARSE; at += 1000 * PAGE) fill(sparse + at, PAGE, at);
    memset(zero, 0, 32 * PAGE);
    verify_zero(zero + 32 * PAGE, 16 * PAGE);
    fill(readonly, 16 * PAGE, 2);
    CHECK(mprotect(readonly, 16 * PAGE, PROT_READ) == 0);
    maps_save();
    ready();
    wait_go();
    maps_check();
    verify(dense, 3 << 20, 1);
    for (size_t at = 0; at < SPARSE; at += 1000 * PAGE) {
        verify(sparse + at, PAGE, at);
        verify_zero(sparse + at + PAGE, PAGE);
    }
    verify_zero(zero, 64 * PAGE);
    verify(readonly, 16 * PAGE, 2);
    fill(dense, 3 << 20, 5);
    verify(dense, 3 << 20, 5);
    return ok();
}
