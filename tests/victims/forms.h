// One kind of descriptor in the forms in which programs hold it: alone ("plain"), under two other numbers
// with the first one closed ("dup"), shared with a child ("shared"), and in an epoll ("epoll").
//
// A victim gives a struct kind and returns forms(argc, argv, &kind). Suites run it by suite.forms("name").
#ifndef FORMS_H
#define FORMS_H
#include "tree.h"
#include <poll.h>
#include <sys/epoll.h>

struct kind {
    // Prepares the state; the descriptor that it is about.
    int (*make)(void);
    // Fails unless the descriptor behaves as it should; may use it up.
    void (*verify)(int fd);
    // Events that epoll reports for it, before the dump and after (EPOLLIN ...); 0 if none is ready;
    // NOT_POLLABLE if epoll does not take it.
    uint32_t ready;
    // The process that made it is the one that it speaks of (F_SETOWN, POSIX locks ...): verify() is run
    // in the parent, not in the child, when it is shared.
    bool by_owner;
};

#define NOT_POLLABLE (~0u)

// What epoll says of the one descriptor in it, without waiting.
static void epoll_reports(int epoll, uint32_t events) {
    struct epoll_event got[2] = {0};
    int n = epoll_wait(epoll, got, 2, 0);
    CHECK(n >= 0);
    EQ(n, events != 0);
    if (n == 0) return;
    EQ(got[0].events, events);
    EQ(got[0].data.u64, 0x1234567890abcdef);
}

__attribute__((unused)) static int forms(int argc, char **argv, const struct kind *kind) {
    const char *form = argc > 1 ? argv[1] : "plain";
    bool shared = !strcmp(form, "shared"), dup = !strcmp(form, "dup"), in_epoll = !strcmp(form, "epoll");
    int other = -1, epoll = -1;
    pid_t child = 0;
    if (shared) tree_begin();
    int fd = kind->make();
    CHECK(fd >= 0);
    if (dup) {
        int first = fd;
        CHECK((fd = fcntl(first, F_DUPFD_CLOEXEC, 400)) == 400);
        CHECK((other = fcntl(first, F_DUPFD, 401)) == 401);
        close(first);
    }
    if (in_epoll) {
        struct epoll_event wanted = {EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP, {.u64 = 0x1234567890abcdef}};
        CHECK((epoll = epoll_create1(EPOLL_CLOEXEC)) >= 0);
        if (kind->ready == NOT_POLLABLE) {
            int expected = fcntl(fd, F_GETFL) & O_PATH ? EBADF : EPERM;
            CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted) == -1 && errno == expected);
        } else {
            CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted) == 0);
            epoll_reports(epoll, kind->ready);
        }
    }
    if (shared && (child = forked()) == 0) {
        prepared();
        await_go();
        if (!kind->by_owner) kind->verify(fd);
        // One open file description: the other process sees its flags change.
        CHECK(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) ^ O_NONBLOCK) == 0 || errno == EBADF);
        _exit(0);
    }
    if (shared) wait_prepared(1);
    int flags = fcntl(fd, F_GETFL);
    ready();
    wait_go();
    if (dup) {
        EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
        EQ(fcntl(other, F_GETFD), 0);
        EQ(syscall(SYS_kcmp, getpid(), getpid(), 0 /* KCMP_FILE */, fd, other), 0);
        fd = other;
    }
    if (in_epoll && kind->ready != NOT_POLLABLE) epoll_reports(epoll, kind->ready);
    if (shared) {
        reap(child, 0);
        EQ(fcntl(fd, F_GETFL), flags & O_PATH ? flags : flags ^ O_NONBLOCK);
    } else {
        EQ(fcntl(fd, F_GETFL), flags);
    }
    if (!shared || kind->by_owner) kind->verify(fd);
    return ok();
}

#endif
