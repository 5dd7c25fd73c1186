// Sockets without a peer outside: listening, bound, fresh; IPv4, IPv6 and unix; options.
#include "victim.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_storage name_of[10];
static socklen_t len_of[10];

static int bound(int i, int family, int type, int options) {
    int fd = socket(family, type, 0), one = 1;
    if (fd < 0 && family == AF_INET6) skip("no IPv6 here");
    CHECK(fd >= 0);
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    if (options) CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
    if (options && family == AF_INET6) CHECK(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) == 0);
    if (options && type == SOCK_STREAM) CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0);
    int size = 50000;
    if (options) CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) == 0);
    if (bind(fd, family == AF_INET ? (void *)&a4 : (void *)&a6, family == AF_INET ? sizeof a4 : sizeof a6)) {
        if (errno == EADDRNOTAVAIL) skip("no IPv6 loopback here");
        fail("bind: %s", strerror(errno));
    }
    len_of[i] = sizeof name_of[i];
    CHECK(getsockname(fd, (void *)&name_of[i], &len_of[i]) == 0);
    return fd;
}

static void same_name(int i, int fd) {
    struct sockaddr_storage now;
    memset(&now, 0, sizeof now);
    socklen_t len = sizeof now;
    CHECK(getsockname(fd, (void *)&now, &len) == 0);
    EQ(len, len_of[i]);
    CHECK(memcmp(&now, &name_of[i], len) == 0);
}

static int option(int fd, int level, int what) {
    int value = -1;
    socklen_t len = sizeof value;
    CHECK(getsockopt(fd, level, what, &value, &len) == 0);
    return value;
}

static void talk(int i, int family, int type, int fd) {
    int client = socket(family, type, 0);
    CHECK(connect(client, (void *)&name_of[i], len_of[i]) == 0);
    CHECK(send(client, "hi", 2, 0) == 2);
    char text[4];
    int from = type == SOCK_STREAM || type == SOCK_SEQPACKET ? accept(fd, NULL, NULL) : fd;
    CHECK(from >= 0);
    EQ(recv(from, text, 4, 0), 2);
    close(client);
    if (from != fd) close(from);
}

static int unix_bound(int i, int type, const char *name) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name) + (name[0] == '@' ? 0 : 1));
    strncpy(a.sun_path, name, sizeof a.sun_path - 1);
    if (name[0] == '@') a.sun_path[0] = 0;
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (bind(fd, (void *)&a, len)) fail("bind to %s: %s", name, strerror(errno));
    len_of[i] = sizeof name_of[i];
    CHECK(getsockname(fd, (void *)&name_of[i], &len_of[i]) == 0);
    return fd;
}

int main(void) {
    int tcp4 = bound(0, AF_INET, SOCK_STREAM, 1), tcp6 = bound(1, AF_INET6, SOCK_STREAM, 1);
    int udp4 = bound(2, AF_INET, SOCK_DGRAM, 1), udp6 = bound(3, AF_INET6, SOCK_DGRAM, 0);
    CHECK(listen(tcp4, 17) == 0 && listen(tcp6, 5) == 0);
    int fresh = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), fresh_udp = socket(AF_INET, SOCK_DGRAM, 0);
    char abstract[60];
    snprintf(abstract, sizeof abstract, "@ckpt-victim-%d-%ld", getpid(), (long)time(NULL));
    // A short path: sun_path holds 108 bytes only.
    CHECK(chdir(in_dir(".")) == 0);
    int path = unix_bound(4, SOCK_STREAM, "u"), abs = unix_bound(5, SOCK_SEQPACKET, abstract);
    int dgram = unix_bound(6, SOCK_DGRAM, "d");
    CHECK(listen(path, 5) == 0 && listen(abs, 5) == 0);
    int receive_buffer = option(tcp4, SOL_SOCKET, SO_RCVBUF);
    ready();
    wait_go();
    same_name(0, tcp4), same_name(1, tcp6), same_name(2, udp4), same_name(3, udp6);
    same_name(4, path), same_name(5, abs), same_name(6, dgram);
    EQ(option(tcp4, SOL_SOCKET, SO_ACCEPTCONN), 1);
    EQ(option(tcp4, SOL_SOCKET, SO_REUSEADDR), 1);
    EQ(option(tcp4, SOL_SOCKET, SO_RCVBUF), receive_buffer);
    EQ(option(tcp4, IPPROTO_TCP, TCP_NODELAY), 1);
    EQ(option(tcp6, IPPROTO_IPV6, IPV6_V6ONLY), 1);
    EQ(fcntl(fresh, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    EQ(fcntl(path, F_GETFD), FD_CLOEXEC);
    talk(0, AF_INET, SOCK_STREAM, tcp4);
    talk(1, AF_INET6, SOCK_STREAM, tcp6);
    talk(2, AF_INET, SOCK_DGRAM, udp4);
    talk(3, AF_INET6, SOCK_DGRAM, udp6);
    talk(4, AF_UNIX, SOCK_STREAM, path);
    talk(5, AF_UNIX, SOCK_SEQPACKET, abs);
    talk(6, AF_UNIX, SOCK_DGRAM, dgram);
    CHECK(connect(fresh_udp, (void *)&name_of[2], len_of[2]) == 0 && send(fresh_udp, "f", 1, 0) == 1);
    char c;
    EQ(recv(udp4, &c, 1, 0), 1);
    CHECK(fcntl(fresh, F_SETFL, 0) == 0 && connect(fresh, (void *)&name_of[0], len_of[0]) == 0);
    return ok();
}
