// A thread inside a signal handler, on its alternate stack: it returns to where it was.
#include "victim.h"

static volatile int handled;
static char *alt;

static void on_usr1(int sig, siginfo_t *info, void *context) {
    (void)context;
    char here;
    stack_t now;
    EQ(sig, SIGUSR1);
    EQ(info->si_pid, getpid());
    CHECK(&here > alt && &here < alt + 64 * PAGE);
    ready();
    wait_go();
    CHECK(sigaltstack(NULL, &now) == 0);
    EQ(now.ss_flags, SS_ONSTACK);
    EQ((uint64_t)now.ss_sp, (uint64_t)alt);
    handled++;
}

int main(void) {
    alt = map(64 * PAGE, PROT_READ | PROT_WRITE);
    stack_t stack = {.ss_sp = alt, .ss_size = 64 * PAGE};
    CHECK(sigaltstack(&stack, NULL) == 0);
    struct sigaction action = {.sa_sigaction = on_usr1, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaddset(&action.sa_mask, SIGUSR2);
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    double x = 1.5;
    CHECK(kill(getpid(), SIGUSR1) == 0);
    EQ(handled, 1);
    CHECK(x * 2 == 3.0);
    sigset_t mask;
    CHECK(sigprocmask(SIG_SETMASK, NULL, &mask) == 0);
    CHECK(!sigismember(&mask, SIGUSR1) && !sigismember(&mask, SIGUSR2));
    return ok();
}
