/* Sums numbers, and saves itself half way: job IMAGE */
#include <ckpt.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    unsigned long sum = 0;
    for (unsigned long i = 1; i <= 1000; i++) {
        sum += i;
        if (i != 500) continue;
        uint64_t id;
        switch (ckpt_checkpoint(argv[1], NULL, &id)) {
        case CKPT_SAVED: printf("C: saved at %lu as checkpoint %d\n", i, (int)id); break;
        case CKPT_RESTORED: printf("C: restored at %lu\n", i); break;
        default: fprintf(stderr, "C: not saved: %s\n", ckpt_error()); return 1;
        }
    }
    printf("C: the sum is %lu\n", sum);
    return 0;
}
