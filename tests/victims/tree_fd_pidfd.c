// pidfds in a tree: of a running child, a zombie, a killed and reaped one, a thread, the parent, a sibling;
// one of them shared by all, and all of them in an epoll.
#include "tree.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

enum { RUNNING, ZOMBIE, GONE, THREAD, COUNT };

static int opened(pid_t pid, unsigned flags) {
    int fd = (int)syscall(SYS_pidfd_open, pid, flags);
    CHECK(fd >= 0);
    return fd;
}

static int send_by(int fd, int signal) {
    return (int)syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0);
}

static bool readable(int fd) {
    struct pollfd p = {fd, POLLIN, 0};
    return poll(&p, 1, 0) == 1;
}

static _Atomic pid_t tid;
static _Atomic bool end_thread;

static void *thread(void *unused) {
    tid = gettid();
    while (!end_thread) sleep_ms(1);
    return unused;
}

int main(void) {
    int fds[COUNT], lock[2];
    tree_begin();
    sigset_t set;
    siginfo_t info;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    CHECK(pipe2(lock, O_CLOEXEC) == 0);
    // A sibling that the others hold by a descriptor that all of them share.
    pid_t sibling = forked();
    if (sibling == 0) {
        forget_prepared();
        CHECK(close(lock[1]) == 0);
        char c;
        _exit(read(lock[0], &c, 1) == 0 ? 5 : 6);
    }
    int shared = opened(sibling, O_NONBLOCK);
    pid_t running = forked();
    if (running == 0) {
        close(lock[0]);
        close(lock[1]);
        int parent = opened(getppid(), 0);
        prepared();
        await_go();
        CHECK(!readable(parent) && !readable(shared));
        // One open file description.
        CHECK(fcntl(shared, F_SETFL, 0) == 0);
        CHECK(send_by(parent, SIGUSR1) == 0 && send_by(shared, 0) == 0);
        for (;;) pause();
    }
    close(lock[0]);
    pid_t zombie = forked(), gone;
    if (zombie == 0) _exit(3);
    fds[ZOMBIE] = opened(zombie, 0);
    gone = forked();
    if (gone == 0) for (;;) pause();
    fds[GONE] = opened(gone, 0);
    kill(gone, SIGTERM);
    reap(gone, SIGTERM);
    fds[RUNNING] = opened(running, O_NONBLOCK);
    pthread_t t;
    CHECK(pthread_create(&t, NULL, thread, NULL) == 0);
    UNTIL(tid != 0);
    fds[THREAD] = (int)syscall(SYS_pidfd_open, tid, O_EXCL);
    bool of_thread = fds[THREAD] >= 0;
    UNTIL(readable(fds[ZOMBIE]));
    int epoll = epoll_create1(0);
    for (int i = 0; i < COUNT; i++) {
        struct epoll_event e = {EPOLLIN, {.u32 = i}};
        CHECK((i == THREAD && !of_thread) || epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &e) == 0);
    }
    wait_prepared(1);
    ready();
    wait_go();
    struct epoll_event got[COUNT];
    bool seen[COUNT] = {false};
    int n = epoll_wait(epoll, got, COUNT, 0);
    for (int i = 0; i < n; i++) seen[got[i].data.u32] = true;
    CHECK(!seen[RUNNING] && seen[ZOMBIE] && seen[GONE] && !seen[THREAD]);
    EQ(sigwaitinfo(&set, &info), SIGUSR1);
    EQ(info.si_pid, running);
    UNTIL(fcntl(shared, F_GETFL) == O_RDWR);
    EQ(fcntl(fds[RUNNING], F_GETFL), O_RDWR | O_NONBLOCK);
    CHECK(send_by(fds[GONE], 0) == -1 && errno == ESRCH);
    CHECK(waitid(3 /* P_PIDFD */, fds[RUNNING], &info, WEXITED) == -1 && errno == EAGAIN);
    CHECK(waitid(3, fds[ZOMBIE], &info, WEXITED) == 0);
    EQ(info.si_pid, zombie);
    EQ(info.si_status, 3);
    CHECK(send_by(fds[RUNNING], SIGKILL) == 0);
    EQ(epoll_ctl(epoll, EPOLL_CTL_DEL, fds[ZOMBIE], NULL), 0);
    EQ(epoll_ctl(epoll, EPOLL_CTL_DEL, fds[GONE], NULL), 0);
    EQ(epoll_wait(epoll, got, COUNT, 20000), 1);
    EQ(got[0].data.u32, RUNNING);
    reap(running, SIGKILL);
    if (of_thread) {
        end_thread = true;
        CHECK(pthread_join(t, NULL) == 0);
        UNTIL(readable(fds[THREAD]));
    }
    close(lock[1]);
    struct pollfd p = {shared, POLLIN, 0};
    EQ(poll(&p, 1, 20000), 1);
    reap(sibling, EXITED(5));
    CHECK(send_by(shared, 0) == -1 && errno == ESRCH);
    return ok();
}
