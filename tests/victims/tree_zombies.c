// Children that have ended and that nobody has waited for, of the root and of a child.
#include "tree.h"

struct end {
    int code, signal;
    bool own_group;
    pid_t pid;
};

static struct end ends[] = {
    {.code = 0},          {.code = 7},           {.code = 255}, {.signal = SIGKILL},
    {.signal = SIGTERM},  {.signal = SIGUSR1},   {.signal = SIGABRT},
    {.code = 3, .own_group = true},              {.signal = 64},
};
#define ENDS (int)(sizeof ends / sizeof *ends)

static void make(void) {
    for (int i = 0; i < ENDS; i++) {
        struct end *e = &ends[i];
        e->pid = forked();
        if (e->pid == 0) {
            forget_prepared();
            if (e->own_group) setpgid(0, 0);
            if (e->signal) {
                signal(e->signal, SIG_DFL);
                raise(e->signal);
            }
            _exit(e->code);
        }
    }
    for (int i = 0; i < ENDS; i++) {
        siginfo_t info;
        CHECK(waitid(P_PID, ends[i].pid, &info, WEXITED | WNOWAIT) == 0);
    }
}

static void take(void) {
    for (int i = 0; i < ENDS; i++) {
        const struct end *e = &ends[i];
        siginfo_t info = {0};
        char state = state_of(e->pid);
        CHECK(state == 0 || state == 'Z');
        // Without taking it, once more.
        CHECK(waitid(P_PID, e->pid, &info, WEXITED | WNOWAIT | WNOHANG) == 0);
        EQ(info.si_pid, e->pid);
        EQ(info.si_signo, SIGCHLD);
        EQ(info.si_uid, getuid());
        EQ(info.si_code, e->signal ? CLD_KILLED : CLD_EXITED);
        EQ(info.si_status, e->signal ? e->signal : e->code);
        if (e->own_group) {
            EQ(getpgid(e->pid), e->pid);
            siginfo_t again = {0};
            CHECK(waitid(P_PGID, e->pid, &again, WEXITED | WNOWAIT | WNOHANG) == 0);
            EQ(again.si_pid, e->pid);
        }
    }
    for (int i = 0; i < ENDS; i++) {
        // The oldest one first, as the kernel gives them.
        int status;
        EQ(waitpid(-1, &status, WNOHANG), ends[i].pid);
        EQ(status, ends[i].signal ? ends[i].signal : EXITED(ends[i].code));
    }
    no_children();
}

int main(void) {
    struct rlimit none = {0, 0};
    CHECK(setrlimit(RLIMIT_CORE, &none) == 0);
    tree_begin();
    // The child is older than the root's zombies.
    pid_t child = forked();
    if (child == 0) {
        make();
        prepared();
        await_go();
        take();
        _exit(9);
    }
    make();
    wait_prepared(1);
    ready();
    wait_go();
    reap(child, EXITED(9));
    take();
    return ok();
}
