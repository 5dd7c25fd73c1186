// Memory that stays mapped from the image (`--memory map`): contents, changes, fork, what MADV_DONTNEED and
// realloc do, whether it is so or not. With an argument it has to be so after the restore.
#include "victim.h"

#define LEN (24ul << 20)

// Dense; one page of zeros in 50; every third page.
static uint64_t page_seed(size_t page) {
    size_t third = LEN / PAGE / 3;
    if (page < third) return page + 1;
    if (page < 2 * third) return page % 50 == 7 ? 0 : page + 1;
    return page % 3 == 0 ? page + 1 : 0;
}

static void check(const char *p, uint64_t shift) {
    for (size_t i = 0; i < LEN / PAGE; i++) {
        if (page_seed(i)) verify(p + i * PAGE, PAGE, page_seed(i) + shift);
        else verify_zero(p + i * PAGE, PAGE);
    }
}

static void change(char *p, uint64_t shift) {
    for (size_t i = 0; i < LEN / PAGE; i++)
        if (page_seed(i)) fill(p + i * PAGE, PAGE, page_seed(i) + shift);
}

static size_t bytes_of_images(void) {
    static char line[5000];
    size_t sum = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    CHECK(maps);
    while (fgets(line, sizeof line, maps)) {
        size_t start, end;
        CHECK(sscanf(line, "%lx-%lx", &start, &end) == 2);
        if (strstr(line, ".ckpt")) sum += end - start;
    }
    fclose(maps);
    return sum;
}

int main(int argc, char **argv) {
    (void)argv;
    char *p = map(LEN, PROT_READ | PROT_WRITE), *fixed = map(1 << 20, PROT_READ | PROT_WRITE);
    char *huge = malloc(32 << 20), *given = map(4 << 20, PROT_READ | PROT_WRITE);
    change(p, 0);
    fill(huge, 32 << 20, 5);
    fill(given, 4 << 20, 6);
    fill(fixed, 1 << 20, 7);
    CHECK(mprotect(fixed, 1 << 20, PROT_READ) == 0);
    // It knows its owner by the thread's id, which `--pid new` changes.
    char *around = map(1 << 20, PROT_READ | PROT_WRITE);
    fill(around, 1 << 20, 8);
    pthread_mutex_t *held = (pthread_mutex_t *)(around + (512 << 10));
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    EQ(pthread_mutex_init(held, &recursive), 0);
    EQ(pthread_mutex_lock(held), 0);
    ready();
    wait_go();
    size_t mapped = bytes_of_images();
    if (argc > 1 || mapped) CHECK(mapped > LEN / 2 + (32 << 20));
    EQ(pthread_mutex_lock(held), 0);
    EQ(pthread_mutex_unlock(held), 0);
    EQ(pthread_mutex_unlock(held), 0);
    check(p, 0);
    verify(huge, 32 << 20, 5);
    verify(fixed, 1 << 20, 7);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        check(p, 0);
        change(p, 1000000);
        check(p, 1000000);
        _exit(7);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    EQ(WEXITSTATUS(status), 7);
    check(p, 0);
    change(p, 2000000);
    check(p, 2000000);
    // The documented limit of `--memory map`.
    CHECK(madvise(given, 2 << 20, MADV_DONTNEED) == 0);
    if (mapped) verify(given, 2 << 20, 6);
    else verify_zero(given, 2 << 20);
    verify(given + (2 << 20), 2 << 20, (6 + (2 << 20) / 8));
    // Another one: what grows may end behind the image.
    if (!mapped) {
        CHECK((huge = realloc(huge, 128 << 20)));
        verify(huge, 32 << 20, 5);
        memset(huge + (32 << 20), 1, 96 << 20);
    }
    CHECK((huge = realloc(huge, 1 << 20)));
    verify(huge, 1 << 20, 5);
    return ok();
}
