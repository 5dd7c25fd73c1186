// Three checkpoints in memory, and back to each of them: memory SCRIPT
// The file SCRIPT tells what to do next, a checkpoint in each line; each run takes one line away.
#include "self.h"
#include <sys/ioctl.h>

static int step;
static atomic_int ticks;
static int pipe_ends[2];

static void *tick(void *arg) {
    (void)arg;
    sigset_t all;
    sigfillset(&all);
    CHECK(!pthread_sigmask(SIG_SETMASK, &all, NULL));
    for (;; usleep(100)) ticks++;
    return NULL;
}

// Takes the first line of the file; 0 when there is none.
static int next(const char *script) {
    char text[200] = "";
    int fd = open(script, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    ssize_t n = read(fd, text, sizeof text - 1);
    char *rest = strchr(text, '\n');
    if (n <= 0 || !rest) return close(fd), 0;
    rest++;
    CHECK(pwrite(fd, rest, strlen(rest), 0) == (ssize_t)strlen(rest));
    CHECK(!ftruncate(fd, strlen(rest)));
    close(fd);
    return atoi(text);
}

static void *go_back(void *arg) {
    ckpt_revert((uintptr_t)arg);
    CHECK(!"reverted");
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    CHECK(argc == 2);
    // Of the process that all this is.
    pid_t pid = getpid(), parent = getppid(), group = getpgrp();
    pthread_t ticker;
    CHECK(!pipe2(pipe_ends, O_CLOEXEC));
    CHECK(!pthread_create(&ticker, NULL, tick, NULL));
    int first = open("/dev/null", O_RDONLY);
    CHECK(first >= 0);
    int was_restored = 0;
    static const char *at_first;
    at_first = strdup(descriptors());
    uint64_t id;
    for (int i = 1; i <= 3; i++) {
        step = i;
        char byte = '0' + i;
        CHECK(write(pipe_ends[1], &byte, 1) == 1);
        // A number that the first checkpoint has, and where the file of the second one is kept.
        int own = fcntl(first, F_DUPFD_CLOEXEC, i == 1 ? 640 : 645);
        CHECK(own == (i == 1 ? 640 : 645));
        const char *before = descriptors();
        int result = ckpt_checkpoint(NULL, NULL, &id);
        CHECK(result >= 0);
        CHECK(!strcmp(before, descriptors()));
        if (result == CKPT_RESTORED) was_restored = 1;
        CHECK(step == i);
        CHECK(!close(own));
        if (was_restored) {
            CHECK(id == (uint64_t)i);
            break;
        }
    }
    CHECK(getpid() == pid && getppid() == parent && getpgrp() == group);
    if (isatty(0)) CHECK(tcgetpgrp(0) == group);
    int is = 1;
    CHECK(!prctl(PR_GET_CHILD_SUBREAPER, &is) && is == 0);
    sigset_t mask;
    CHECK(!sigprocmask(SIG_SETMASK, NULL, &mask) && !sigismember(&mask, SIGALRM));
    struct itimerval timer;
    CHECK(!getitimer(ITIMER_REAL, &timer) && !timer.it_value.tv_usec && !timer.it_value.tv_sec);
    CHECK(!strcmp(at_first, descriptors()));
    CHECK(is_childless());
    for (int before = ticks; ticks < before + 3;) usleep(100);
    int waiting = 0;
    CHECK(!ioctl(pipe_ends[0], FIONREAD, &waiting) && waiting == step);
    uint64_t ids[9];
    CHECK(ckpt_list(ids, 9) == 3 && ids[0] == 1 && ids[1] == 2 && ids[2] == 3);
    printf("step %d\n", step);
    int to = next(argv[1]);
    if (to) {
        // Whatever is there by now must not be there then.
        sigset_t all;
        sigfillset(&all);
        CHECK(!sigprocmask(SIG_SETMASK, &all, NULL));
        CHECK(!setitimer(ITIMER_REAL, &(struct itimerval){{0, 1000}, {0, 1000}}, NULL));
        // Own ones end with the program; this one would kill what it was, too.
        CHECK(!raise(SIGUSR1));
        while (!sigpending(&all) && !sigismember(&all, SIGALRM)) usleep(100);
        CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
        CHECK(fcntl(first, F_DUPFD, 0) >= 0);
        // From another thread, too.
        pthread_t thread;
        if (to == 3) CHECK(!pthread_create(&thread, NULL, go_back, (void *)(uintptr_t)to) && !pthread_join(thread, NULL));
        go_back((void *)(uintptr_t)to);
    }
    CHECK(ckpt_forget(2) == 0 && ckpt_forget(2) == CKPT_FAILED);
    CHECK(ckpt_list(ids, 9) == 2 && ids[1] == 3);
    CHECK(ckpt_revert(2) == CKPT_FAILED && strstr(ckpt_error(), "no checkpoint 2"));
    // The next one has an id of its own, whichever checkpoint this is.
    CHECK(ckpt_checkpoint(NULL, NULL, &id) == CKPT_SAVED && id == 4);
    printf("end\n");
    return 0;
}
