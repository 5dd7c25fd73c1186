// Stopped children: one whose parent knows, one whose parent does not yet, and one with threads below a
// child; continued afterwards.
#include "tree.h"

static void *second(void *arg) {
    while (!*(volatile int *)arg) sleep_ms(1);
    return NULL;
}

static volatile int continued;

static void on_cont(int sig) {
    (void)sig;
    continued++;
}

static pid_t stopping(int code, bool threads) {
    pid_t pid = forked();
    if (pid) return pid;
    pthread_t thread;
    sigset_t usr1;
    int sig;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    CHECK(sigprocmask(SIG_BLOCK, &usr1, NULL) == 0);
    signal(SIGCONT, on_cont);
    if (threads) CHECK(pthread_create(&thread, NULL, second, (void *)&continued) == 0);
    prepared();
    CHECK(raise(SIGSTOP) == 0);
    // Another thread may have run the handler.
    UNTIL(continued == 1);
    if (threads) CHECK(pthread_join(thread, NULL) == 0);
    CHECK(sigwait(&usr1, &sig) == 0);
    _exit(code);
}

static void wait_stopped(pid_t pid, int options) {
    siginfo_t info = {0};
    CHECK(waitid(P_PID, pid, &info, WSTOPPED | options) == 0);
    EQ(info.si_pid, pid);
    EQ(info.si_code, CLD_STOPPED);
    EQ(info.si_status, SIGSTOP);
}

static void resume(pid_t pid, bool reported, int code) {
    siginfo_t info = {0};
    char state = state_of(pid);
    CHECK(state == 0 || state == 'T');
    if (!reported) wait_stopped(pid, WNOHANG);
    // Now it has been told, in either case.
    CHECK(waitid(P_PID, pid, &info, WSTOPPED | WEXITED | WCONTINUED | WNOHANG) == 0);
    EQ(info.si_pid, 0);
    CHECK(kill(pid, SIGCONT) == 0);
    CHECK(waitid(P_PID, pid, &info, WCONTINUED) == 0);
    EQ(info.si_code, CLD_CONTINUED);
    CHECK(kill(pid, SIGUSR1) == 0);
    reap(pid, EXITED(code));
}

int main(void) {
    tree_begin();
    pid_t child = forked();
    if (child == 0) {
        pid_t below = stopping(5, true);
        wait_stopped(below, WNOWAIT);
        prepared();
        await_go();
        resume(below, false, 5);
        no_children();
        _exit(6);
    }
    pid_t known = stopping(1, false), unknown = stopping(2, true);
    wait_stopped(known, 0);
    wait_stopped(unknown, WNOWAIT);
    wait_prepared(4);
    ready();
    wait_go();
    resume(known, true, 1);
    resume(unknown, false, 2);
    reap(child, EXITED(6));
    no_children();
    return ok();
}
