// Datagrams of senders that are on no machine here, IPv4 and IPv6.
#include "sockets.h"

static int foreign(const char *ip) {
    struct place p = place(ip, 0);
    int fd = socket(p.any.sa_family, SOCK_DGRAM, 0), one = 1, v6 = p.any.sa_family == AF_INET6;
    if (setsockopt(fd, v6 ? SOL_IPV6 : SOL_IP, v6 ? 75 : 19 /* TRANSPARENT */, &one, sizeof one)) skip("not permitted");
    CHECK(bind(fd, &p.any, p.len) == 0);
    return fd;
}

int main(void) {
    int v4 = bound_socket("127.0.0.1", SOCK_DGRAM, 0), v6 = bound_socket("::1", SOCK_DGRAM, 0);
    int from4 = foreign("192.0.2.77"), from6 = foreign("2001:db8::77");
    struct place name4 = name_of(from4), name6 = name_of(from6);
    send_text(from4, name_of(v4), "from far away");
    send_text(from6, name_of(v6), "from farther away");
    close(from4), close(from6);
    ready();
    wait_go();
    expect_text(v4, "from far away", name4);
    expect_text(v6, "from farther away", name6);
    return ok();
}
