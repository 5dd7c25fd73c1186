/* The machine's limits, as seconds on stdout.
 *
 *   limits noop                    exits at once
 *   limits read FILE BYTES         fastest read of a cached file into fresh memory: two threads, huge pages
 *   limits memcpy BYTES            memcpy of warm memory, one thread
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static char *mem;
static size_t half;
static int fd;

static void *read_half(void *arg) {
    size_t from = arg ? half : 0, to = from + half;
    while (from < to) {
        ssize_t n = pread(fd, mem + from, to - from < (1u << 20) ? to - from : (1u << 20), from);
        if (n <= 0) exit(1);
        from += n;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2 || !strcmp(argv[1], "noop")) return 0;
    size_t bytes = strtoull(argv[argc - 1], 0, 0), huge = 2u << 20;
    half = bytes / 2 & ~(size_t)4095;
    char *raw = mmap(0, bytes + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) return 1;
    mem = (char *)(((uintptr_t)raw + huge - 1) & ~(huge - 1));
    madvise(mem, bytes, MADV_HUGEPAGE);
    double start = now();
    if (!strcmp(argv[1], "read")) {
        fd = open(argv[2], O_RDONLY);
        if (fd < 0) return 1;
        pthread_t other;
        start = now();
        pthread_create(&other, 0, read_half, (void *)1);
        read_half(0);
        pthread_join(other, 0);
    } else {
        memset(mem, 1, bytes);
        start = now();
        memcpy(mem, mem + half, half);
        printf("%.9f\n", (now() - start) * 2);
        return 0;
    }
    printf("%.9f\n", now() - start);
    return 0;
}
