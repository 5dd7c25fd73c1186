// UDP sockets of all sorts, each with something that waits: connected, sharing a port (SO_REUSEPORT), bound
// to any address or to an interface, with a filter, multicast; large, empty and many datagrams.
#include "sockets.h"
#include <netinet/udp.h>

static void on(int fd, int level, int name) {
    int one = 1;
    CHECK(setsockopt(fd, level, name, &one, sizeof one) == 0);
}

#define LARGE 65507
#define MANY 100

int main(void) {
    struct place any = place("0.0.0.0", 0), any6 = place("::", 0);
    int sender = bound_socket("127.0.0.1", SOCK_DGRAM, 0);
    struct place from = name_of(sender);

    // Connected to the sender, which is connected to it.
    int a = bound_socket("127.0.0.1", SOCK_DGRAM, 0), b = bound_socket("127.0.0.1", SOCK_DGRAM, 0);
    struct place a_name = name_of(a), b_name = name_of(b);
    CHECK(connect(a, &b_name.any, b_name.len) == 0 && connect(b, &a_name.any, a_name.len) == 0);
    CHECK(send(a, "to b", 4, 0) == 4 && send(b, "to a", 4, 0) == 4);

    // Two that share a port: each keeps its own.
    int share[2];
    struct place shared = any;
    for (int i = 0; i < 2; i++) {
        CHECK((share[i] = socket(AF_INET, SOCK_DGRAM, 0)) >= 0);
        on(share[i], SOL_SOCKET, SO_REUSEPORT);
        CHECK(bind(share[i], &shared.any, shared.len) == 0);
        shared = name_of(share[i]);
    }
    struct place to_shared = place("127.0.0.1", ntohs(shared.v4.sin_port));
    int waits[2] = {0, 0};
    struct place senders[16];
    for (int i = 0; i < 16; i++) {
        int s = bound_socket("127.0.0.1", SOCK_DGRAM, 0);
        senders[i] = name_of(s);
        send_text(s, to_shared, i % 2 ? "odd" : "even");
        close(s);
    }
    // Who has which: looked at, not taken.
    static int whose[16];
    for (int i = 0; i < 2; i++) {
        int offset = 0;
        CHECK(setsockopt(share[i], SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset) == 0);
        for (;;) {
            struct place who = {.len = sizeof who.v6};
            char text[9];
            if (recvfrom(share[i], text, 9, MSG_PEEK | MSG_DONTWAIT, &who.any, &who.len) < 0) break;
            for (int s = 0; s < 16; s++)
                if (who.v4.sin_port == senders[s].v4.sin_port) whose[s] = i;
            waits[i]++;
        }
        offset = -1;
        CHECK(setsockopt(share[i], SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset) == 0);
    }
    EQ(waits[0] + waits[1], 16);

    // IPv6 with IPv4 senders; what the program wants to know with each.
    int dual = socket(AF_INET6, SOCK_DGRAM, 0), rich = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(bind(dual, &any6.any, any6.len) == 0 && bind(rich, &any.any, any.len) == 0);
    send_text(sender, place("127.0.0.1", port_of(dual)), "IPv4 in IPv6 clothes");
    on(rich, SOL_IP, IP_PKTINFO), on(rich, SOL_IP, IP_RECVTTL), on(rich, SOL_IP, IP_RECVTOS);
    int odd = bound_socket("127.0.0.1", SOCK_DGRAM, 0), ttl = 77, tos = 0x10;
    CHECK(setsockopt(odd, SOL_IP, IP_TTL, &ttl, sizeof ttl) == 0);
    CHECK(setsockopt(odd, SOL_IP, IP_TOS, &tos, sizeof tos) == 0);
    send_text(odd, place("127.1.2.3", port_of(rich)), "rich");

    // Bound to an interface, and with a filter that lets nothing pass any more; no one knew before.
    int device = socket(AF_INET, SOCK_DGRAM, 0), filtered = bound_socket("127.0.0.1", SOCK_DGRAM, 0);
    CHECK(setsockopt(device, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) == 0);
    CHECK(bind(device, &any.any, any.len) == 0);
    send_text(sender, place("127.0.0.1", port_of(device)), "by lo");
    send_text(sender, name_of(filtered), "passed");
    struct sock_filter nothing = {BPF_RET | BPF_K, 0, 0, 0};
    struct sock_fprog program = {1, &nothing};
    CHECK(setsockopt(filtered, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0);

    // Sizes. The receiver is full.
    int large = bound_socket("127.0.0.1", SOCK_DGRAM, 0), many = bound_socket("127.0.0.1", SOCK_DGRAM, 0);
    static char bytes[LARGE], got[LARGE + 9];
    for (int i = 0; i < LARGE; i++) bytes[i] = (char)mix((uint64_t)i);
    struct place to = name_of(large);
    CHECK(sendto(sender, bytes, LARGE, 0, &to.any, to.len) == LARGE);
    to = name_of(many);
    for (int i = 0; i < MANY; i++) CHECK(sendto(sender, bytes, (size_t)i * 3, 0, &to.any, to.len) == i * 3);

    // Shut down for reading.
    int shut = bound_socket("127.0.0.1", SOCK_DGRAM, 0);
    CHECK(connect(shut, &from.any, from.len) == 0);
    send_text(sender, name_of(shut), "before the end");
    CHECK(shutdown(shut, SHUT_RD) == 0);
    int mute = bound_socket("127.0.0.1", SOCK_DGRAM, 0);
    CHECK(connect(mute, &from.any, from.len) == 0 && shutdown(mute, SHUT_WR) == 0);
    // Corked, with nothing in it yet.
    int corked = socket(AF_INET, SOCK_DGRAM, 0);
    on(corked, SOL_UDP, UDP_CORK);
    int all[] = {a, b, share[0], share[1], dual, rich, device, filtered, large, many, shut, mute, corked, sender};
    char *options[sizeof all / sizeof *all];
    struct place names[sizeof all / sizeof *all];
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) options[i] = sockopts(all[i]), names[i] = name_of(all[i]);
    ready();
    wait_go();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char what[30];
        snprintf(what, sizeof what, "socket %zu", i);
        same_sockopts(what, all[i], options[i]);
        same_place(what, name_of(all[i]), names[i]);
    }
    expect_text(a, "to a", b_name), expect_text(b, "to b", a_name);
    CHECK(send(a, "more", 4, 0) == 4);
    expect_text(b, "more", a_name);
    for (int i = 0; i < 16; i++) expect_text(share[whose[i]], i % 2 ? "odd" : "even", senders[i]);
    expect_nothing(share[0]), expect_nothing(share[1]);
    struct place mapped = place("::ffff:127.0.0.1", ntohs(from.v4.sin_port));
    expect_text(dual, "IPv4 in IPv6 clothes", mapped);
    char text[100], control[200];
    struct iovec iov = {text, sizeof text};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    EQ(recvmsg(rich, &msg, MSG_DONTWAIT), 4);
    int known = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            EQ(ntohl(info.ipi_addr.s_addr), 0x7f010203);
            EQ(info.ipi_ifindex, 1);
            known |= 1;
        } else if (c->cmsg_type == IP_TTL) {
            EQ(*(int *)CMSG_DATA(c), 77);
            known |= 2;
        } else if (c->cmsg_type == IP_TOS) {
            EQ(*CMSG_DATA(c), 0x10);
            known |= 4;
        }
    }
    EQ(known, 7);
    expect_text(device, "by lo", from), expect_text(filtered, "passed", from);
    send_text(sender, name_of(filtered), "does not pass");
    expect_nothing(filtered);
    EQ(recv(large, got, sizeof got, MSG_DONTWAIT), LARGE);
    CHECK(memcmp(got, bytes, LARGE) == 0);
    for (int i = 0; i < MANY; i++) {
        EQ(recv(many, got, sizeof got, MSG_DONTWAIT), i * 3);
        CHECK(memcmp(got, bytes, (size_t)i * 3) == 0);
    }
    expect_nothing(many), expect_nothing(a), expect_nothing(b), expect_nothing(dual), expect_nothing(device);
    expect_text(shut, "before the end", from);
    // The end, instead of EAGAIN.
    struct place nobody = {.len = sizeof nobody.v6};
    CHECK(recvfrom(shut, text, 9, 0, &nobody.any, &nobody.len) <= 0);
    CHECK(send(mute, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    send_text(sender, name_of(mute), "still heard");
    expect_text(mute, "still heard", from);
    to = name_of(sender);
    CHECK(sendto(corked, "in two ", 7, 0, &to.any, to.len) == 7 && sendto(corked, "parts", 5, 0, &to.any, to.len) == 5);
    expect_nothing(sender);
    int zero = 0;
    CHECK(setsockopt(corked, SOL_UDP, UDP_CORK, &zero, sizeof zero) == 0);
    EQ(recv(sender, text, sizeof text, MSG_DONTWAIT), 12);
    return ok();
}
