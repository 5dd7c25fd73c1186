// epoll: what was reported by edge is not reported again, what was not is, one-shots stay fired, and entries
// live on when their number is closed or another's.
#include "victim.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

static int ep;

static void add(int to, int fd, uint32_t events, uint64_t data) {
    struct epoll_event e = {.events = events, .data.u64 = data};
    CHECK(epoll_ctl(to, EPOLL_CTL_ADD, fd, &e) == 0);
}

static int reported(int of, struct epoll_event *e) {
    e->events = 0;
    e->data.u64 = 0;
    int n = epoll_wait(of, e, 1, 0);
    CHECK(n >= 0);
    return n;
}

// Exactly this, and nothing more.
static void one(int of, uint32_t events, uint64_t data) {
    struct epoll_event e;
    EQ(reported(of, &e), 1);
    EQ(e.data.u64, data);
    EQ(e.events, events);
    if (reported(of, &e)) fail("event %#x of %lu too many", e.events, (unsigned long)e.data.u64);
}

static void nothing(int of) {
    struct epoll_event e;
    if (reported(of, &e)) fail("event %#x of %lu is reported again", e.events, (unsigned long)e.data.u64);
}

static void drain(int of) {
    struct epoll_event e[32];
    for (int i = 0; i < 10; i++) epoll_wait(of, e, 32, 0);
}

int main(void) {
    int pair[2], fired[2], hung[2], news[2];
    ep = epoll_create1(EPOLL_CLOEXEC);
    int pending = epoll_create1(0), inner = epoll_create1(0), mixed = epoll_create1(0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fired) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, news) == 0);
    CHECK(pipe(hung) == 0);
    int count = eventfd(1, EFD_NONBLOCK), fresh = eventfd(1, EFD_NONBLOCK), level = eventfd(1, EFD_NONBLOCK);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec once = {{0, 0}, {0, 1}};
    CHECK(timerfd_settime(timer, 0, &once, NULL) == 0);
    add(ep, pair[0], EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 1);
    add(ep, count, EPOLLIN | EPOLLET, 2);
    add(ep, timer, EPOLLIN | EPOLLET, 3);
    add(ep, fired[0], EPOLLIN | EPOLLOUT | EPOLLONESHOT, 4);
    add(ep, hung[0], EPOLLIN | EPOLLONESHOT | EPOLLET, 5);
    add(inner, level, EPOLLIN, 60);
    add(ep, inner, EPOLLIN | EPOLLET, 6);
    // Under a number that is another's, and one that is nobody's.
    CHECK(dup2(news[0], 200) == 200 && dup2(news[0], 201) == 201);
    add(ep, 200, EPOLLIN | EPOLLOUT | EPOLLET, 7);
    add(ep, 201, EPOLLIN | EPOLLOUT | EPOLLET, 8);
    CHECK(dup2(level, 200) == 200 && close(201) == 0);
    add(ep, 200, EPOLLIN | EPOLLET, 9);
    close(hung[1]);
    struct itimerspec now;
    do CHECK(timerfd_gettime(timer, &now) == 0);
    while (now.it_value.tv_nsec != 0);
    drain(ep);
    nothing(ep);
    add(pending, fresh, EPOLLIN | EPOLLET, 20);
    // Something of each is ready, and something was reported.
    add(mixed, level, EPOLLIN, 30);
    ready();
    wait_go();
    nothing(ep);
    one(pending, EPOLLIN, 20);
    nothing(pending);
    struct epoll_event e;
    EQ(reported(mixed, &e), 1);
    EQ(e.data.u64, 30);
    // News is reported, once.
    CHECK(write(pair[1], "x", 1) == 1);
    one(ep, EPOLLIN | EPOLLOUT, 1);
    CHECK(eventfd_write(count, 1) == 0);
    one(ep, EPOLLIN, 2);
    CHECK(timerfd_settime(timer, 0, &once, NULL) == 0);
    EQ(epoll_wait(ep, &e, 1, 10000), 1);
    EQ(e.data.u64, 3);
    nothing(ep);
    // A one-shot that fired is silent, whatever comes, until it is armed again.
    CHECK(write(fired[1], "x", 1) == 1 && close(fired[1]) == 0);
    nothing(ep);
    struct epoll_event again = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 44};
    CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, fired[0], &again) == 0);
    one(ep, EPOLLIN | EPOLLHUP, 44);
    again.data.u64 = 55;
    CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, hung[0], &again) == 0);
    one(ep, EPOLLHUP, 55);
    // Both entries of a file whose numbers are gone.
    CHECK(write(news[1], "x", 1) == 1);
    struct epoll_event both[3];
    EQ(epoll_wait(ep, both, 3, 0), 2);
    EQ(both[0].data.u64 + both[1].data.u64, 15);
    nothing(ep);
    // Three entries have to do with this one.
    CHECK(eventfd_write(level, 1) == 0);
    EQ(epoll_wait(ep, both, 3, 0), 2);
    EQ(both[0].data.u64 + both[1].data.u64, 15);
    nothing(ep);
    return ok();
}
