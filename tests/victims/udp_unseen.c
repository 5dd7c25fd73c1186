// What waits in sockets and cannot be seen: a datagram that was begun, an error not told yet, when something
// arrived. With the file "restored", it is gone; else nobody has touched it.
#include "sockets.h"
#include <netinet/udp.h>
#include <poll.h>

static void stay_at(int fd, int number) {
    CHECK(dup2(fd, number) == number);
    close(fd);
}

static int ready_for(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    CHECK(poll(&p, 1, 0) >= 0);
    return p.revents;
}

int main(void) {
    int receiver = bound_socket("127.0.0.1", SOCK_DGRAM, 0), one = 1;
    struct place to = name_of(receiver);
    int corked = bound_socket("127.0.0.1", SOCK_DGRAM, 0), closed = bound_socket("127.0.0.1", SOCK_DGRAM, 0);
    struct place from = name_of(corked), nobody = name_of(closed);
    EQ(sendto(corked, "begun", 5, MSG_MORE, &to.any, to.len), 5);
    close(closed);
    int failed = bound_socket("127.0.0.1", SOCK_DGRAM, 0);
    CHECK(connect(failed, &nobody.any, nobody.len) == 0 && send(failed, "x", 1, 0) == 1);
    struct pollfd p = {.fd = failed, .events = POLLIN};
    EQ(poll(&p, 1, 20000), 1);
    CHECK(p.revents & POLLERR);
    int timed = bound_socket("127.0.0.1", SOCK_DGRAM, 0);
    CHECK(setsockopt(timed, SOL_SOCKET, SO_TIMESTAMP, &one, sizeof one) == 0);
    send_text(receiver, name_of(timed), "timed");
    stay_at(corked, 50), stay_at(failed, 51), stay_at(timed, 52);
    ready();
    wait_go();
    bool restored = access(in_dir("restored"), F_OK) == 0;
    expect_text(52, "timed", to);
    EQ(ready_for(51) & POLLERR, restored ? 0 : POLLERR);
    errno = 0;
    CHECK(recv(51, &one, 1, MSG_DONTWAIT) == -1 && errno == (restored ? EAGAIN : ECONNREFUSED));
    expect_nothing(receiver);
    EQ(sendto(50, " ended", 6, 0, &to.any, to.len), 6);
    expect_text(receiver, restored ? " ended" : "begun ended", from);
    return ok();
}
