// take_pid PID: makes a child that has this id, until it is told to go.
#include "tree.h"
#include <linux/sched.h>

int main(int argc, char **argv) {
    CHECK(argc > 1);
    pid_t wanted = atoi(argv[1]);
    struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&wanted, .set_tid_size = 1};
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) skip("cannot choose an id: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_NAME, "the taker");
        await_go();
        _exit(0);
    }
    ready();
    wait_go();
    reap(pid, 0);
    return 0;
}
