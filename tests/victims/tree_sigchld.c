// SIGCHLD is sent for what happens, not for the restore: handlers are counted.
#include "tree.h"

static volatile int count, last_code, last_pid;

static void on_chld(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)context;
    count++;
    last_code = info->si_code;
    last_pid = info->si_pid;
}

static pid_t child(int code) {
    pid_t pid = forked();
    if (pid == 0) {
        prepared();
        await_go();
        _exit(code);
    }
    return pid;
}

static pid_t ended(int code) {
    pid_t pid = forked();
    if (pid == 0) {
        forget_prepared();
        _exit(code);
    }
    siginfo_t info;
    while (waitid(P_PID, pid, &info, WEXITED | WNOWAIT) && errno == EINTR) {
    }
    return pid;
}

// Has one SIGCHLD pending, and a zombie that it is about.
static void with_pending(void) {
    sigset_t chld, pending;
    siginfo_t info;
    struct timespec none = {0, 0};
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    CHECK(sigprocmask(SIG_BLOCK, &chld, NULL) == 0);
    pid_t zombie = ended(17);
    prepared();
    await_go();
    UNTIL(access(in_dir("checked"), F_OK) == 0);
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGCHLD));
    EQ(sigtimedwait(&chld, &info, &none), SIGCHLD);
    EQ(info.si_pid, zombie);
    EQ(info.si_code, CLD_EXITED);
    EQ(info.si_status, 17);
    EQ(sigtimedwait(&chld, &info, &none), -1);
    reap(zombie, EXITED(17));
    no_children();
    _exit(40);
}

// Whose children are nobody's business.
static void ignores(void) {
    signal(SIGCHLD, SIG_IGN);
    pid_t a = child(1);
    pid_t b = child(2);
    prepared();
    await_go();
    UNTIL(access(in_dir("checked"), F_OK) == 0);
    int status;
    EQ(waitpid(a, &status, 0), -1);
    EQ(errno, ECHILD);
    EQ(waitpid(b, &status, 0), -1);
    no_children();
    _exit(41);
}

int main(void) {
    tree_begin();
    pid_t pending = forked();
    if (pending == 0) with_pending();
    pid_t ignoring = forked();
    if (ignoring == 0) ignores();
    struct sigaction action = {.sa_sigaction = on_chld, .sa_flags = SA_SIGINFO | SA_RESTART};
    CHECK(sigaction(SIGCHLD, &action, NULL) == 0);
    reap(ended(1), EXITED(1));
    pid_t zombie = ended(2);
    pid_t stopped = forked();
    if (stopped == 0) {
        prepared();
        raise(SIGSTOP);
        await_go();
        _exit(3);
    }
    UNTIL(count == 3);
    EQ(last_code, CLD_STOPPED);
    wait_prepared(5);
    ready();
    wait_go();
    EQ(count, 3);
    CHECK(kill(stopped, SIGCONT) == 0);
    int status;
    // It may be the first or the second of its two signals that is seen; they are of the same child.
    UNTIL(count >= 4 && last_pid == stopped);
    reap(stopped, EXITED(3));
    put("checked", "");
    reap(zombie, EXITED(2));
    reap(pending, EXITED(40));
    reap(ignoring, EXITED(41));
    CHECK(waitpid(-1, &status, WNOHANG) == -1 && errno == ECHILD);
    // Continued, ended, and the two others; some of them may have come together.
    CHECK(count >= 4 && count <= 7);
    return ok();
}
