// PR_SET_PDEATHSIG of children: still set, and sent when the parent dies, not before.
#include "tree.h"

static volatile int signals;

static void on_usr1(int sig) {
    (void)sig;
    signals++;
}

int main(void) {
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    tree_begin();
    pid_t root = getpid();
    pid_t middle = forked();
    if (middle == 0) {
        pid_t self = getpid();
        if (forked() == 0) {
            int sig = 0;
            signal(SIGUSR1, on_usr1);
            CHECK(prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0);
            prepared();
            while (!signals) sleep_ms(1);
            UNTIL(getppid() != self);
            EQ(getppid(), root);
            CHECK(prctl(PR_GET_PDEATHSIG, &sig) == 0);
            EQ(sig, SIGUSR1);
            CHECK(access(in_dir("go"), F_OK) == 0);
            _exit(9);
        }
        if (forked() == 0) {
            int sig = 0;
            CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
            prepared();
            for (int i = 0; i < 60000; i++) sleep_ms(1);
            fail("not killed; %d", sig);
        }
        prepared();
        await_go();
        _exit(7);
    }
    wait_prepared(3);
    ready();
    wait_go();
    reap(middle, EXITED(7));
    // Both are the root's now, in the order in which they end.
    int killed = 0, exited = 0, status;
    for (int i = 0; i < 2; i++) {
        CHECK(waitpid(-1, &status, 0) > 0);
        killed += status == SIGKILL;
        exited += status == EXITED(9);
        if (status != SIGKILL && status != EXITED(9)) wrong_status(-1, status, 9);
    }
    EQ(killed, 1);
    EQ(exited, 1);
    no_children();
    return ok();
}
