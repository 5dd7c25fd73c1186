// The least: a pattern in .data, .bss and the heap.
#include "victim.h"

static uint64_t data[1000] = {1};
static uint64_t bss[1000];

int main(void) {
    uint64_t *heap = malloc(100000);
    fill(data, sizeof data, 1);
    fill(bss, sizeof bss, 2);
    fill(heap, 100000, 3);
    ready();
    wait_go();
    verify(data, sizeof data, 1);
    verify(bss, sizeof bss, 2);
    verify(heap, 100000, 3);
    return ok();
}
