// Every option of every kind of socket: what getsockopt(2) says is the same afterwards.
#include "sockopt.h"
#include <linux/net_tstamp.h>
#include <netinet/tcp.h>

struct kind {
    const char *name;
    int family, type, protocol;
};

static const struct kind kinds[] = {
    {"TCP", AF_INET, SOCK_STREAM, 0},
    {"TCP, IPv6", AF_INET6, SOCK_STREAM, 0},
    {"UDP", AF_INET, SOCK_DGRAM, 0},
    {"UDP, IPv6", AF_INET6, SOCK_DGRAM, 0},
    {"UDP-Lite", AF_INET, SOCK_DGRAM, 136},
    {"UDP-Lite, IPv6", AF_INET6, SOCK_DGRAM, 136},
    {"ping", AF_INET, SOCK_DGRAM, IPPROTO_ICMP},
    {"ping, IPv6", AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6},
    {"raw ICMP", AF_INET, SOCK_RAW, IPPROTO_ICMP},
    {"raw, any", AF_INET, SOCK_RAW, IPPROTO_RAW},
    {"raw ICMPv6", AF_INET6, SOCK_RAW, IPPROTO_ICMPV6},
    {"raw UDP, IPv6", AF_INET6, SOCK_RAW, IPPROTO_UDP},
    {"packet", AF_PACKET, SOCK_RAW, 0},
    {"packet, cooked", AF_PACKET, SOCK_DGRAM, 0},
    {"netlink", AF_NETLINK, SOCK_RAW, 0},
    {"netlink uevent", AF_NETLINK, SOCK_DGRAM, 15},
    {"unix stream", AF_UNIX, SOCK_STREAM, 0},
    {"unix datagram", AF_UNIX, SOCK_DGRAM, 0},
    {"unix seqpacket", AF_UNIX, SOCK_SEQPACKET, 0},
};

#define KINDS (sizeof kinds / sizeof *kinds)
// As new; all ints changed; the others.
#define WAYS 3

static void set(int fd, int level, int name, const void *value, socklen_t len) {
    // Not every kind has it, and not everybody may.
    (void)setsockopt(fd, level, name, value, len);
}

#define SET(level, name, ...) \
    do { \
        __typeof__((__VA_ARGS__)) value_ = __VA_ARGS__; \
        set(fd, level, name, &value_, sizeof value_); \
    } while (0)

struct txtime {
    int clock;
    unsigned flags;
};
struct key {
    uint64_t a, b;
};
struct filter {
    uint32_t words[8];
};

static void set_others(int fd) {
    attach_filter(fd);
    SET(SOL_SOCKET, 44 /* SO_LOCK_FILTER */, 1);
    SET(SOL_SOCKET, SO_LINGER, (struct linger){1, 7});
    SET(SOL_SOCKET, SO_RCVTIMEO, (struct timeval){3, 500000});
    SET(SOL_SOCKET, SO_SNDTIMEO, (struct timeval){4, 250000});
    SET(SOL_SOCKET, SO_MAX_PACING_RATE, 123456789ul);
    SET(SOL_SOCKET, SO_RCVLOWAT, 77);
    // A multiple of the kernel's tick, and one size set but not kept.
    SET(SOL_SOCKET, SO_SNDBUF, 33333);
    SET(SOL_SOCKET, SO_RCVBUF, 44444);
    SET(SOL_SOCKET, 72 /* SO_BUF_LOCK */, 1);
    SET(SOL_SOCKET, SO_TIMESTAMPING, SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_RX_SOFTWARE);
    SET(SOL_SOCKET, 64 /* SO_TIMESTAMPNS_NEW */, 1);
    SET(SOL_SOCKET, 61 /* SO_TXTIME */, (struct txtime){CLOCK_MONOTONIC, 1});
    set(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3);
    SET(SOL_SOCKET, SO_MARK, 0x1234);
    SET(SOL_IP, IP_TOS, 0x10);
    SET(SOL_SOCKET, SO_PRIORITY, 3); // not what the TOS gives
    SET(SOL_IP, IP_TTL, 33);
    SET(SOL_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
    SET(SOL_IP, IP_OPTIONS, (uint32_t)0x00010101);
    SET(SOL_IP, IP_MULTICAST_IF, (struct in_addr){htonl(INADDR_LOOPBACK)});
    SET(SOL_IP, IP_MULTICAST_TTL, 9);
    SET(SOL_IP, 50 /* IP_UNICAST_IF */, htonl(if_nametoindex("lo")));
    SET(SOL_IP, 51 /* IP_LOCAL_PORT_RANGE */, 40000 | 40100 << 16);
    SET(SOL_IPV6, IPV6_UNICAST_HOPS, 44);
    SET(SOL_IPV6, IPV6_MULTICAST_HOPS, 5);
    SET(SOL_IPV6, IPV6_MULTICAST_IF, if_nametoindex("lo"));
    SET(SOL_IPV6, 76 /* IPV6_UNICAST_IF */, htonl(if_nametoindex("lo")));
    SET(SOL_IPV6, IPV6_TCLASS, 0x28);
    SET(SOL_IPV6, 72 /* IPV6_ADDR_PREFERENCES */, 1);
    SET(SOL_IPV6, IPV6_HOPOPTS, (uint64_t)0x0000000004010000); // PadN
    SET(SOL_IPV6, IPV6_DSTOPTS, (uint64_t)0x0000000004010000);
    set(fd, SOL_TCP, TCP_CONGESTION, "reno", 4);
    SET(SOL_TCP, TCP_MAXSEG, 1000);
    SET(SOL_TCP, TCP_WINDOW_CLAMP, 20000);
    SET(SOL_TCP, TCP_USER_TIMEOUT, 12345);
    SET(SOL_TCP, 33 /* TCP_FASTOPEN_KEY */, (struct key){0x1122334455667788, 0x99aabbccddeeff00});
    SET(136, 10 /* UDPLITE_SEND_CSCOV */, 20);
    SET(136, 11 /* UDPLITE_RECV_CSCOV */, 16);
    SET(255, 1 /* ICMP_FILTER */, 0xfffffffe);
    SET(58, 1 /* ICMPV6_FILTER */, (struct filter){{1, 2, 3, 4, 5, 6, 7, 8}});
    SET(263, 10 /* PACKET_VERSION */, 2);
}

int main(int argc, char **argv) {
    static int fds[KINDS][WAYS];
    static char *before[KINDS][WAYS];
    bool by_root = argc > 1 && !strcmp(argv[1], "root");
    for (size_t k = 0; k < KINDS; k++)
        for (int way = 0; way < WAYS; way++) {
            fds[k][way] = -1;
            int fd = fds[k][way] = socket(kinds[k].family, kinds[k].type, kinds[k].protocol);
            if (fd < 0) {
                // Not permitted, or not in this kernel.
                int why = errno;
                bool absent = why == EAFNOSUPPORT || why == EPROTONOSUPPORT;
                bool forbidden = why == EPERM || why == EACCES;
                if (!absent && !forbidden) fail("%s: %s", kinds[k].name, strerror(why));
                if (forbidden && by_root) skip("no %s socket here: %s", kinds[k].name, strerror(why));
                continue;
            }
            if (way == 1) CHECK(change_sockopts(fd) >= 15);
            if (way == 2) set_others(fd);
            before[k][way] = sockopts(fd);
        }
    ready();
    wait_go();
    for (size_t k = 0; k < KINDS; k++)
        for (int way = 0; way < WAYS; way++)
            if (fds[k][way] >= 0) {
                char what[100];
                snprintf(what, sizeof what, "%s (%d)", kinds[k].name, way);
                same_sockopts(what, fds[k][way], before[k][way]);
            }
    return ok();
}
