// A deep stack, which still grows after the restore, and has its rlimit.
#include "maps.h"

#define FRAME 8192

static void descend(int depth, int bottom, int wait_at) {
    volatile uint64_t frame[FRAME / 8];
    for (int i = 0; i < FRAME / 8; i++) frame[i] = mix((uint64_t)depth * FRAME + (uint64_t)i);
    if (depth == wait_at) {
        maps_save();
        ready();
        wait_go();
        maps_check();
    }
    if (depth < bottom) descend(depth + 1, bottom, wait_at);
    for (int i = 0; i < FRAME / 8; i++)
        if (frame[i] != mix((uint64_t)depth * FRAME + (uint64_t)i)) fail("frame %d is damaged", depth);
}

int main(void) {
    // 1 MiB when dumped, 6 MiB later.
    descend(0, 6 << 20 >> 13, 1 << 20 >> 13);
    return ok();
}
