// A TCP connection to a process outside of the tree: the other end is run by the test.
//
//     fd_tcp_outside MODE ADDRESS PORT
//
// MODE: plain     data in both directions before and after, and in between
//       unsent    more is written than the other end has room for
//       ended     this end has ended the stream
//       over      the other end has ended the stream
//       server    a connection that was accepted, and its listening socket
//       reset     the connection is given up
//       options   what was negotiated and set stays
//       peer      is the other end of "plain", for a network namespace of its own
#include "victim.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static socklen_t parse(const char *ip, int port, union address *a) {
    memset(a, 0, sizeof *a);
    if (inet_pton(AF_INET, ip, &a->v4.sin_addr) == 1) {
        a->v4.sin_family = AF_INET;
        a->v4.sin_port = htons(port);
        return sizeof a->v4;
    }
    CHECK(inet_pton(AF_INET6, ip, &a->v6.sin6_addr) == 1);
    a->v6.sin6_family = AF_INET6;
    a->v6.sin6_port = htons(port);
    return sizeof a->v6;
}

static void expect(int fd, const char *text) {
    char got[100] = "";
    size_t want = strlen(text), n = 0;
    while (n < want) {
        ssize_t r = recv(fd, got + n, want - n, 0);
        CHECK(r > 0);
        n += r;
    }
    if (strcmp(got, text)) fail("received '%s', expected '%s'", got, text);
}

static void say(int fd, const char *text) {
    EQ(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void wait_readable(int fd, int bytes) {
    int n = 0;
    for (int i = 0; n < bytes; i++) {
        CHECK(ioctl(fd, FIONREAD, &n) == 0 && i < 20000);
        sleep_ms(1);
    }
    EQ(n, bytes);
}

static int listening(const char *ip, int port) {
    union address a;
    socklen_t len = parse(ip, port, &a);
    int fd = socket(a.any.sa_family, SOCK_STREAM, 0), one = 1;
    CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
    CHECK(bind(fd, &a.any, len) == 0 && listen(fd, 7) == 0);
    return fd;
}

static int connected(const char *ip, int port) {
    union address a;
    socklen_t len = parse(ip, port, &a);
    int fd = socket(a.any.sa_family, SOCK_STREAM, 0);
    CHECK(connect(fd, &a.any, len) == 0);
    return fd;
}

static void until(const char *name) {
    for (int i = 0; access(in_dir(name), F_OK) != 0; i++) {
        if (i > 30000) fail("no file %s", name);
        sleep_ms(1);
    }
}

// The other end of "plain".
static int peer(const char *ip, int port) {
    int l = listening(ip, port);
    put("listening", "");
    int fd = accept(l, NULL, NULL);
    expect(fd, "one\n");
    say(fd, "two\n");
    until("killed");
    say(fd, "gap\n");
    expect(fd, "three\n");
    say(fd, "four\n");
    char c;
    EQ(recv(fd, &c, 1, 0), 0);
    put("peer-ok", "");
    return 0;
}

static void plain(int fd, bool gap) {
    say(fd, "one\n");
    wait_readable(fd, 4);
    ready();
    wait_go();
    expect(fd, gap ? "two\ngap\n" : "two\n");
    say(fd, "three\n");
    expect(fd, "four\n");
}

static unsigned char byte_at(size_t i) { return (i * 31 + (i >> 9)) & 0xff; }

static size_t pour(int fd, size_t from) {
    unsigned char piece[4096];
    for (;;) {
        for (size_t i = 0; i < sizeof piece; i++) piece[i] = byte_at(from + i);
        ssize_t n = send(fd, piece, sizeof piece, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            EQ(errno, EAGAIN);
            return from;
        }
        from += n;
    }
}

// The other end reads nothing until the restore, and then everything up to the end of the stream.
static void unsent(int fd) {
    size_t n = pour(fd, 0);
    sleep_ms(50);
    n = pour(fd, n);
    int left = 0;
    CHECK(ioctl(fd, TIOCOUTQ, &left) == 0);
    if (left == 0) fail("all %zu bytes were taken", n);
    ready();
    wait_go();
    unsigned char more[100];
    for (size_t i = 0; i < sizeof more; i++) more[i] = byte_at(n + i);
    EQ(send(fd, more, sizeof more, MSG_NOSIGNAL), sizeof more);
    n += sizeof more;
    char text[30];
    snprintf(text, sizeof text, "%zu", n);
    put("count", text);
    CHECK(shutdown(fd, SHUT_WR) == 0);
    expect(fd, "all\n");
}

static void ended(int fd) {
    char c;
    say(fd, "one\n");
    CHECK(shutdown(fd, SHUT_WR) == 0);
    wait_readable(fd, 4);
    ready();
    wait_go();
    expect(fd, "two\n");
    CHECK(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    put("continue", "");
    expect(fd, "four\n");
    EQ(recv(fd, &c, 1, 0), 0);
}

static void over(int fd) {
    char c;
    say(fd, "one\n");
    wait_readable(fd, 4);
    struct pollfd p = {fd, POLLRDHUP, 0};
    EQ(poll(&p, 1, 20000), 1);
    ready();
    wait_go();
    EQ(poll(&p, 1, 0), 1);
    expect(fd, "two\n");
    EQ(recv(fd, &c, 1, 0), 0);
    say(fd, "three\n");
}

static void server(const char *ip, int port) {
    int l = listening(ip, port), ep = epoll_create1(0);
    put("listening", "");
    int fd = accept(l, NULL, NULL);
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u64 = 7};
    CHECK(fd >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) == 0);
    plain(fd, false);
    EQ(epoll_wait(ep, &e, 1, 1000), 1);
    EQ(e.data.u64, 7);
    int client = connected(ip, port), another = accept(l, NULL, NULL);
    say(client, "new\n");
    expect(another, "new\n");
    expect(fd, "more\n");
}

static void reset(int fd) {
    int ep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = 9};
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) == 0);
    say(fd, "one\n");
    wait_readable(fd, 4);
    ready();
    wait_go();
    char c;
    EQ(epoll_wait(ep, &e, 1, 1000), 1);
    EQ(e.data.u64, 9);
    CHECK((e.events & (EPOLLHUP | EPOLLERR)) == (EPOLLHUP | EPOLLERR));
    CHECK(recv(fd, &c, 1, 0) == -1 && errno == ECONNRESET);
    EQ(recv(fd, &c, 1, 0), 0);
    CHECK(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
}

static int option(int fd, int level, int name) {
    int value = -1;
    socklen_t len = sizeof value;
    CHECK(getsockopt(fd, level, name, &value, &len) == 0);
    return value;
}

static void options(int fd) {
    int one = 1, size = 300000, mss;
    CHECK(setsockopt(fd, SOL_TCP, TCP_NODELAY, &one, sizeof one) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
    struct tcp_info before, after;
    socklen_t len = sizeof before;
    int sndbuf = option(fd, SOL_SOCKET, SO_SNDBUF), rcvbuf = option(fd, SOL_SOCKET, SO_RCVBUF);
    CHECK(getsockopt(fd, SOL_TCP, TCP_INFO, &before, &len) == 0);
    mss = option(fd, SOL_TCP, TCP_MAXSEG);
    plain(fd, false);
    len = sizeof after;
    CHECK(getsockopt(fd, SOL_TCP, TCP_INFO, &after, &len) == 0);
    EQ(after.tcpi_options & 7, before.tcpi_options & 7);
    EQ(after.tcpi_snd_wscale, before.tcpi_snd_wscale);
    EQ(after.tcpi_rcv_wscale, before.tcpi_rcv_wscale);
    // It depends on the window, too.
    CHECK(option(fd, SOL_TCP, TCP_MAXSEG) * 2 >= mss);
    EQ(option(fd, SOL_TCP, TCP_NODELAY), 1);
    EQ(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    EQ(option(fd, SOL_SOCKET, SO_REUSEADDR), 1);
    EQ(option(fd, SOL_SOCKET, SO_SNDBUF), sndbuf);
    CHECK(option(fd, SOL_SOCKET, SO_RCVBUF) >= rcvbuf);
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    const char *mode = argv[1], *ip = argv[2];
    int port = atoi(argv[3]);
    if (!strcmp(mode, "peer")) return peer(ip, port);
    if (!strcmp(mode, "server")) {
        server(ip, port);
        return ok();
    }
    int fd = connected(ip, port);
    if (!strcmp(mode, "plain")) plain(fd, false);
    else if (!strcmp(mode, "gap")) plain(fd, true);
    else if (!strcmp(mode, "unsent")) unsent(fd);
    else if (!strcmp(mode, "ended")) ended(fd);
    else if (!strcmp(mode, "over")) over(fd);
    else if (!strcmp(mode, "reset")) reset(fd);
    else if (!strcmp(mode, "options")) options(fd);
    else fail("no mode %s", mode);
    return ok();
}
