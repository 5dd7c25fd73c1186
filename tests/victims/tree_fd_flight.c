// Descriptors in messages that nobody has received: at their place in a stream, in datagrams, a socket
// with a queue of its own, the only end of a pipe, one that is open here, too.
#include "tree.h"
#include <sys/socket.h>

static void send_fds(int to, const char *text, size_t len, const int *fds, int count) {
    char control[CMSG_SPACE(4 * sizeof(int))] = {0};
    struct iovec iov = {(void *)text, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (count) {
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(count * sizeof(int))};
        memcpy(CMSG_DATA(c), fds, count * sizeof(int));
    }
    EQ(sendmsg(to, &msg, 0), len);
}

// Receives at most `max` bytes, which must be `text`, and `count` descriptors.
static void receive(int from, size_t max, const char *text, int *fds, int count) {
    char control[CMSG_SPACE(8 * sizeof(int))], bytes[1000] = {0};
    struct iovec iov = {bytes, max};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    EQ(recvmsg(from, &msg, MSG_DONTWAIT), strlen(text));
    if (strcmp(bytes, text)) fail("received \"%s\", not \"%s\"", bytes, text);
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    int got = c ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
    if (got != count) fail("%d descriptors came with \"%s\", not %d", got, text, count);
    if (count) memcpy(fds, CMSG_DATA(c), count * sizeof(int));
}

static void send_one(int to, const char *text, int fd) {
    send_fds(to, text, strlen(text), &fd, 1);
}

static int read_end, log_file, inner_far;

static void verify_stream(int far) {
    int fds[4];
    // Byte by byte up to the first descriptor: it comes with "f" and not before.
    receive(far, 3, "pla", NULL, 0);
    receive(far, 3, "in ", NULL, 0);
    receive(far, 1, "f", fds, 1);
    receive(far, 4, "irst", NULL, 0);
    CHECK(write(fds[0], "through", 7) == 7 && close(fds[0]) == 0);
    char text[20];
    EQ(read(read_end, text, sizeof text), 7);
    EQ(read(read_end, text, sizeof text), 0);
    // What a large buffer gets: plain bytes up to and with the next descriptors.
    receive(far, 100, "middlesecond", fds, 2);
    EQ(lseek(fds[0], 0, SEEK_CUR), 5);
    CHECK(write(fds[0], "more", 4) == 4);
    EQ(lseek(log_file, 0, SEEK_CUR), 9);
    int inner = fds[1], inside[4];
    receive(inner, 100, "in the queue of a queued socket", inside, 1);
    CHECK(write(inside[0], "!", 1) == 1);
    CHECK(send(inner_far, "now", 3, 0) == 3);
    receive(inner, 100, "now", NULL, 0);
    receive(far, 3, "end", NULL, 0);
}

static void verify_datagrams(int far) {
    int fds[4];
    receive(far, 100, "without", NULL, 0);
    receive(far, 100, "with", fds, 3);
    EQ(lseek(fds[0], 0, SEEK_CUR), 9);
    CHECK(fcntl(fds[2], F_GETFD) >= 0);
    receive(far, 100, "", fds, 1);
    receive(far, 100, "last", NULL, 0);
}

int main(void) {
    int p[2], stream[2], dgram[2], inner[2], packets[2];
    CHECK(pipe(p) == 0);
    read_end = p[0];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, dgram) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, inner) == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets) == 0);
    CHECK((log_file = open(in_dir("log"), O_RDWR | O_CREAT | O_TRUNC, 0600)) >= 0);
    CHECK(write(log_file, "start", 5) == 5);

    send_fds(stream[0], "plain ", 6, NULL, 0);
    send_one(stream[0], "first", p[1]);
    close(p[1]);
    send_fds(stream[0], "middle", 6, NULL, 0);
    send_one(inner[0], "in the queue of a queued socket", stream[0]);
    inner_far = inner[0];
    send_fds(stream[0], "second", 6, (int[]){log_file, inner[1]}, 2);
    close(inner[1]);
    send_fds(stream[0], "end", 3, NULL, 0);

    send_fds(dgram[0], "without", 7, NULL, 0);
    send_fds(dgram[0], "with", 4, (int[]){log_file, log_file, dgram[0]}, 3);
    send_fds(dgram[0], "", 0, &log_file, 1);
    send_fds(dgram[0], "last", 4, NULL, 0);

    send_fds(packets[0], "pac", 3, NULL, 0);
    send_fds(packets[0], "kets", 4, &log_file, 1);

    ready();
    wait_go();
    verify_stream(stream[1]);
    char byte;
    EQ(recv(stream[1], &byte, 1, MSG_DONTWAIT), 1);
    EQ(byte, '!');
    verify_datagrams(dgram[1]);
    int fds[4];
    receive(packets[1], 100, "pac", NULL, 0);
    receive(packets[1], 100, "kets", fds, 1);
    EQ(lseek(fds[0], 0, SEEK_CUR), 9);
    return ok();
}
