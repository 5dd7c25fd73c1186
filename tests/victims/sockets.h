// For victims about datagrams: addresses, sending, receiving.
#ifndef SOCKETS_H
#define SOCKETS_H
#include "sockopt.h"

struct place {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    };
    socklen_t len;
};

// An address in words, and a port.
__attribute__((unused)) static struct place place(const char *ip, int port) {
    struct place p;
    memset(&p, 0, sizeof p);
    if (strchr(ip, ':')) {
        p.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
        CHECK(inet_pton(AF_INET6, ip, &p.v6.sin6_addr) == 1);
        p.len = sizeof p.v6;
    } else {
        p.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        CHECK(inet_pton(AF_INET, ip, &p.v4.sin_addr) == 1);
        p.len = sizeof p.v4;
    }
    return p;
}

__attribute__((unused)) static struct place name_of(int fd) {
    struct place p;
    memset(&p, 0, sizeof p);
    p.len = sizeof p.v6;
    CHECK(getsockname(fd, &p.any, &p.len) == 0);
    return p;
}

__attribute__((unused)) static int port_of(int fd) {
    struct place p = name_of(fd);
    return ntohs(p.any.sa_family == AF_INET6 ? p.v6.sin6_port : p.v4.sin_port);
}

static void same_place(const char *what, struct place now, struct place before) {
    if (now.len != before.len || memcmp(&now.any, &before.any, now.len))
        fail("%s: not the address that it was (port %d, was %d)", what, ntohs(now.v4.sin_port), ntohs(before.v4.sin_port));
}

// A socket bound to an address and any free port.
__attribute__((unused)) static int bound_socket(const char *ip, int type, int protocol) {
    struct place p = place(ip, 0);
    int fd = socket(p.any.sa_family, type | SOCK_CLOEXEC, protocol);
    CHECK(fd >= 0);
    if (bind(fd, &p.any, p.len)) {
        if (errno == EADDRNOTAVAIL) skip("no address %s here", ip);
        fail("bind to %s: %s", ip, strerror(errno));
    }
    return fd;
}

__attribute__((unused)) static void send_text(int from, struct place to, const char *text) {
    EQ(sendto(from, text, strlen(text), 0, &to.any, to.len), (long)strlen(text));
}

// The next datagram is this one, from there.
__attribute__((unused)) static void expect_text(int fd, const char *text, struct place from) {
    char got[1000];
    struct place who;
    memset(&who, 0, sizeof who);
    who.len = sizeof who.v6;
    long n = recvfrom(fd, got, sizeof got, MSG_DONTWAIT, &who.any, &who.len);
    if (n != (long)strlen(text) || memcmp(got, text, (size_t)n))
        fail("received %.*s (%ld), expected %s", n > 0 ? (int)n : 0, got, n, text);
    same_place(text, who, from);
}

__attribute__((unused)) static void expect_nothing(int fd) {
    char got[100];
    errno = 0;
    if (recv(fd, got, sizeof got, MSG_DONTWAIT) != -1 || errno != EAGAIN) fail("there is a message too many");
}

#endif
