// Everything that getsockopt(2) says of a socket, as text: to compare before and after.
#ifndef SOCKOPT_H
#define SOCKOPT_H
#include "victim.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

// SOL_SOCKET, SOL_IP, SOL_IPV6, SOL_TCP, SOL_UDP, SOL_UDPLITE, SOL_RAW, SOL_ICMPV6, SOL_PACKET, SOL_NETLINK, SOL_MPTCP.
static const int sockopt_levels[] = {1, 0, 41, 6, 17, 136, 255, 58, 263, 270, 284};
#define SOCKOPT_NAMES 130

// What is the kernel's own, or changes by being asked.
static bool sockopt_of_the_moment(int level, int name) {
    switch (level) {
    // SO_ERROR SO_MEMINFO SO_INCOMING_NAPI_ID SO_COOKIE SO_NETNS_COOKIE SO_PEERPIDFD
    case 1: return name == 4 || name == 55 || name == 56 || name == 57 || name == 71 || name == 77;
    // IP_MTU, and netfilter's.
    case 0: return name == 14 || (name >= 64 && name < 100);
    // IPV6_MTU, IPV6_PATHMTU, netfilter's.
    case 41: return name == 24 || name == 61 || name == 64 || name == 65 || name == 68 || name == 69;
    // TCP_INFO TCP_QUICKACK TCP_TIMESTAMP TCP_CC_INFO
    case 6: return name == 11 || name == 12 || name == 24 || name == 26;
    // PACKET_STATISTICS
    case 263: return name == 6;
    // MPTCP_INFO
    case 284: return name == 1;
    }
    return false;
}

// "level:name = hex" for each option, in lines.
static char *sockopts(int fd) {
    size_t room = 1 << 16, used = 0;
    char *text = malloc(room);
    text[0] = 0;
    for (size_t l = 0; l < sizeof sockopt_levels / sizeof *sockopt_levels; l++)
        for (int name = 0; name < SOCKOPT_NAMES; name++) {
            unsigned char value[256] = {0};
            socklen_t len = sizeof value;
            int level = sockopt_levels[l];
            if (sockopt_of_the_moment(level, name)) continue;
            if (level == 1 && name == 26) len = sizeof value / 8;
            if (getsockopt(fd, level, name, value, &len)) continue;
            if (level == 1 && name == 26) len *= 8;
            CHECK(used + len * 2 + 100 < room);
            used += (size_t)sprintf(text + used, "%d:%d =", level, name);
            for (socklen_t i = 0; i < len; i++) used += (size_t)sprintf(text + used, " %02x", value[i]);
            used += (size_t)sprintf(text + used, "\n");
        }
    return text;
}

// Fails with the first line that differs.
__attribute__((unused)) static void same_sockopts(const char *what, int fd, const char *before) {
    const char *now = sockopts(fd);
    while (*before || *now) {
        size_t b = strcspn(before, "\n"), n = strcspn(now, "\n");
        if (b != n || memcmp(before, now, b))
            fail("%s: option \"%.*s\" was \"%.*s\"", what, (int)n, now, (int)b, before);
        before += b + 1, now += n + 1;
    }
}

// Changes every option of a socket that is an int and takes another value; how many.
__attribute__((unused)) static int change_sockopts(int fd) {
    int changed = 0;
    for (size_t l = 0; l < sizeof sockopt_levels / sizeof *sockopt_levels; l++)
        for (int name = 0; name < SOCKOPT_NAMES; name++) {
            int value = 0, level = sockopt_levels[l], now = 0;
            socklen_t len = sizeof value;
            if (sockopt_of_the_moment(level, name)) continue;
            // TCP_REPAIR; SO_LOCK_FILTER and the like, which forbid others, are set by their own tests.
            if ((level == 6 && name == 19) || (level == 1 && name == 44)) continue;
            if (getsockopt(fd, level, name, &value, &len) || len != sizeof value) continue;
            int other = value ^ 1;
            if (setsockopt(fd, level, name, &other, sizeof other)) continue;
            CHECK(getsockopt(fd, level, name, &now, &len) == 0);
            changed += now != value;
        }
    return changed;
}

// A classic BPF program that lets all pass; newer kernels want privileges for that on TCP.
__attribute__((unused)) static bool attach_filter(int fd) {
    struct sock_filter code[] = {{BPF_LD | BPF_W | BPF_LEN, 0, 0, 0}, {BPF_RET | BPF_K, 0, 0, 0x40000}};
    struct sock_fprog program = {2, code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

#endif
