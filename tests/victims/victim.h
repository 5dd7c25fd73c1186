// What all victims share.
//
// A victim prepares a state, calls ready(), waits in wait_go() (where it is dumped, killed, restored),
// verifies the state, and returns ok(). CKPT_DIR is the directory of the test.
#ifndef VICTIM_H
#define VICTIM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul

// "CKPT_DIR/name", in a buffer that each thread overwrites.
__attribute__((unused)) static const char *in_dir(const char *name) {
    static __thread char path[PATH_MAX];
    const char *dir = getenv("CKPT_DIR");
    snprintf(path, sizeof path, "%s/%s", dir ? dir : ".", name);
    return path;
}

// Creates a file of CKPT_DIR in one step, so that a reader sees all of it or nothing.
static void put(const char *name, const char *text) {
    char tmp[PATH_MAX + 40], path[PATH_MAX];
    snprintf(path, sizeof path, "%s", in_dir(name));
    int fd, attempt = 0;
    // Two copies of one process may have the same id, in different namespaces.
    do {
        snprintf(tmp, sizeof tmp, "%s.%d.%d", path, (int)gettid(), attempt++);
        fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    } while (fd < 0 && errno == EEXIST && attempt < 1000);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || close(fd) || rename(tmp, path)) {
        fprintf(stderr, "victim: cannot write %s: %s\n", path, strerror(errno));
        _exit(1);
    }
}

__attribute__((unused, noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    char text[1000];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "victim: %s\n", text);
    put("result", text);
    _exit(1);
}

// The behaviour cannot be shown on this machine.
__attribute__((unused, noreturn, format(printf, 1, 2))) static void skip(const char *format, ...) {
    char text[1000] = "skip: ";
    va_list args;
    va_start(args, format);
    vsnprintf(text + 6, sizeof text - 6, format, args);
    va_end(args);
    put("result", text);
    _exit(77);
}

// Fails, with errno, unless the expression is true.
#define CHECK(e) \
    do { \
        errno = 0; \
        if (!(e)) fail("%s:%d: %s (errno: %s)", __FILE__, __LINE__, #e, strerror(errno)); \
    } while (0)

// Fails unless two integers are equal, and shows both.
#define EQ(a, b) \
    do { \
        long long a_ = (long long)(a), b_ = (long long)(b); \
        if (a_ != b_) \
            fail("%s:%d: %s is %lld (%#llx), expected %lld (%#llx)", __FILE__, __LINE__, #a, a_, a_, b_, b_); \
    } while (0)

__attribute__((unused, noinline)) static void ready(void) {
    char text[20];
    snprintf(text, sizeof text, "%d\n", getpid());
    put("ready", text);
}

__attribute__((unused)) static void sleep_ms(long ms) {
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) && errno == EINTR) {
    }
}

// Blocks until the test says go; answers its pings. Gives up after two minutes, so that nothing
// stays when a test was interrupted.
__attribute__((unused, noinline)) static void wait_go(void) {
    char go[PATH_MAX], ping[PATH_MAX], pong[PATH_MAX];
    snprintf(go, sizeof go, "%s", in_dir("go"));
    snprintf(ping, sizeof ping, "%s", in_dir("ping"));
    snprintf(pong, sizeof pong, "%s", in_dir("pong"));
    for (int i = 0; access(go, F_OK) != 0; i++) {
        // Another thread may be quicker.
        if (access(ping, F_OK) == 0 && rename(ping, pong) && errno != ENOENT)
            fail("cannot answer the ping: %s", strerror(errno));
        if (i > 120000) fail("nobody said go");
        struct timespec ms = {0, 1000000};
        if (nanosleep(&ms, NULL) && errno != EINTR) fail("nanosleep: %s", strerror(errno));
    }
}

// Whether the image went on another machine, where what the kernel decides may differ: inodes, the vDSO's
// size, the time since the boot.
__attribute__((unused)) static bool moved(void) {
    return access(in_dir("moved"), F_OK) == 0;
}

// The victim's last words: all is well.
__attribute__((unused)) static int ok(void) {
    put("result", "ok");
    return 0;
}

__attribute__((unused)) static long long now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

// Deterministic bytes.
__attribute__((unused)) static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

__attribute__((unused)) static void fill(void *where, size_t len, uint64_t seed) {
    uint64_t *words = where;
    for (size_t i = 0; i < len / 8; i++) words[i] = mix(seed + i);
}

__attribute__((unused)) static void verify(const void *where, size_t len, uint64_t seed) {
    const uint64_t *words = where;
    for (size_t i = 0; i < len / 8; i++)
        if (words[i] != mix(seed + i))
            fail("memory at %p is %#lx, expected %#lx (seed %lu, word %zu)", (void *)&words[i], words[i],
                 mix(seed + i), seed, i);
}

__attribute__((unused)) static void verify_zero(const void *where, size_t len) {
    const unsigned char *bytes = where;
    for (size_t i = 0; i < len; i++)
        if (bytes[i]) fail("memory at %p is %#x, expected 0", (void *)&bytes[i], bytes[i]);
}

// Anonymous private memory.
__attribute__((unused)) static void *map(size_t len, int prot) {
    void *p = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) fail("mmap of %zu bytes: %s", len, strerror(errno));
    return p;
}

#endif
