// Signals that wait in children: for the process, for one of its threads, queued with values; ITIMER_REAL
// of a child; an alarm that a parent's sigsuspend waits for.
#include "tree.h"

static pid_t root;
static pid_t second_tid;
static volatile int threads_ready;

static void expect(int sig, pid_t from, int value) {
    sigset_t set;
    siginfo_t info;
    struct timespec none = {0, 0};
    sigemptyset(&set);
    sigaddset(&set, sig);
    EQ(sigtimedwait(&set, &info, &none), sig);
    EQ(info.si_pid, from);
    EQ(info.si_uid, getuid());
    if (value) EQ(info.si_value.sival_int, value);
}

static void expect_none(int sig) {
    sigset_t set;
    siginfo_t info;
    struct timespec none = {0, 0};
    sigemptyset(&set);
    sigaddset(&set, sig);
    EQ(sigtimedwait(&set, &info, &none), -1);
    EQ(errno, EAGAIN);
}

static void *second(void *arg) {
    second_tid = gettid();
    threads_ready = 1;
    await_go();
    expect(SIGUSR2, root, 0);
    expect_none(SIGUSR2);
    expect_none(SIGHUP);
    return arg;
}

static void child(int out) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, second, NULL) == 0);
    UNTIL(threads_ready);
    CHECK(write(out, &second_tid, sizeof second_tid) == sizeof second_tid);
    close(out);
    struct itimerval timer = {{0, 0}, {1000, 0}}, now;
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    prepared();
    await_go();
    CHECK(pthread_join(thread, NULL) == 0);
    expect(SIGUSR1, root, 0);
    expect_none(SIGUSR1);
    for (int i = 1; i <= 3; i++) expect(SIGRTMIN + 1, root, i);
    expect_none(SIGRTMIN + 1);
    CHECK(getitimer(ITIMER_REAL, &now) == 0);
    CHECK(now.it_value.tv_sec > 800 && now.it_value.tv_sec <= 1000);
    _exit(8);
}

int main(void) {
    int pair[2];
    sigset_t set;
    tree_begin();
    root = getpid();
    sigfillset(&set);
    sigdelset(&set, SIGALRM);
    CHECK(sigprocmask(SIG_SETMASK, &set, NULL) == 0);
    CHECK(pipe(pair) == 0);
    pid_t pid = forked();
    if (pid == 0) {
        close(pair[0]);
        child(pair[1]);
    }
    close(pair[1]);
    CHECK(read(pair[0], &second_tid, sizeof second_tid) == sizeof second_tid);
    close(pair[0]);
    wait_prepared(1);
    CHECK(kill(pid, SIGUSR1) == 0 && kill(pid, SIGUSR1) == 0);
    for (int i = 1; i <= 3; i++)
        CHECK(sigqueue(pid, SIGRTMIN + 1, (union sigval){.sival_int = i}) == 0);
    CHECK(syscall(SYS_tgkill, pid, second_tid, SIGUSR2) == 0);
    // From a process that is gone when the dump comes.
    pid_t helper = forked();
    if (helper == 0) {
        kill(root, SIGUSR1);
        _exit(0);
    }
    reap(helper, 0);
    ready();
    wait_go();
    CHECK(kill(pid, 0) == 0);
    expect(SIGUSR1, helper, 0);
    expect(SIGCHLD, helper, 0);
    reap(pid, EXITED(8));
    return ok();
}
