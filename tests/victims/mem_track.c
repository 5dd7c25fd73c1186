// Memory that changes in every way there is, at random but the same each time, between several dumps: at "change1",
// "change2" ... a round of changes. What every page must hold is known. In the second round a child is forked,
// which changes its own copy in the rounds after that.
#include "tree.h"
#include <sys/uio.h>

#define PAGES 4096ul
#define AREAS 4
#define ROUNDS 24

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

static struct area {
    char *at;
    // What each page has: 0 zeros, else fill()ed with that.
    uint32_t seed[PAGES];
} areas[AREAS];

static uint64_t state = 1;
static uint32_t seeds;
static char whose = 'p';
static int direct = -1, pipes[2];
static char *bounce;

static uint64_t any(uint64_t below) {
    state = mix(state);
    return state % below;
}

static void with_memory(char *page, const char *bytes) {
    int fd = open("/proc/self/mem", O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(pwrite(fd, bytes, PAGE, (off_t)(uintptr_t)page) == (ssize_t)PAGE);
    close(fd);
}

// Writes a page in one of many ways.
static void change(struct area *a, size_t p) {
    char *page = a->at + p * PAGE;
    uint32_t seed = ++seeds;
    a->seed[p] = seed;
    fill(bounce, PAGE, seed);
    switch (any(9)) {
    case 0: {
        struct iovec from = {bounce, PAGE}, to = {page, PAGE};
        CHECK(process_vm_writev(getpid(), &from, 1, &to, 1, 0) == (ssize_t)PAGE);
        break;
    }
    case 1:
        with_memory(page, bounce);
        break;
    case 2:
        CHECK(write(pipes[1], bounce, PAGE) == (ssize_t)PAGE);
        CHECK(read(pipes[0], page, PAGE) == (ssize_t)PAGE);
        break;
    case 3:
        // O_DIRECT where the file system has that.
        CHECK(pwrite(direct, bounce, PAGE, 0) == (ssize_t)PAGE);
        CHECK(pread(direct, page, PAGE, 0) == (ssize_t)PAGE);
        break;
    case 4:
        CHECK(mprotect(page, PAGE, PROT_READ) == 0);
        with_memory(page, bounce);
        CHECK(mprotect(page, PAGE, PROT_READ | PROT_WRITE) == 0);
        break;
    case 5:
        CHECK(madvise(page, PAGE, MADV_DONTNEED) == 0);
        memcpy(page, bounce, PAGE);
        break;
    case 6:
        // The page of the same address, and another one.
        CHECK(mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page);
        memcpy(page, bounce, PAGE);
        break;
    case 7:
        memset(page, 0, PAGE);
        a->seed[p] = 0;
        break;
    default:
        memcpy(page, bounce, PAGE);
    }
}

// Several pages at once, without contents of their own.
static void rearrange(struct area *a) {
    size_t n = 1 + any(64), p = any(PAGES - n), q = any(PAGES - n);
    char *from = a->at + p * PAGE, *to = a->at + q * PAGE;
    switch (any(9)) {
    case 0:
        CHECK(madvise(from, n * PAGE, MADV_DONTNEED) == 0);
        memset(a->seed + p, 0, n * sizeof a->seed[0]);
        break;
    case 1:
        CHECK(munmap(from, n * PAGE) == 0);
        CHECK(mmap(from, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == from);
        memset(a->seed + p, 0, n * sizeof a->seed[0]);
        break;
    case 2: {
        // Mappings of several kinds cannot be moved as one.
        if (p < q + n && q < p + n) break;
        for (size_t i = 0; i < n; i++) {
            char *one = from + i * PAGE;
            CHECK(mremap(one, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to + i * PAGE) == to + i * PAGE);
            CHECK(mmap(one, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == one);
            a->seed[q + i] = a->seed[p + i];
            a->seed[p + i] = 0;
        }
        break;
    }
    case 3: {
        // Away and back: the same contents, other memory.
        char *far = map(n * PAGE, PROT_READ | PROT_WRITE);
        for (size_t i = 0; i < n; i++) {
            char *one = from + i * PAGE, *two = far + i * PAGE;
            CHECK(mremap(one, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, two) == two);
            CHECK(mremap(two, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, one) == one);
        }
        break;
    }
    case 4:
        CHECK(mprotect(from, n * PAGE, PROT_NONE) == 0);
        CHECK(mprotect(from, n * PAGE, PROT_READ | PROT_WRITE) == 0);
        break;
    case 5: {
        // What a child does is its own affair.
        pid_t child = forked();
        if (child == 0) {
            memset(from, 0x55, n * PAGE);
            _exit(0);
        }
        reap(child, EXITED(0));
        break;
    }
    case 6:
        // May fail.
        madvise(from, n * PAGE, any(2) ? MADV_PAGEOUT : MADV_COLD);
        madvise((char *)((uintptr_t)from & -(2ul << 20)), 2ul << 20, MADV_COLLAPSE);
        break;
    case 7:
        if (madvise(from, n * PAGE, MADV_GUARD_INSTALL) == 0)
            CHECK(madvise(from, n * PAGE, MADV_GUARD_REMOVE) == 0);
        else
            CHECK(madvise(from, n * PAGE, MADV_DONTNEED) == 0);
        memset(a->seed + p, 0, n * sizeof a->seed[0]);
        break;
    default: {
        // Zeros that are only looked at.
        volatile char *look = from;
        for (size_t i = 0; i < n; i++) (void)look[i * PAGE];
    }
    }
}

static void check(void) {
    for (int i = 0; i < AREAS; i++)
        for (size_t p = 0; p < PAGES; p++) {
            char *page = areas[i].at + p * PAGE;
            if (areas[i].seed[p])
                verify(page, PAGE, areas[i].seed[p]);
            else
                verify_zero(page, PAGE);
        }
}

static void round_of_changes(void) {
    for (int i = 0; i < AREAS; i++) {
        // The last one stays as it is, but for a page.
        int n = i + 1 < AREAS ? 60 : 1;
        for (int k = 0; k < n; k++) change(&areas[i], any(PAGES));
        for (int k = 0; k < n / 8; k++) rearrange(&areas[i]);
    }
}

static void first(void) {
    for (int i = 0; i < AREAS; i++) {
        if (i == 2) {
            areas[i].at = sbrk(PAGES * PAGE + (2ul << 20));
            CHECK(areas[i].at != (void *)-1);
            areas[i].at = (char *)(((uintptr_t)areas[i].at + PAGE - 1) & -PAGE);
        } else {
            char *raw = map(PAGES * PAGE + (2ul << 20), PROT_READ | PROT_WRITE);
            areas[i].at = (char *)(((uintptr_t)raw + (2ul << 20) - 1) & -(2ul << 20));
        }
        madvise(areas[i].at, PAGES * PAGE, i == 1 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
        for (size_t p = 0; p < PAGES; p++) {
            // Some pages were never there, some hold zeros.
            if (p % 64 == 7) continue;
            areas[i].seed[p] = p % 64 == 9 ? 0 : ++seeds;
            if (areas[i].seed[p])
                fill(areas[i].at + p * PAGE, PAGE, seeds);
            else
                memset(areas[i].at + p * PAGE, 0, PAGE);
        }
    }
}

static void open_direct(const char *name) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", in_dir(name));
    direct = open(path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
    if (direct < 0) direct = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(direct >= 0);
}

static void rounds(int from) {
    for (int r = from; r < ROUNDS; r++) {
        char name[40], answer[40];
        snprintf(name, sizeof name, "change%d", r);
        snprintf(answer, sizeof answer, "changed%d%c", r, whose);
        for (int i = 0; access(in_dir(name), F_OK) != 0; i++) {
            if (access(in_dir("go"), F_OK) == 0) return;
            if (i > 120000) fail("nobody said %s", name);
            sleep_ms(1);
        }
        if (r == 2 && whose == 'p') {
            pid_t child = forked();
            if (child == 0) {
                whose = 'c';
                state = 77;
                CHECK(pipe(pipes) == 0);
                open_direct("direct_of_child");
                rounds(3);
                await_go();
                check();
                _exit(33);
            }
        }
        // The heap grows: by what is not tracked.
        CHECK(sbrk(3 * PAGE) != (void *)-1);
        round_of_changes();
        put(answer, "");
    }
}

int main(void) {
    tree_begin();
    CHECK(pipe(pipes) == 0);
    open_direct("direct");
    bounce = map(PAGE, PROT_READ | PROT_WRITE);
    first();
    ready();
    rounds(1);
    wait_go();
    check();
    int status;
    pid_t child = wait(&status);
    if (child > 0) EQ(status, EXITED(33));
    return ok();
}
