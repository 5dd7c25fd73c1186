// pidfd of a process that ended and was waited for, in all forms: readable, ESRCH, and its exit status where
// the kernel keeps that (PIDFD_GET_INFO, Linux 6.15).
#include "forms.h"
#include <sys/ioctl.h>
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

static struct kind kind;
static int told;

// Wait status as the pidfd tells it; -1 if it does not.
static int status_of(int fd) {
    struct { uint64_t mask, cgroup; uint32_t ids[11]; int32_t status; } info = {.mask = 8};
    int r = ioctl(fd, _IOWR(0xff, 11, info), &info);
    return r == 0 && (info.mask & 8) ? info.status : -1;
}

static int make(void) {
    pid_t child = forked();
    if (child == 0) _exit(7);
    int fd = (int)syscall(SYS_pidfd_open, child, 0);
    CHECK(fd >= 0);
    reap(child, EXITED(7));
    struct pollfd p = {fd, POLLIN | POLLOUT | POLLPRI, 0};
    CHECK(poll(&p, 1, 0) == 1);
    kind.ready = p.revents;
    told = status_of(fd);
    CHECK(told == -1 || told == EXITED(7));
    return fd;
}

static void check(int fd) {
    struct pollfd p = {fd, POLLIN | POLLOUT | POLLPRI, 0};
    EQ(poll(&p, 1, 0), 1);
    EQ(p.revents, kind.ready);
    CHECK(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) == -1 && errno == ESRCH);
    siginfo_t info;
    CHECK(waitid(3 /* P_PIDFD */, fd, &info, WEXITED | WNOHANG) == -1 && errno == ECHILD);
    EQ(status_of(fd), told);
}

int main(int argc, char **argv) {
    kind = (struct kind){make, check, 0, false};
    return forms(argc, argv, &kind);
}
