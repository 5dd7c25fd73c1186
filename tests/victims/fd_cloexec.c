// Which descriptors are closed on exec, also of open files whose own flags say O_CLOEXEC for ever: what
// TIOCGPTPEER and mq_open(2) open with it, and is duplicated without.
#include "victim.h"
#include <mqueue.h>
#include <sys/ioctl.h>
#include <termios.h>

static const struct { int fd, cloexec; } expected[] = {
    {40, 1}, {41, 0}, {42, 1}, {43, 0}, {44, 1}, {45, 0}, {46, 1}, {47, 0}, {48, 0}, {49, 1},
};

static void pair(int fd, int at) {
    CHECK(fd >= 0 && dup3(fd, at, O_CLOEXEC) == at && dup2(fd, at + 1) == at + 1 && close(fd) == 0);
}

int main(void) {
    int unlock = 0;
    char name[40];
    pair(open("/dev/null", O_RDWR | O_CLOEXEC), 40);
    int m = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(m >= 0 && ioctl(m, TIOCSPTLCK, &unlock) == 0);
    pair(ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC), 42);
    snprintf(name, sizeof name, "/ckpt-cloexec-%d", getpid());
    pair(mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, NULL), 44);
    // As openpty(3) does it.
    pair(ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY), 46);
    CHECK(dup2(m, 48) == 48 && dup3(m, 49, O_CLOEXEC) == 49 && close(m) == 0);
    ready();
    wait_go();
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        int flags = fcntl(expected[i].fd, F_GETFD);
        if (flags != (expected[i].cloexec ? FD_CLOEXEC : 0)) fail("fd %d: F_GETFD is %d", expected[i].fd, flags);
    }
    CHECK(mq_unlink(name) == 0);
    return ok();
}
