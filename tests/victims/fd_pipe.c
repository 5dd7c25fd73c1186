// Pipes with both ends inside: contents, capacity, flags, packets, half closed; a FIFO.
#include "victim.h"

static char buffer[1 << 20];

int main(void) {
    int plain[2], small[2], packet[2], ended[2], broken[2], dups[2], empty[2];
    CHECK(pipe(plain) == 0 && pipe2(small, O_NONBLOCK | O_CLOEXEC) == 0 && pipe2(packet, O_DIRECT) == 0);
    CHECK(pipe(ended) == 0 && pipe(broken) == 0 && pipe(dups) == 0 && pipe(empty) == 0);
    CHECK(fcntl(plain[1], F_SETPIPE_SZ, 256 << 10) == 256 << 10);
    fill(buffer, 200000, 1);
    EQ(write(plain[1], buffer, 200000), 200000);
    CHECK(fcntl(small[1], F_SETPIPE_SZ, 4096) == 4096);
    EQ(write(small[1], buffer, 4096), 4096);
    CHECK(write(packet[1], "one", 3) == 3 && write(packet[1], "second", 6) == 6);
    CHECK(write(ended[1], "last", 4) == 4 && close(ended[1]) == 0);
    CHECK(close(broken[0]) == 0);
    int dup_of_write = dup(dups[1]);
    CHECK(close(dups[1]) == 0 && write(dup_of_write, "d", 1) == 1);
    CHECK(mkfifo(in_dir("fifo"), 0600) == 0);
    int fifo = open(in_dir("fifo"), O_RDWR);
    CHECK(fifo >= 0 && write(fifo, "fifo content", 12) == 12);
    signal(SIGPIPE, SIG_IGN);
    ready();
    wait_go();
    EQ(fcntl(plain[0], F_GETPIPE_SZ), 256 << 10);
    EQ(fcntl(small[0], F_GETPIPE_SZ), 4096);
    EQ(read(plain[0], buffer, sizeof buffer), 200000);
    verify(buffer, 200000, 1);
    CHECK(write(small[1], "x", 1) == -1 && errno == EAGAIN);
    EQ(read(small[0], buffer, sizeof buffer), 4096);
    verify(buffer, 4096, 1);
    CHECK(read(small[0], buffer, 1) == -1 && errno == EAGAIN);
    EQ(fcntl(small[0], F_GETFD), FD_CLOEXEC);
    EQ(read(packet[0], buffer, 100), 3);
    EQ(read(packet[0], buffer, 100), 6);
    EQ(memcmp(buffer, "second", 6), 0);
    CHECK(write(packet[1], "a", 1) == 1 && write(packet[1], "b", 1) == 1);
    EQ(read(packet[0], buffer, 100), 1);
    EQ(read(ended[0], buffer, 100), 4);
    EQ(read(ended[0], buffer, 100), 0);
    CHECK(write(broken[1], "x", 1) == -1 && errno == EPIPE);
    EQ(read(dups[0], buffer, 10), 1);
    CHECK(close(dup_of_write) == 0);
    EQ(read(dups[0], buffer, 10), 0);
    EQ(read(fifo, buffer, 100), 12);
    EQ(memcmp(buffer, "fifo content", 12), 0);
    CHECK(write(empty[1], "e", 1) == 1 && read(empty[0], buffer, 10) == 1);
    return ok();
}
