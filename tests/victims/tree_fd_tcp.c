// TCP connections over loopback whose ends are in two processes: with bytes waiting in both directions,
// one direction ended, the other end closed with bytes still to be read, not accepted yet; IPv4, IPv6, and
// an IPv4 client of a dual-stack server. Addresses stay as they were.
#include "tree.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

enum { MUCH = 60000, CONNECTIONS = 5 };
enum { PLAIN, HALF, GONE, MUCH_WAITS, BOTH };

static struct sockaddr_storage loopback(int family, int port) {
    struct sockaddr_storage s = {0};
    if (family == AF_INET)
        *(struct sockaddr_in *)&s = (struct sockaddr_in){AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {0}};
    else
        *(struct sockaddr_in6 *)&s = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    return s;
}

static int port_of(int fd, int (*of)(int, struct sockaddr *, socklen_t *)) {
    struct sockaddr_storage s;
    socklen_t len = sizeof s;
    CHECK(of(fd, (void *)&s, &len) == 0);
    return ntohs(((struct sockaddr_in *)&s)->sin_port);
}

static int listening(int family, bool any) {
    int fd = socket(family, SOCK_STREAM, 0), one = 1;
    struct sockaddr_storage s = loopback(family, 0);
    if (any) ((struct sockaddr_in6 *)&s)->sin6_addr = in6addr_any;
    CHECK(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
    CHECK(bind(fd, (void *)&s, sizeof s) == 0 && listen(fd, 16) == 0);
    return fd;
}

static int connected(int family, int port) {
    int fd = socket(family, SOCK_STREAM, 0);
    struct sockaddr_storage s = loopback(family, port);
    CHECK(fd >= 0 && connect(fd, (void *)&s, family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)) == 0);
    return fd;
}

static void put_text(int fd, const char *text) {
    EQ(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void expect(int fd, const char *text) {
    char got[200] = {0};
    EQ(recv(fd, got, strlen(text), MSG_WAITALL), strlen(text));
    if (strcmp(got, text)) fail("received %s, not %s", got, text);
}

static void expect_end(int fd) {
    char c;
    EQ(recv(fd, &c, 1, 0), 0);
}

static char much[MUCH];

static void client_process(int family, int port, int ports) {
    int fds[CONNECTIONS], local[CONNECTIONS], one = 1;
    for (int i = 0; i < CONNECTIONS; i++) {
        fds[i] = connected(family, port);
        local[i] = port_of(fds[i], getsockname);
        put_text(fds[i], "hello");
    }
    CHECK(write(ports, local, sizeof local) == sizeof local);
    CHECK(setsockopt(fds[PLAIN], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0);
    CHECK(shutdown(fds[HALF], SHUT_WR) == 0);
    put_text(fds[GONE], "farewell");
    close(fds[GONE]);
    for (int sent = 0; sent < MUCH;) {
        int n = send(fds[MUCH_WAITS], much + sent, MUCH - sent, 0);
        CHECK(n > 0);
        sent += n;
    }
    put_text(fds[BOTH], "last words");
    CHECK(shutdown(fds[BOTH], SHUT_WR) == 0);
    int waiting = connected(family, port);
    prepared();
    await_go();
    socklen_t len = sizeof one;
    one = 0;
    CHECK(getsockopt(fds[PLAIN], IPPROTO_TCP, TCP_NODELAY, &one, &len) == 0);
    EQ(one, 1);
    EQ(port_of(fds[PLAIN], getpeername), port);
    EQ(port_of(fds[PLAIN], getsockname), local[PLAIN]);
    expect(fds[PLAIN], "reply");
    put_text(fds[PLAIN], "thanks");
    expect(fds[HALF], "replymore");
    CHECK(send(fds[HALF], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    expect(fds[BOTH], "reply");
    expect_end(fds[BOTH]);
    put_text(waiting, "at last");
    expect(waiting, "welcome");
    expect_end(fds[PLAIN]);
    _exit(0);
}

static void family(int family, bool dual) {
    int listener = listening(dual ? AF_INET6 : family, dual), port = port_of(listener, getsockname), p[2];
    CHECK(pipe(p) == 0);
    pid_t child = fork();
    if (child == 0) client_process(family, port, p[1]);
    int fds[CONNECTIONS], by[CONNECTIONS], local[CONNECTIONS];
    CHECK(read(p[0], local, sizeof local) == sizeof local);
    close(p[0]);
    close(p[1]);
    for (int i = 0; i < CONNECTIONS; i++) {
        int fd = accept(listener, NULL, NULL), from = port_of(fd, getpeername), k = 0;
        while (k < CONNECTIONS && local[k] != from) k++;
        CHECK(k < CONNECTIONS);
        expect(fd, "hello");
        by[k] = from;
        fds[k] = fd;
    }
    put_text(fds[PLAIN], "reply");
    put_text(fds[HALF], "reply");
    put_text(fds[BOTH], "reply");
    CHECK(shutdown(fds[BOTH], SHUT_WR) == 0 && fcntl(fds[PLAIN], F_SETFL, O_NONBLOCK) == 0);
    if (dual) {
        // Two servers and three clients.
        wait_prepared(5);
        ready();
    } else {
        prepared();
    }
    if (dual) wait_go();
    else await_go();
    for (int i = 0; i < CONNECTIONS; i++)
        if (i != GONE && i != BOTH) {
            EQ(port_of(fds[i], getpeername), by[i]);
            EQ(port_of(fds[i], getsockname), port);
        }
    char c;
    CHECK(recv(fds[PLAIN], &c, 1, 0) == -1 || c == 't');
    expect_end(fds[HALF]);
    put_text(fds[HALF], "more");
    expect(fds[GONE], "farewell");
    expect_end(fds[GONE]);
    char got[MUCH];
    EQ(recv(fds[MUCH_WAITS], got, MUCH, MSG_WAITALL), MUCH);
    CHECK(memcmp(got, much, MUCH) == 0);
    expect(fds[BOTH], "last words");
    expect_end(fds[BOTH]);
    int last = accept(listener, NULL, NULL);
    CHECK(last >= 0);
    expect(last, "at last");
    put_text(last, "welcome");
    struct pollfd pf = {fds[PLAIN], POLLIN, 0};
    while (poll(&pf, 1, 5000) == 1 && recv(fds[PLAIN], got, 100, 0) > 0 && !memchr(got, 's', 6)) {
    }
    CHECK(shutdown(fds[PLAIN], SHUT_WR) == 0);
    // New connections are served as before.
    int again = connected(family, port);
    CHECK(accept(listener, NULL, NULL) >= 0);
    put_text(again, "x");
    reap(child, 0);
}

static pid_t in_child(int which) {
    pid_t pid = fork();
    if (pid == 0) {
        family(which, false);
        _exit(0);
    }
    return pid;
}

int main(void) {
    fill(much, MUCH, 1);
    tree_begin();
    pid_t v4 = in_child(AF_INET), v6 = in_child(AF_INET6);
    family(AF_INET, true);
    reap(v4, 0);
    reap(v6, 0);
    return ok();
}
