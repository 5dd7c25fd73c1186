// Children with other exit signals than SIGCHLD, or none: which wait finds them, and what comes at their end.
#include "tree.h"

static volatile int usr1;

static void on_usr1(int sig) {
    (void)sig;
    usr1++;
}

static pid_t cloned(int exit_signal, int code) {
    pid_t pid = syscall(SYS_clone, exit_signal, NULL, NULL, NULL, NULL);
    CHECK(pid >= 0);
    if (pid == 0) {
        prepared();
        await_go();
        _exit(code);
    }
    return pid;
}

int main(void) {
    int status;
    tree_begin();
    signal(SIGUSR1, on_usr1);
    pid_t normal = cloned(SIGCHLD, 1), other = cloned(SIGUSR1, 2), silent = cloned(0, 3);
    wait_prepared(3);
    ready();
    wait_go();
    reap(normal, EXITED(1));
    // Neither is found without __WALL or __WCLONE.
    EQ(waitpid(-1, &status, 0), -1);
    EQ(errno, ECHILD);
    EQ(waitpid(other, &status, __WCLONE), other);
    EQ(status, EXITED(2));
    UNTIL(usr1 == 1);
    reap(silent, EXITED(3));
    EQ(usr1, 1);
    return ok();
}
