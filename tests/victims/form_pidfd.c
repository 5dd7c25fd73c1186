// pidfd of the process itself, in all forms: its signals reach that process, and it polls readable only at
// its end.
#include "forms.h"
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

static pid_t first;

static int make(void) {
    first = getpid();
    return (int)syscall(SYS_pidfd_open, first, O_NONBLOCK);
}

static void check(int fd) {
    struct pollfd p = {fd, POLLIN, 0};
    EQ(poll(&p, 1, 0), 0);
    CHECK(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) == 0);
    sigset_t set;
    siginfo_t info;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    if (getpid() != first) return;
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    CHECK(syscall(SYS_pidfd_send_signal, fd, SIGUSR1, NULL, 0) == 0);
    EQ(sigwaitinfo(&set, &info), SIGUSR1);
    EQ(info.si_pid, getpid());
}

int main(int argc, char **argv) {
    return forms(argc, argv, &(struct kind){make, check, 0, false});
}
