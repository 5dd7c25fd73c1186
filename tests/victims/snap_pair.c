// Two processes that count in turn, by messages, each in its own memory: every message must continue the count
// of both.
#include "victim.h"

#include "tree.h"

#include <sys/wait.h>

static void hand_over(int from, int to, bool first, volatile int *end) {
    uint64_t *count = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), got;
    CHECK(count != MAP_FAILED);
    if (first) CHECK(write(to, count, sizeof *count) == sizeof *count);
    for (;;) {
        ssize_t n = read(from, &got, sizeof got);
        if (n == 0) return;
        CHECK(n == sizeof got);
        if (got != *count + (first ? 1 : 0)) fail("%lu came after %lu", got, *count);
        *count = first ? got : got + 1;
        if (end && *end) return;
        if (write(to, count, sizeof *count) < 0) return;
    }
}

static int pipes[2][2];
static volatile int end;

static void *parent(void *unused) {
    (void)unused;
    hand_over(pipes[1][0], pipes[0][1], true, &end);
    return NULL;
}

int main(void) {
    CHECK(pipe(pipes[0]) == 0 && pipe(pipes[1]) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        close(pipes[0][1]);
        close(pipes[1][0]);
        hand_over(pipes[0][0], pipes[1][1], false, NULL);
        _exit(0);
    }
    close(pipes[0][0]);
    close(pipes[1][1]);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, parent, NULL) == 0);
    ready();
    wait_go();
    end = 1;
    CHECK(pthread_join(thread, NULL) == 0);
    close(pipes[0][1]);
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    EQ(status, 0);
    return ok();
}
