/* The process that the benchmarks dump and restore.
 *
 *   workload DIR BYTES PAGES VMAS THREADS FDS PROCESSES RESERVED
 *
 * BYTES of private memory filled with incompressible data, in PAGES (4k | huge | zero), VMAS extra
 * one-page mappings with alternating protection, THREADS extra threads that wait, FDS extra descriptors,
 * PROCESSES children that wait, RESERVED bytes of which 1 % is touched. Afterwards the main
 * thread spins on a heartbeat: CLOCK_MONOTONIC in ns, written into DIR/heart, which is mapped
 * shared, so that the benchmark sees from outside when the program runs and when it does not. When the
 * generation there changes, it counts itself as up.
 * A byte in the same page asks for one of the limits: 'w' write all memory to DIR/own-write,
 * 'f' fork a child that exits, 't' read a word of each page (and note when it had); the time it took (ns) is left beside the heartbeat.
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct heart {
    volatile uint64_t beat, asked, took, ready, first, generation;
    uint64_t up, answered_at;
};

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int always_huge(void) {
    char text[64] = "";
    int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY);
    if (fd >= 0 && read(fd, text, sizeof text - 1) < 0) text[0] = 0;
    if (fd >= 0) close(fd);
    return strstr(text, "[always]") != 0;
}

static void *wait_forever(void *arg) {
    (void)arg;
    for (;;) pause();
}

static void own_write(const char *dir, const char *mem, size_t bytes) {
    char path[4096];
    snprintf(path, sizeof path, "%s/own-write", dir);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    if (fd < 0) die("own-write");
    for (size_t done = 0; done < bytes;) {
        size_t n = bytes - done < (1u << 20) ? bytes - done : (1u << 20);
        ssize_t k = write(fd, mem + done, n);
        if (k < 0) die("write");
        done += k;
    }
    close(fd);
    unlink(path);
}

int main(int argc, char **argv) {
    if (argc != 9) return 2;
    /* Whatever the caller left open is none of ours: a pipe of its could not be saved. */
    close_range(3, ~0u, 0);
    const char *dir = argv[1], *pages = argv[3];
    size_t bytes = strtoull(argv[2], 0, 0);
    int vmas = atoi(argv[4]), threads = atoi(argv[5]), fds = atoi(argv[6]), processes = atoi(argv[7]);
    size_t reserved = strtoull(argv[8], 0, 0);
    char path[4096];
    snprintf(path, sizeof path, "%s/heart", dir);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, 4096)) die(path);
    struct heart *h = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (h == MAP_FAILED) die("mmap heart");
    close(fd);

    size_t huge = 2u << 20;
    char *raw = mmap(0, bytes + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) die("mmap");
    char *mem = (char *)(((uintptr_t)raw + huge - 1) & ~(huge - 1));
    if (!strcmp(pages, "huge")) madvise(mem, bytes, MADV_HUGEPAGE);
    /* Where huge pages come unasked they must be refused, or there are no 4 KiB pages to measure. The
     * restored program then cannot be given them either. */
    if (strcmp(pages, "huge") && always_huge()) madvise(mem, bytes, MADV_NOHUGEPAGE);
    if (!strcmp(pages, "zero")) {
        for (size_t i = 0; i < bytes; i += 4096) mem[i] = 0;
    } else {
        uint64_t x = 88172645463325252ull;
        for (size_t i = 0; i < bytes / 8; i++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            /* As a heap has them: every fourth page noise, in the others pointers, small numbers and zeros. */
            int noise = strcmp(pages, "heap") || i / 512 % 4 == 0;
            ((uint64_t *)mem)[i] = noise ? x : i % 4 == 0 ? (uintptr_t)mem + (x & 0xfff0) : i % 4 == 1 ? x & 0xff : 0;
        }
    }
    for (int i = 0; i < vmas; i++) {
        char *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) die("mmap vma");
        *p = 1;
        if (i & 1) mprotect(p, 4096, PROT_READ);
    }
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 65536);
    for (int i = 0; i < threads; i++) {
        pthread_t t;
        if (pthread_create(&t, &attr, wait_forever, 0)) die("pthread_create");
    }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    for (int i = 0; i < fds; i++) {
        if ((i & 1 ? eventfd(i, 0) : open(path, O_RDONLY)) < 0) die("descriptors");
    }
    if (reserved) {
        char *p = mmap(0, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) die("mmap reservation");
        /* 1 page of each 100. */
        for (size_t i = 0; i < reserved; i += 100 * 4096) *(uint64_t *)(p + i) = i + 1;
    }
    for (int i = 0; i < processes; i++) {
        pid_t p = fork();
        if (p < 0) die("fork");
        if (!p) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            wait_forever(0);
        }
    }
    uint64_t generation = h->generation;
    h->ready = 1;
    for (;;) {
        h->beat = now();
        /* Programs do not spend all of their time in the vDSO. */
        for (volatile int i = 0; i < 1000; i++) continue;
        if (h->generation != generation) {
            generation = h->generation;
            __atomic_fetch_add(&h->up, 1, __ATOMIC_SEQ_CST);
        }
        /* The benchmark clears it, and need not keep a processor busy until the answer is there. */
        if (!h->first) h->first = h->beat;
        if (h->asked) {
            uint64_t start = now();
            if (h->asked == 'c')
                for (size_t i = 0; i < bytes; i += 100 * 4096) *(uint64_t *)(mem + i) += start;
            if (h->asked == 't') {
                uint64_t sum = 0;
                for (size_t i = 0; i < bytes; i += 4096) sum += *(volatile uint64_t *)(mem + i);
                h->answered_at = now() + (sum == 1);
            }
            if (h->asked == 'w') own_write(dir, mem, bytes);
            if (h->asked == 'f') {
                pid_t p = fork();
                if (!p) _exit(0);
                h->took = now() - start;
                waitpid(p, 0, 0);
            } else {
                h->took = now() - start;
            }
            h->asked = 0;
        }
    }
}
