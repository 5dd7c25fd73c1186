// Descriptors in places that are hard to restore: epoll registrations under numbers that are closed
// or another's by now, packets in a pipe, ends of a pipe opened again, a FIFO, F_SETOWN.
#include "victim.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static volatile sig_atomic_t signals;

static void count(int signo) {
    (void)signo;
    signals++;
}

static void add(int ep, int fd, uint64_t data) {
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = data};
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) == 0);
}

static void only(int ep, uint64_t data) {
    struct epoll_event e[4];
    EQ(epoll_wait(ep, e, 4, 0), 1);
    EQ(e[0].data.u64, data);
}

int main(void) {
    int ep = epoll_create1(0), a = eventfd(0, 0), a2 = dup(a), b, c, c2;
    add(ep, a, 1);
    CHECK(close(a) == 0);
    b = eventfd(0, 0);
    EQ(b, a);
    add(ep, b, 2);
    c = eventfd(0, 0);
    c2 = fcntl(c, F_DUPFD_CLOEXEC, 100);
    add(ep, c, 3);
    int packets[2], twice[2];
    CHECK(pipe2(packets, O_DIRECT) == 0 && write(packets[1], "one", 3) == 3 && write(packets[1], "three", 5) == 5);
    CHECK(pipe(twice) == 0 && write(twice[1], "ab", 2) == 2);
    char link[50];
    snprintf(link, sizeof link, "/proc/self/fd/%d", twice[0]);
    int reader = open(link, O_RDONLY | O_NONBLOCK), both = open(link, O_RDWR);
    CHECK(mkfifo(in_dir("fifo"), 0600) == 0);
    int fifo = open(in_dir("fifo"), O_RDONLY | O_NONBLOCK), feeder = open(in_dir("fifo"), O_WRONLY);
    CHECK(reader >= 0 && both >= 0 && fifo >= 0 && write(feeder, "fed", 3) == 3);
    CHECK(signal(SIGUSR1, count) != SIG_ERR && fcntl(twice[0], F_SETOWN, getpid()) == 0);
    CHECK(fcntl(twice[0], F_SETSIG, SIGUSR1) == 0 && fcntl(twice[0], F_SETFL, O_ASYNC) == 0);
    CHECK(close(c) == 0);
    ready();
    wait_go();
    char text[100];
    EQ(signals, 0);
    CHECK(eventfd_write(a2, 1) == 0);
    only(ep, 1);
    eventfd_t n;
    CHECK(eventfd_read(a2, &n) == 0 && eventfd_write(b, 1) == 0);
    only(ep, 2);
    CHECK(eventfd_read(b, &n) == 0 && eventfd_write(c2, 1) == 0);
    only(ep, 3);
    CHECK(fcntl(c, F_GETFD) == -1 && errno == EBADF);
    EQ(read(packets[0], text, 1), 1);
    EQ(read(packets[0], text, sizeof text), 5);
    EQ(read(reader, text, 1), 1);
    EQ(read(both, text, 1), 1);
    EQ(text[0], 'b');
    CHECK(read(reader, text, 1) == -1 && errno == EAGAIN);
    EQ(fcntl(twice[0], F_GETFL) & O_NONBLOCK, 0);
    EQ(fcntl(twice[0], F_GETOWN), getpid());
    EQ(write(both, "x", 1), 1);
    EQ(signals, 1);
    EQ(read(fifo, text, sizeof text), 3);
    CHECK(close(feeder) == 0);
    EQ(read(fifo, text, sizeof text), 0);
    return ok();
}
