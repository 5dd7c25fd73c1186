// Raw sockets: IPv4 and IPv6, ICMP, headers of one's own, bound, connected, with filters; a socket for pings.
#include "forms.h"
#include "sockets.h"
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>

// Addresses of this process alone: the loopback has millions.
static struct place home, far;
static int ping, ping6, own_header, icmp6, udp;
static struct place names[6];
static char *options[6];

static void all(int fd, int fds[6]) {
    memcpy(fds, (int[]){fd, ping, ping6, own_header, icmp6, udp}, 6 * sizeof(int));
}

static int make(void) {
    // Answers to pings only.
    int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP), filter = ~(1 << ICMP_ECHOREPLY), one = 1;
    if (fd < 0) skip("no raw socket here: %s", strerror(errno));
    CHECK(setsockopt(fd, SOL_RAW, 1 /* ICMP_FILTER */, &filter, sizeof filter) == 0);
    char ip[30];
    for (int i = 1; i <= 2; i++) {
        snprintf(ip, sizeof ip, "127.%d.%d.%d", 64 * i + (getpid() >> 16 & 63), getpid() >> 8 & 255, getpid() & 255);
        *(i == 1 ? &home : &far) = place(ip, 0);
    }
    CHECK(bind(fd, &home.any, home.len) == 0 && connect(fd, &far.any, far.len) == 0);
    CHECK((own_header = socket(AF_INET, SOCK_RAW, IPPROTO_RAW)) >= 0);
    CHECK((icmp6 = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6)) >= 0);
    struct icmp6_filter none;
    ICMP6_FILTER_SETBLOCKALL(&none);
    CHECK(setsockopt(icmp6, IPPROTO_ICMPV6, ICMP6_FILTER, &none, sizeof none) == 0);
    CHECK((udp = socket(AF_INET, SOCK_RAW, IPPROTO_UDP)) >= 0);
    struct sock_filter nothing = {BPF_RET | BPF_K, 0, 0, 0};
    struct sock_fprog program = {1, &nothing};
    CHECK(setsockopt(udp, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0);
    CHECK(setsockopt(udp, SOL_SOCKET, 44 /* SO_LOCK_FILTER */, &one, sizeof one) == 0);
    ping = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP), ping6 = socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6);
    if (ping < 0 || ping6 < 0) skip("no sockets for pings: %s", strerror(errno));
    struct place home6 = place("::1", 0);
    CHECK(bind(ping, &home.any, home.len) == 0 && bind(ping6, &home6.any, home6.len) == 0);
    int fds[6];
    all(fd, fds);
    for (int i = 0; i < 6; i++) names[i] = name_of(fds[i]), options[i] = sockopts(fds[i]);
    CHECK(port_of(ping6) != 0);
    return fd;
}

static void wait_readable(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    EQ(poll(&p, 1, 20000), 1);
}

static void check(int fd) {
    int fds[6];
    all(fd, fds);
    for (int i = 0; i < 6; i++) {
        char what[20];
        snprintf(what, sizeof what, "socket %d", i);
        same_sockopts(what, fds[i], options[i]);
        same_place(what, name_of(fds[i]), names[i]);
    }
    // Nothing came in while it was made again.
    for (int i = 0; i < 6; i++) {
        char packet[100];
        long n = recv(fds[i], packet, sizeof packet, MSG_DONTWAIT);
        if (n >= 0) fail("socket %d has received %ld bytes: %02x %02x %02x", i, n, packet[0], packet[9], packet[20]);
    }
    // The kernel answers to a ping from each; the one with the filter sees the answer but not the question.
    struct {
        struct icmphdr head;
        char text[4];
    } question = {{.type = ICMP_ECHO, .un.echo.sequence = htons(1)}, "hey"};
    CHECK(sendto(ping, &question, sizeof question, 0, &home.any, home.len) == sizeof question);
    char got[200];
    wait_readable(ping);
    EQ(recv(ping, got, sizeof got, MSG_DONTWAIT), sizeof question);
    EQ(got[0], ICMP_ECHOREPLY);
    EQ(ntohs(*(uint16_t *)(got + 4)), port_of(ping));
    expect_nothing(fd);
    // The same from the raw one, with the checksum that it must have itself.
    uint32_t sum = 0;
    for (size_t i = 0; i < sizeof question; i += 2) sum += *(uint16_t *)((char *)&question + i);
    question.head.checksum = (uint16_t)~((sum & 0xffff) + (sum >> 16));
    EQ(send(fd, &question, sizeof question, 0), sizeof question);
    wait_readable(fd);
    EQ(recv(fd, got, sizeof got, MSG_DONTWAIT), 20 + sizeof question);
    EQ(got[20], ICMP_ECHOREPLY);
    expect_nothing(fd);
}

int main(int argc, char **argv) {
    return forms(argc, argv, &(struct kind){make, check, EPOLLOUT, false});
}
