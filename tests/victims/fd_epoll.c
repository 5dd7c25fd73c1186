// epoll: events, data, edge-triggered and one-shot entries, an epoll in an epoll.
#include "victim.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static void add(int ep, int fd, uint32_t events, uint64_t data) {
    struct epoll_event e = {.events = events, .data.u64 = data};
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) == 0);
}

int main(void) {
    int ep = epoll_create1(EPOLL_CLOEXEC), outer = epoll_create1(0);
    int level = eventfd(1, EFD_NONBLOCK), edge = eventfd(0, EFD_NONBLOCK), once = eventfd(1, EFD_NONBLOCK);
    int quiet = eventfd(0, EFD_NONBLOCK), twin = dup(quiet);
    add(ep, level, EPOLLIN, 0x1111111111111111);
    add(ep, edge, EPOLLIN | EPOLLET, 0x2222222222222222);
    add(ep, once, EPOLLIN | EPOLLONESHOT, 0x3333333333333333);
    add(ep, quiet, EPOLLIN | EPOLLRDHUP, 0x4444444444444444);
    add(ep, twin, EPOLLIN, 0x5555555555555555);
    add(outer, ep, EPOLLIN, 6);
    struct epoll_event e[10];
    // Uses up the one-shot entry.
    EQ(epoll_wait(ep, e, 10, 0), 2);
    ready();
    wait_go();
    EQ(fcntl(ep, F_GETFD), FD_CLOEXEC);
    EQ(epoll_wait(outer, e, 10, 0), 1);
    EQ(e[0].data.u64, 6);
    EQ(epoll_wait(ep, e, 10, 0), 1);
    EQ(e[0].data.u64, 0x1111111111111111);
    EQ(e[0].events, EPOLLIN);
    CHECK(epoll_ctl(ep, EPOLL_CTL_DEL, level, NULL) == 0);
    EQ(epoll_wait(ep, e, 10, 0), 0);
    CHECK(eventfd_write(edge, 1) == 0);
    EQ(epoll_wait(ep, e, 10, 1000), 1);
    EQ(e[0].data.u64, 0x2222222222222222);
    EQ(epoll_wait(ep, e, 10, 0), 0);
    struct epoll_event again = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 7};
    CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, once, &again) == 0);
    EQ(epoll_wait(ep, e, 10, 0), 1);
    EQ(e[0].data.u64, 7);
    CHECK(eventfd_write(twin, 1) == 0);
    EQ(epoll_wait(ep, e, 10, 0), 2);
    EQ(e[0].data.u64 + e[1].data.u64, 0x9999999999999999);
    return ok();
}
