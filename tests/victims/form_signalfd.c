// signalfd with a signal that waits, in all forms.
#include "forms.h"
#include <sys/signalfd.h>

static int make(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGRTMIN + 3);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    union sigval v = {.sival_int = 99};
    CHECK(fd >= 0 && sigqueue(getpid(), SIGRTMIN + 3, v) == 0);
    return fd;
}

static void check(int fd) {
    struct signalfd_siginfo info;
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    CHECK(read(fd, &info, sizeof info) == sizeof info);
    EQ(info.ssi_signo, SIGRTMIN + 3);
    EQ(info.ssi_int, 99);
    CHECK(read(fd, &info, sizeof info) == -1 && errno == EAGAIN);
    CHECK(kill(getpid(), SIGUSR2) == 0);
    CHECK(read(fd, &info, sizeof info) == sizeof info);
    EQ(info.ssi_signo, SIGUSR2);
}

int main(int argc, char **argv) {
    return forms(argc, argv, &(struct kind){make, check, EPOLLIN, true});
}
