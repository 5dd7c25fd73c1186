// A TCP connection between two processes that is full: nobody has read, the sender can send no more. So
// too in the other direction, by a sender that has also said that this is all.
#include "tree.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

static unsigned char byte_at(size_t i) {
    return mix(i / 8) >> i % 8 * 8;
}

// Sends until there is no room; how much that was.
static size_t stuff(int fd) {
    static unsigned char buffer[1 << 16];
    size_t total = 0;
    for (;;) {
        for (size_t i = 0; i < sizeof buffer; i++) buffer[i] = byte_at(total + i);
        ssize_t n = send(fd, buffer, sizeof buffer, MSG_DONTWAIT);
        if (n < 0) {
            if (errno != EAGAIN) fail("send: %s", strerror(errno));
            return total;
        }
        total += n;
    }
}

static void drain(int fd, size_t total) {
    static unsigned char buffer[1 << 16];
    size_t got = 0;
    while (got < total) {
        ssize_t n = recv(fd, buffer, sizeof buffer < total - got ? sizeof buffer : total - got, 0);
        if (n <= 0) fail("%zu of %zu bytes, then %zd: %s", got, total, n, strerror(errno));
        for (ssize_t i = 0; i < n; i++)
            if (buffer[i] != byte_at(got + i)) fail("byte %zu is wrong", got + i);
        got += n;
    }
}

static int low_water(int fd) {
    int value = 0;
    socklen_t len = sizeof value;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &value, &len) == 0);
    return value;
}

int main(void) {
    tree_begin();
    size_t *totals = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    CHECK(bind(listener, (void *)&a, len) == 0 && listen(listener, 5) == 0 && getsockname(listener, (void *)&a, &len) == 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(connect(fd, (void *)&a, len) == 0);
        totals[0] = stuff(fd);
        CHECK(shutdown(fd, SHUT_WR) == 0);
        prepared();
        await_go();
        EQ(low_water(fd), 1);
        drain(fd, totals[1]);
        _exit(0);
    }
    int fd = accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    totals[1] = stuff(fd);
    wait_prepared(1);
    ready();
    wait_go();
    EQ(low_water(fd), 1);
    drain(fd, totals[0]);
    char c;
    EQ(recv(fd, &c, 1, 0), 0);
    reap(child, 0);
    return ok();
}
