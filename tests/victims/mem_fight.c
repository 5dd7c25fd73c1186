// From the first instruction after the restore on, threads do all that would show memory that is not there yet:
// MADV_DONTNEED, mremap, realloc, fork, exec, signals, system calls that read and write it. They wait for the
// beginning without any system call: it is a word in a shared file, which the test sets before the restore.
//
//     mem_fight          all of that
//     mem_fight exec     a thread of several executes another program
//     mem_fight waits    one thread only counts, in the shared file, and so shows that it runs; another one makes system
//                        calls that pass, and counts; MIB of memory
#include "maps.h"
#include <linux/futex.h>
#include <poll.h>

#define PART (3ul << 20)
#define MIB (1ul << 20)

struct shared {
    _Atomic int begun;
    _Atomic uint64_t counts[8];
};

static struct shared *shared;
static pthread_barrier_t over;

static void wait_begin(void) {
    while (!atomic_load(&shared->begun)) __builtin_ia32_pause();
}

static char *part(uint64_t seed) {
    char *p = map(PART, PROT_READ | PROT_WRITE);
    fill(p, PART, seed);
    return p;
}

static char *dropped[2], *grown, *heap, *copied, *replaced, *guarded, *wiped, *piped[2], *resident, *swept;

static void prepare(void) {
    dropped[0] = part(1), dropped[1] = part(2);
    grown = part(3);
    heap = malloc(PART);
    CHECK(heap);
    fill(heap, PART, 4);
    copied = part(5), replaced = part(6), guarded = part(7), wiped = part(8), resident = part(9);
    piped[0] = part(10), piped[1] = part(11);
    CHECK(mprotect(guarded, PART, PROT_READ) == 0);
    swept = map(64 * MIB, PROT_READ | PROT_WRITE);
    for (size_t i = 0; i < 64 * MIB; i += 3 * PAGE) fill(swept + i, PAGE, i);
}

static void drop(void) {
    CHECK(madvise(dropped[0], PART / 2, MADV_DONTNEED) == 0);
    verify_zero(dropped[0], PART / 2);
    verify(dropped[0] + PART / 2, PART / 2, 1 + PART / 16);
    // Once more with pages that have been looked at.
    verify(dropped[1] + PART / 2, PAGE, 2 + PART / 16);
    CHECK(madvise(dropped[1] + PAGE, PART - PAGE, MADV_DONTNEED) == 0);
    verify(dropped[1], PAGE, 2);
    verify_zero(dropped[1] + PAGE, PART - PAGE);
}

static void grow(void) {
    grown = mremap(grown, PART, 4 * PART, MREMAP_MAYMOVE);
    CHECK(grown != MAP_FAILED);
    verify_zero(grown + PART, 3 * PART);
    verify(grown, PART, 3);
    fill(grown + PART, 3 * PART, 33);
    grown = mremap(grown, 4 * PART, PART + PAGE, 0);
    CHECK(grown != MAP_FAILED);
    verify(grown, PART, 3);
    verify(grown + PART, PAGE, 33);
}

static void reallocate(void) {
    CHECK((heap = realloc(heap, 5 * PART)));
    verify(heap, PART, 4);
    memset(heap + PART, 1, 4 * PART);
    CHECK((heap = realloc(heap, PART / 3)));
    verify(heap, PART / 3 & ~7ul, 4);
    void *more[50];
    for (int i = 0; i < 50; i++) CHECK((more[i] = calloc(1, 40000 + i * 1000)));
    for (int i = 0; i < 50; i++) verify_zero(more[i], 40000), free(more[i]);
}

static void copy(void) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        verify(copied, PART, 5);
        fill(copied, PART, 55);
        verify(copied, PART, 55);
        _exit(7);
    }
    verify(copied, PART, 5);
    fill(copied, PART, 56);
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    EQ(status, 7 << 8);
    verify(copied, PART, 56);
    child = vfork();
    CHECK(child >= 0);
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", "exit 9", NULL);
        _exit(1);
    }
    CHECK(waitpid(child, &status, 0) == child);
    EQ(status, 9 << 8);
}

static void replace(void) {
    CHECK(munmap(replaced + PART / 3, PART / 3) == 0);
    void *p = mmap(replaced + PART / 3, PART / 3, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(p == replaced + PART / 3);
    verify_zero(p, PART / 3);
    verify(replaced, PART / 3, 6);
    verify(replaced + 2 * (PART / 3), PART / 3, 6 + 2 * (PART / 24));
    CHECK(mprotect(guarded, PART, PROT_NONE) == 0);
    CHECK(mprotect(guarded, PART, PROT_READ | PROT_WRITE) == 0);
    verify(guarded, PART, 7);
    fill(guarded, PART, 77);
    verify(guarded, PART, 77);
    CHECK(madvise(wiped, PART, MADV_WIPEONFORK) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        verify_zero(wiped, PART);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    EQ(status, 0);
    verify(wiped, PART, 8);
}

// The kernel reads from and writes to memory that may be missing.
static void transfer(void) {
    int fds[2];
    CHECK(pipe(fds) == 0);
    for (size_t i = 0; i < PART; i += PAGE) {
        CHECK(write(fds[1], piped[0] + i, PAGE) == (ssize_t)PAGE);
        CHECK(read(fds[0], piped[1] + PART - PAGE - i, PAGE) == (ssize_t)PAGE);
    }
    for (size_t i = 0; i < PART; i += PAGE) verify(piped[1] + PART - PAGE - i, PAGE, 10 + i / 8);
    close(fds[0]);
    close(fds[1]);
    // All of it had been written.
    static unsigned char there[PART / PAGE];
    CHECK(mincore(resident, PART, there) == 0);
    for (size_t i = 0; i < PART / PAGE; i++)
        if (!(there[i] & 1)) fail("page %zu is not resident", i);
    verify(resident, PART, 9);
}

// Every third page has contents.
static void sweep(void) {
    for (size_t i = 0; i < 64 * MIB; i += PAGE) {
        if (i % (3 * PAGE) == 0) verify(swept + i, PAGE, i);
        else verify_zero(swept + i, PAGE);
        if (i % (7 * PAGE) == 0) fill(swept + i, PAGE, i + 1);
    }
    for (size_t i = 0; i < 64 * MIB; i += 7 * PAGE) verify(swept + i, PAGE, i + 1);
}

// Words that several threads add to at random: none may be lost.
#define WORDS (8 * MIB / 8)
static _Atomic uint64_t *words;
static pthread_mutex_t *locks[16];
static uint64_t locked[16];

static void *add(void *arg) {
    uint64_t seed = (uint64_t)arg;
    wait_begin();
    for (uint64_t i = 0; i < 20000; i++) atomic_fetch_add(&words[mix(seed << 32 | i) % WORDS], 1);
    for (uint64_t i = 0; i < 2000; i++) {
        size_t which = mix(seed << 40 | i) % 16;
        pthread_mutex_lock(locks[which]);
        locked[which]++;
        pthread_mutex_unlock(locks[which]);
    }
    pthread_barrier_wait(&over);
    return NULL;
}

static void *run(void *arg) {
    void (*what)(void) = arg;
    wait_begin();
    what();
    pthread_barrier_wait(&over);
    return NULL;
}

static volatile int ticks;
static char *ticks_in_memory;

static void on_tick(int sig) {
    (void)sig;
    ticks++;
    ticks_in_memory[ticks % PART] += 1;
}

// In a thread of its own, whose alternate stack was written to and may be missing, in the middle of it.
static void *tick(void *arg) {
    char *stack = arg;
    stack_t alt = {.ss_sp = stack, .ss_size = PART};
    CHECK(sigaltstack(&alt, NULL) == 0);
    sigset_t alarm;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &alarm, NULL) == 0);
    wait_begin();
    int before = ticks;
    while (ticks < before + 20) __builtin_ia32_pause();
    CHECK(pthread_sigmask(SIG_BLOCK, &alarm, NULL) == 0);
    pthread_barrier_wait(&over);
    return NULL;
}

static void fight(void) {
    prepare();
    words = map(8 * MIB, PROT_READ | PROT_WRITE);
    for (size_t i = 0; i < WORDS; i++) words[i] = i;
    char *around = part(12);
    for (int i = 0; i < 16; i++) {
        locks[i] = (pthread_mutex_t *)(around + (size_t)i * PART / 16);
        pthread_mutex_init(locks[i], NULL);
    }
    ticks_in_memory = map(PART, PROT_READ | PROT_WRITE);
    memset(ticks_in_memory, 1, PART);
    sigset_t alarm;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    CHECK(sigprocmask(SIG_BLOCK, &alarm, NULL) == 0);
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_ONSTACK | SA_RESTART};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    struct itimerval often = {{0, 2000}, {0, 2000}};
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    void (*parts[])(void) = {drop, grow, reallocate, copy, replace, transfer, sweep};
    pthread_t threads[10];
    CHECK(pthread_barrier_init(&over, NULL, 11) == 0);
    for (uint64_t i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, add, (void *)(i + 1)) == 0);
    CHECK(pthread_create(&threads[2], NULL, tick, part(13)) == 0);
    for (int i = 0; i < 7; i++) CHECK(pthread_create(&threads[3 + i], NULL, run, parts[i]) == 0);
    ready();
    wait_begin();
    pthread_barrier_wait(&over);
    for (int i = 0; i < 10; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    uint64_t sum = 0, of_locks = 0;
    for (size_t i = 0; i < WORDS; i++) sum += words[i];
    for (int i = 0; i < 16; i++) of_locks += locked[i];
    EQ(sum, (uint64_t)WORDS * (WORDS - 1) / 2 + 2 * 20000);
    EQ(of_locks, 2 * 2000);
    CHECK(ticks >= 20);
}

static void *execute(void *arg) {
    wait_begin();
    execv("/proc/self/exe", arg);
    fail("execv: %s", strerror(errno));
}

__attribute__((noreturn)) static void *count(void *arg) {
    for (;;) atomic_fetch_add(&shared->counts[(size_t)arg], 1);
}

static char *waited_for;

// System calls that need not wait for memory: they sleep, and the kernel looks at words that are still missing.
__attribute__((noreturn)) static void *sleep_and_count(void *arg) {
    for (size_t page = 0;; page++) {
        struct timespec us = {0, 1000};
        CHECK(nanosleep(&us, NULL) == 0);
        uint64_t content = mix(1 + page % 4000 * (PAGE / 8));
        uint32_t *word = (uint32_t *)(waited_for + page % 4000 * PAGE);
        // Not what is there, and what is there: this one waits until the time is over.
        CHECK(syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, (uint32_t)content + 1, &us) == -1 && errno == EAGAIN);
        CHECK(syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, (uint32_t)content, &us) == -1 && errno == ETIMEDOUT);
        CHECK(poll(NULL, 0, 0) == 0);
        atomic_fetch_add(&shared->counts[(size_t)arg], 1);
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "executed") == 0) return ok();
    int fd = open(in_dir("shared"), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    CHECK(fd >= 0 && ftruncate(fd, PAGE) == 0);
    shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(shared != MAP_FAILED);
    if (strcmp(what, "exec") == 0) {
        static char *args[] = {"mem_fight", "executed", NULL};
        char *more = map(64 * MIB, PROT_READ | PROT_WRITE);
        fill(more, 64 * MIB, 1);
        pthread_t threads[3];
        for (size_t i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, count, (void *)i) == 0);
        CHECK(pthread_create(&threads[2], NULL, execute, args) == 0);
        ready();
        for (;;) pause();
    }
    if (strcmp(what, "waits") == 0) {
        size_t mib = argc > 2 ? strtoul(argv[2], NULL, 10) : 64;
        char *more = map(mib * MIB, PROT_READ | PROT_WRITE);
        fill(more, mib * MIB, 1);
        waited_for = more;
        pthread_t threads[2];
        CHECK(pthread_create(&threads[0], NULL, count, (void *)0) == 0);
        CHECK(pthread_create(&threads[1], NULL, sleep_and_count, (void *)1) == 0);
        // The start of a thread takes calls that wait.
        while (!atomic_load(&shared->counts[0]) || !atomic_load(&shared->counts[1])) sleep_ms(1);
        maps_save();
        ready();
        wait_go();
        maps_check();
        verify(more, mib * MIB, 1);
        return ok();
    }
    fight();
    return ok();
}
