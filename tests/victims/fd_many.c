// Ten thousand descriptors, many of them duplicates.
#include "victim.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { N = 2500 };
static int pipes[N][2], events[N], twins[N];

int main(void) {
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    if (limit.rlim_max < 4 * N + 2000) skip("the hard limit of open files is %lu", (unsigned long)limit.rlim_max);
    limit.rlim_cur = 4 * N + 1000;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    int ep = epoll_create1(0);
    for (int i = 0; i < N; i++) {
        CHECK(pipe2(pipes[i], i % 2 ? O_CLOEXEC : O_NONBLOCK) == 0 && write(pipes[i][1], &i, sizeof i) == sizeof i);
        events[i] = eventfd(i, EFD_NONBLOCK);
        twins[i] = dup(events[i]);
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};
        CHECK(twins[i] >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, events[i], &e) == 0);
    }
    ready();
    wait_go();
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    EQ(limit.rlim_cur, 4 * N + 1000);
    for (int i = 0; i < N; i++) {
        int n = -1;
        EQ(read(pipes[i][0], &n, sizeof n), sizeof n);
        EQ(n, i);
        EQ(fcntl(pipes[i][1], F_GETFD), i % 2 ? FD_CLOEXEC : 0);
        EQ(fcntl(pipes[i][1], F_GETFL) & O_NONBLOCK, i % 2 ? 0 : O_NONBLOCK);
        eventfd_t count = 0;
        EQ(eventfd_read(twins[i], &count), i ? 0 : -1);
        EQ(count, i);
        EQ(eventfd_read(events[i], &count), -1);
    }
    struct epoll_event e;
    EQ(epoll_wait(ep, &e, 1, 0), 0);
    CHECK(eventfd_write(twins[N - 1], 1) == 0);
    EQ(epoll_wait(ep, &e, 1, 0), 1);
    EQ(e.data.u32, N - 1);
    return ok();
}
