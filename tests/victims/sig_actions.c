// Every signal's handler, flags, mask and restorer, as the kernel has them.
#include "victim.h"

struct action {
    uint64_t handler, flags, restorer, mask;
};

static struct action before[65], after[65];
static int caught[65];

static void look(struct action *a) {
    for (int sig = 1; sig <= 64; sig++) {
        if (sig == SIGKILL || sig == SIGSTOP) continue;
        CHECK(syscall(SYS_rt_sigaction, sig, NULL, &a[sig], 8) == 0);
    }
}

static void on_signal(int sig, siginfo_t *info, void *context) {
    (void)info, (void)context;
    caught[sig]++;
}

int main(void) {
    for (int sig = 1; sig <= 64; sig++) {
        if (sig == SIGKILL || sig == SIGSTOP || sig == 32 || sig == 33) continue;
        struct sigaction action = {.sa_sigaction = on_signal};
        action.sa_flags = SA_SIGINFO | (sig % 2 ? SA_RESTART : 0) | (sig % 3 ? SA_NODEFER : 0) |
                          (sig % 5 ? 0 : SA_ONSTACK) | (sig == SIGCHLD ? SA_NOCLDSTOP : 0);
        sigaddset(&action.sa_mask, 1 + sig % 30);
        sigaddset(&action.sa_mask, SIGRTMIN + sig % 20);
        if (sig % 11 == 0) action.sa_handler = SIG_IGN;
        // Flags and mask of a default action mean nothing, but for SIGCHLD.
        if (sig % 13 == 0) continue;
        if (sig == 50) action.sa_flags |= SA_RESETHAND;
        CHECK(sigaction(sig, &action, NULL) == 0);
    }
    look(before);
    ready();
    wait_go();
    look(after);
    for (int sig = 1; sig <= 64; sig++) {
        EQ(after[sig].handler, before[sig].handler);
        EQ(after[sig].flags, before[sig].flags);
        EQ(after[sig].mask, before[sig].mask);
        EQ(after[sig].restorer, before[sig].restorer);
    }
    CHECK(raise(SIGUSR1) == 0 && caught[SIGUSR1] == 1);
    CHECK(raise(SIGRTMIN + 3) == 0 && caught[SIGRTMIN + 3] == 1);
    return ok();
}
