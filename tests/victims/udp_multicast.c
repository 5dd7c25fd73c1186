// Multicast groups: from all and from chosen sources, IPv4 and IPv6, on the loopback.
#include "sockets.h"
#include <stddef.h>

struct request {
    uint32_t interface;
    struct sockaddr_storage group, source;
};

static void join(int fd, int level, int name, const char *group, const char *source) {
    struct request r = {.interface = 1};
    struct place g = place(group, 0);
    memcpy(&r.group, &g.any, g.len);
    if (source) {
        struct place s = place(source, 0);
        memcpy(&r.source, &s.any, s.len);
    }
    size_t len = source ? sizeof r : offsetof(struct request, source);
    CHECK(setsockopt(fd, level, name, &r, (socklen_t)len) == 0);
}

// What a socket is told about a group: mode and sources.
static char *filter(int fd, int level, const char *group) {
    static char texts[20][2000];
    static int used;
    char *text = texts[used++ % 20];
    struct {
        struct request r;
        struct sockaddr_storage list[9];
    } f = {.r.interface = 1};
    struct place g = place(group, 0);
    memcpy(&f.r.group, &g.any, g.len);
    // gf_fmode, gf_numsrc, gf_slist are where the source is in the request.
    uint32_t *mode = (uint32_t *)&f.r.source;
    mode[1] = 9;
    socklen_t len = sizeof f;
    if (getsockopt(fd, level, 48 /* MCAST_MSFILTER */, &f, &len)) return strcpy(text, strerror(errno));
    int n = sprintf(text, "mode %u of %u:", mode[0], mode[1]);
    for (uint32_t i = 0; i < mode[1]; i++) {
        char ip[50];
        struct sockaddr_storage *s = (struct sockaddr_storage *)(mode + 2) + i;
        void *at = s->ss_family == AF_INET ? (void *)&((struct sockaddr_in *)s)->sin_addr : (void *)&((struct sockaddr_in6 *)s)->sin6_addr;
        n += sprintf(text + n, " %s", inet_ntop(s->ss_family, at, ip, sizeof ip));
    }
    return text;
}

static const char *groups[] = {"239.255.7.1", "239.255.7.2", "239.255.7.3", "239.255.7.4"};
static const char *groups6[] = {"ff01::7:1", "ff01::7:2", "ff01::7:3", "ff01::7:4"};

static void all_filters(int v4, int v6, char text[4000]) {
    int n = 0;
    for (int i = 0; i < 4; i++)
        n += sprintf(text + n, "%s; %s\n", filter(v4, SOL_IP, groups[i]), filter(v6, SOL_IPV6, groups6[i]));
}

int main(void) {
    enum { JOIN = 42, BLOCK = 43, JOIN_SOURCE = 46 };
    struct place any = place("0.0.0.0", 0), any6 = place("::", 0);
    int v4 = socket(AF_INET, SOCK_DGRAM, 0), v6 = socket(AF_INET6, SOCK_DGRAM, 0);
    CHECK(bind(v4, &any.any, any.len) == 0 && bind(v6, &any6.any, any6.len) == 0);
    join(v4, SOL_IP, JOIN, groups[0], NULL);
    join(v4, SOL_IP, JOIN, groups[1], NULL);
    join(v4, SOL_IP, BLOCK, groups[1], "127.0.0.9");
    join(v4, SOL_IP, JOIN_SOURCE, groups[2], "127.0.0.1");
    join(v4, SOL_IP, JOIN_SOURCE, groups[2], "127.0.0.2");
    join(v6, SOL_IPV6, JOIN, groups6[0], NULL);
    join(v6, SOL_IPV6, JOIN, groups6[1], NULL);
    join(v6, SOL_IPV6, BLOCK, groups6[1], "fd00::9");
    join(v6, SOL_IPV6, JOIN_SOURCE, groups6[2], "::1");
    int off = 0;
    CHECK(setsockopt(v4, SOL_IP, IP_MULTICAST_ALL, &off, sizeof off) == 0);
    static char before[4000], now[4000];
    all_filters(v4, v6, before);
    ready();
    wait_go();
    all_filters(v4, v6, now);
    if (strcmp(before, now)) fail("groups were:\n%sand are:\n%s", before, now);
    // Behaviour: from the chosen source only.
    int good = bound_socket("127.0.0.1", SOCK_DGRAM, 0), bad = bound_socket("127.0.0.3", SOCK_DGRAM, 0);
    struct ip_mreqn by_lo = {.imr_ifindex = 1};
    int port = port_of(v4);
    CHECK(setsockopt(good, SOL_IP, IP_MULTICAST_IF, &by_lo, sizeof by_lo) == 0);
    CHECK(setsockopt(bad, SOL_IP, IP_MULTICAST_IF, &by_lo, sizeof by_lo) == 0);
    send_text(bad, place(groups[2], port), "from the wrong one");
    send_text(good, place(groups[3], port), "to a group that it has not joined");
    send_text(good, place(groups[2], port), "from the right one");
    send_text(bad, place(groups[0], port), "from anybody");
    expect_text(v4, "from the right one", name_of(good));
    expect_text(v4, "from anybody", name_of(bad));
    expect_nothing(v4);
    return ok();
}
