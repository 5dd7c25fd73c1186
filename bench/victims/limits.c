/* The machine's limits, as seconds on stdout.
 *
 *   limits noop                    exits at once
 *   limits read FILE BYTES         fastest read of a cached file into fresh memory: two threads, huge pages
 *   limits memcpy BYTES            memcpy of warm memory, one thread
 *   limits create VMAS THREADS FDS PROCESSES    makes as many of these natively
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
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

static void *wait_forever(void *arg) {
    (void)arg;
    for (;;) pause();
}

static int create(char **argv) {
    int vmas = atoi(argv[2]), threads = atoi(argv[3]), fds = atoi(argv[4]), processes = atoi(argv[5]);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    double start = now();
    for (int i = 0; i < vmas; i++) {
        char *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return 1;
        *p = 1;
        if (i & 1) mprotect(p, 4096, PROT_READ);
    }
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 65536);
    for (int i = 0; i < threads; i++) {
        pthread_t t;
        if (pthread_create(&t, &attr, wait_forever, 0)) return 1;
    }
    for (int i = 0; i < fds; i++) {
        if ((i & 1 ? eventfd(i, 0) : open("/proc/self/exe", O_RDONLY)) < 0) return 1;
    }
    pid_t parent = getpid();
    for (int i = 0; i < processes; i++) {
        pid_t p = fork();
        if (p < 0) return 1;
        if (!p) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            /* It may have ended before; nobody is to wait for our end of its output then. */
            if (getppid() != parent) _exit(0);
            wait_forever(0);
        }
    }
    printf("%.9f\n", now() - start);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 6 && !strcmp(argv[1], "create")) return create(argv);
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
