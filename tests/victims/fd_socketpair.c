// Unix socket pairs inside the process, with data under way.
#include "victim.h"
#include <sys/socket.h>

static char buffer[100000];

int main(void) {
    int stream[2], dgram[2], seq[2], closed[2], half[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, dgram) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, seq) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, closed) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, half) == 0);
    fill(buffer, 80000, 1);
    EQ(send(stream[0], buffer, 80000, 0), 80000);
    EQ(send(stream[1], "back", 4, 0), 4);
    CHECK(send(dgram[0], "first", 5, 0) == 5 && send(dgram[0], "", 0, 0) == 0 && send(dgram[0], "third", 5, 0) == 5);
    CHECK(send(seq[1], "packet", 6, 0) == 6 && send(seq[1], "pack", 4, 0) == 4);
    CHECK(send(closed[0], "legacy", 6, 0) == 6 && close(closed[0]) == 0);
    CHECK(send(half[0], "end", 3, 0) == 3 && shutdown(half[0], SHUT_WR) == 0);
    signal(SIGPIPE, SIG_IGN);
    ready();
    wait_go();
    EQ(recv(stream[1], buffer, sizeof buffer, MSG_WAITALL | MSG_DONTWAIT), 80000);
    verify(buffer, 80000, 1);
    EQ(recv(stream[0], buffer, 100, 0), 4);
    EQ(fcntl(stream[0], F_GETFD), FD_CLOEXEC);
    EQ(recv(dgram[1], buffer, 100, 0), 5);
    EQ(recv(dgram[1], buffer, 100, 0), 0);
    EQ(recv(dgram[1], buffer, 100, 0), 5);
    EQ(memcmp(buffer, "third", 5), 0);
    CHECK(recv(dgram[1], buffer, 100, 0) == -1 && errno == EAGAIN);
    EQ(recv(seq[0], buffer, 100, 0), 6);
    EQ(recv(seq[0], buffer, 100, 0), 4);
    EQ(recv(closed[1], buffer, 100, 0), 6);
    EQ(recv(closed[1], buffer, 100, 0), 0);
    CHECK(send(closed[1], "x", 1, 0) == -1 && errno == EPIPE);
    EQ(recv(half[1], buffer, 100, 0), 3);
    EQ(recv(half[1], buffer, 100, 0), 0);
    CHECK(send(half[0], "x", 1, 0) == -1 && errno == EPIPE);
    EQ(send(half[1], "still", 5, 0), 5);
    EQ(recv(half[0], buffer, 100, 0), 5);
    CHECK(send(stream[0], "new", 3, 0) == 3 && recv(stream[1], buffer, 100, 0) == 3);
    return ok();
}
