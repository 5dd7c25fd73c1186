// Listening TCP sockets: what was set, groups that share a port, multipath TCP. And ports:
//
//     fd_tcp_listen options
//     fd_tcp_listen mptcp
//     fd_tcp_listen moved PORT     every socket that has PORT comes back at the port in the file "port"
#include "victim.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static int option(int fd, int level, int name) {
    int value = -1;
    socklen_t len = sizeof value;
    CHECK(getsockopt(fd, level, name, &value, &len) == 0);
    return value;
}

static void set(int fd, int level, int name, int value) {
    CHECK(setsockopt(fd, level, name, &value, sizeof value) == 0);
}

static int port_of(int fd) {
    struct sockaddr_in6 a;
    socklen_t len = sizeof a;
    CHECK(getsockname(fd, (void *)&a, &len) == 0);
    return ntohs(a.sin6_port);
}

// 127.0.0.1 or, for IPv6, any address.
static int bound(int family, int kind, int protocol, int port, bool share) {
    int fd = socket(family, kind, protocol);
    CHECK(fd >= 0);
    if (share) set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (family == AF_INET6) set(fd, SOL_IPV6, IPV6_V6ONLY, 1);
    CHECK(bind(fd, family == AF_INET ? (void *)&v4 : (void *)&v6, family == AF_INET ? sizeof v4 : sizeof v6) == 0);
    return fd;
}

static int backlog(int fd) {
    struct tcp_info info;
    socklen_t len = sizeof info;
    CHECK(getsockopt(fd, SOL_TCP, TCP_INFO, &info, &len) == 0);
    return info.tcpi_sacked;
}

static int connected(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fd, (void *)&a, sizeof a) == 0);
    return fd;
}

static void serve(int listener, int port) {
    int client = connected(port);
    struct pollfd p = {listener, POLLIN, 0};
    EQ(poll(&p, 1, 20000), 1);
    int server = accept(listener, NULL, NULL);
    char c;
    CHECK(server >= 0 && send(client, "x", 1, 0) == 1 && recv(server, &c, 1, 0) == 1);
    close(client);
    close(server);
}

static void options(void) {
    int one = bound(AF_INET, SOCK_STREAM, 0, 0, true), port = port_of(one);
    int two = bound(AF_INET, SOCK_STREAM, 0, port, true), six = bound(AF_INET6, SOCK_STREAM, 0, port, false);
    set(one, SOL_TCP, TCP_DEFER_ACCEPT, 3);
    set(one, SOL_TCP, TCP_FASTOPEN, 17);
    set(two, SOL_TCP, TCP_NODELAY, 1);
    set(two, SOL_SOCKET, SO_KEEPALIVE, 1);
    CHECK(listen(one, 33) == 0 && listen(two, 44) == 0 && listen(six, 0) == 0);
    int defer = option(one, SOL_TCP, TCP_DEFER_ACCEPT);
    ready();
    wait_go();
    EQ(port_of(one), port);
    EQ(port_of(two), port);
    EQ(port_of(six), port);
    EQ(option(one, SOL_TCP, TCP_DEFER_ACCEPT), defer);
    EQ(option(one, SOL_TCP, TCP_FASTOPEN), 17);
    EQ(option(two, SOL_TCP, TCP_NODELAY), 1);
    EQ(option(two, SOL_SOCKET, SO_KEEPALIVE), 1);
    EQ(option(one, SOL_SOCKET, SO_REUSEPORT), 1);
    EQ(option(six, SOL_SOCKET, SO_REUSEPORT), 0);
    EQ(option(six, SOL_IPV6, IPV6_V6ONLY), 1);
    EQ(backlog(one), 33);
    EQ(backlog(two), 44);
    EQ(backlog(six), 0);
    // Both members of the group get connections.
    int seen[2] = {0};
    for (int i = 0; i < 500 && (!seen[0] || !seen[1]); i++) {
        int client = connected(port);
        CHECK(send(client, "x", 1, 0) == 1);
        struct pollfd p[2] = {{one, POLLIN, 0}, {two, POLLIN, 0}};
        CHECK(poll(p, 2, 20000) == 1);
        int which = p[1].revents != 0;
        seen[which]++;
        close(accept(p[which].fd, NULL, NULL));
        close(client);
    }
    CHECK(seen[0] && seen[1]);
}

static void mptcp(void) {
    int probe = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
    if (probe < 0) skip("no multipath TCP here: %s", strerror(errno));
    close(probe);
    int fd = bound(AF_INET, SOCK_STREAM, IPPROTO_MPTCP, 0, false), port = port_of(fd);
    CHECK(listen(fd, 5) == 0);
    serve(fd, port);
    ready();
    wait_go();
    EQ(option(fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_MPTCP);
    EQ(port_of(fd), port);
    serve(fd, port);
}

static void mptcp_connection(void) {
    int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
    if (fd < 0) skip("no multipath TCP here: %s", strerror(errno));
    int l = bound(AF_INET, SOCK_STREAM, IPPROTO_MPTCP, 0, false);
    CHECK(listen(l, 5) == 0);
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    CHECK(getsockname(l, (void *)&a, &len) == 0 && connect(fd, (void *)&a, len) == 0);
    int server = accept(l, NULL, NULL);
    CHECK(server >= 0);
    ready();
    wait_go();
    char c;
    CHECK(send(fd, "x", 1, 0) == 1 && recv(server, &c, 1, 0) == 1);
}

static void other_port(int port) {
    int l = bound(AF_INET, SOCK_STREAM, 0, port, false), u = bound(AF_INET, SOCK_DGRAM, 0, port, false);
    CHECK(listen(l, 5) == 0);
    int client = connected(port), server = accept(l, NULL, NULL);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int sender = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(connect(sender, (void *)&a, sizeof a) == 0);
    CHECK(send(client, "ab", 2, 0) == 2);
    ready();
    wait_go();
    FILE *file = fopen(in_dir("port"), "r");
    CHECK(file && fscanf(file, "%d", &port) == 1);
    EQ(port_of(l), port);
    EQ(port_of(u), port);
    EQ(port_of(server), port);
    char got[3] = "";
    EQ(recv(server, got, 2, MSG_WAITALL), 2);
    CHECK(!strcmp(got, "ab"));
    CHECK(send(server, "c", 1, 0) == 1 && recv(client, got, 1, 0) == 1);
    CHECK(send(sender, "d", 1, 0) == 1 && recv(u, got, 1, 0) == 1);
    EQ(got[0], 'd');
    serve(l, port);
}

// What was sent into a connection that is not accepted yet.
static void pending(void) {
    int l = bound(AF_INET, SOCK_STREAM, 0, 0, false);
    CHECK(listen(l, 5) == 0);
    int client = connected(port_of(l));
    CHECK(send(client, "x", 1, 0) == 1);
    struct pollfd p = {l, POLLIN, 0};
    EQ(poll(&p, 1, 20000), 1);
    ready();
    wait_go();
    char c;
    if (access(in_dir("given-up"), F_OK) != 0) {
        int server = accept(l, NULL, NULL);
        CHECK(recv(server, &c, 1, 0) == 1);
        return;
    }
    CHECK(recv(client, &c, 1, 0) == -1 && errno == ECONNRESET);
    CHECK(fcntl(l, F_SETFL, O_NONBLOCK) == 0 && accept(l, NULL, NULL) == -1 && errno == EAGAIN);
    serve(l, port_of(l));
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "options";
    if (!strcmp(mode, "mptcp")) mptcp();
    else if (!strcmp(mode, "mptcp_connection")) mptcp_connection();
    else if (!strcmp(mode, "moved")) other_port(atoi(argv[2]));
    else if (!strcmp(mode, "pending")) pending();
    else options();
    return ok();
}
