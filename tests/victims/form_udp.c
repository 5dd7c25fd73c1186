// UDP and UDP-Lite, IPv4 and IPv6: what waits, from whom, in which order; then it talks on.
#include "forms.h"
#include "sockets.h"

static const char *ip = "127.0.0.1";
static int protocol;
static int alive;
static struct place own, living, gone;
static char *options;

static int make(void) {
    int fd = bound_socket(ip, SOCK_DGRAM, protocol);
    own = name_of(fd);
    alive = bound_socket(ip, SOCK_DGRAM, protocol);
    living = name_of(alive);
    int dead = bound_socket(ip, SOCK_DGRAM, protocol);
    gone = name_of(dead);
    send_text(alive, own, "first, from a socket that lives");
    send_text(dead, own, "second, from one that is closed");
    send_text(alive, own, "");
    send_text(dead, own, "fourth");
    close(dead);
    options = sockopts(fd);
    return fd;
}

static void check(int fd) {
    same_sockopts("the socket", fd, options);
    same_place("own name", name_of(fd), own);
    same_place("name of the sender", name_of(alive), living);
    expect_text(fd, "first, from a socket that lives", living);
    expect_text(fd, "second, from one that is closed", gone);
    expect_text(fd, "", living);
    expect_text(fd, "fourth", gone);
    expect_nothing(fd);
    send_text(alive, own, "new");
    expect_text(fd, "new", living);
    send_text(fd, living, "answer");
    expect_text(alive, "answer", own);
}

int main(int argc, char **argv) {
    // "plain", "dup" ...; IP address; protocol.
    if (argc > 2) ip = argv[2];
    if (argc > 3) protocol = atoi(argv[3]);
    if (protocol) {
        int probe = socket(AF_INET, SOCK_DGRAM, protocol);
        if (probe < 0) skip("no protocol %d in this kernel: %s", protocol, strerror(errno));
        close(probe);
    }
    return forms(argc, argv, &(struct kind){make, check, EPOLLIN | EPOLLOUT, false});
}
