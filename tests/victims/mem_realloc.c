// The allocator goes on: realloc of a huge block (mremap), many small blocks, threads' arenas.
#include "victim.h"

static char *small[2000];

static size_t size_of(int i) {
    return 16 + mix((uint64_t)i) % 3000 / 8 * 8;
}

int main(void) {
    char *huge = malloc(32 << 20);
    fill(huge, 32 << 20, 1);
    for (int i = 0; i < 2000; i++) fill(small[i] = malloc(size_of(i)), size_of(i), (uint64_t)i);
    for (int i = 0; i < 2000; i += 3) free(small[i]), small[i] = NULL;
    ready();
    wait_go();
    CHECK((huge = realloc(huge, 96 << 20)));
    verify(huge, 32 << 20, 1);
    memset(huge + (32 << 20), 1, 64 << 20);
    CHECK((huge = realloc(huge, 1 << 20)));
    verify(huge, 1 << 20, 1);
    for (int i = 0; i < 2000; i++) {
        if (!small[i]) continue;
        verify(small[i], size_of(i), (uint64_t)i);
        CHECK((small[i] = realloc(small[i], 2 * size_of(i))));
        verify(small[i], size_of(i), (uint64_t)i);
    }
    for (int i = 0; i < 2000; i++) free(small[i]);
    char *calloced = calloc(1, 4 << 20);
    verify_zero(calloced, 4 << 20);
    free(huge);
    return ok();
}
