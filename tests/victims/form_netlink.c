// Netlink: address, groups (also beyond 32), options; what the kernel tells a group arrives.
#include "forms.h"
#include "sockets.h"
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

static int uevent, diag;
static struct sockaddr_nl own, others[2];
static char *options[3];

static struct sockaddr_nl netlink_name(int fd) {
    struct sockaddr_nl n;
    socklen_t len = sizeof n;
    memset(&n, 0, sizeof n);
    CHECK(getsockname(fd, (void *)&n, &len) == 0);
    return n;
}

static int make(void) {
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), one = 1, group = RTNLGRP_NSID;
    struct sockaddr_nl any = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR};
    CHECK(fd >= 0 && bind(fd, (void *)&any, sizeof any) == 0);
    CHECK(setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) == 0);
    group = RTNLGRP_NEXTHOP;
    CHECK(group >= 32);
    CHECK(setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) == 0);
    group = RTNLGRP_IPV4_IFADDR;
    CHECK(setsockopt(fd, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, &group, sizeof group) == 0);
    CHECK(setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof one) == 0);
    CHECK((uevent = socket(AF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT)) >= 0);
    any.nl_groups = 1;
    CHECK(bind(uevent, (void *)&any, sizeof any) == 0);
    attach_filter(uevent);
    CHECK((diag = socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG)) >= 0);
    own = netlink_name(fd), others[0] = netlink_name(uevent), others[1] = netlink_name(diag);
    CHECK(own.nl_pid != 0 && others[0].nl_groups == 1 && others[1].nl_pid == 0);
    options[0] = sockopts(fd), options[1] = sockopts(uevent), options[2] = sockopts(diag);
    return fd;
}

// Asks for all interfaces; how many messages there are until the end.
static int interfaces(int fd) {
    struct {
        struct nlmsghdr head;
        struct ifinfomsg info;
    } request = {{sizeof request, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 7, 0}, {.ifi_family = AF_UNSPEC}};
    CHECK(send(fd, &request, sizeof request, 0) == sizeof request);
    static char room[1 << 16];
    int found = 0;
    for (;;) {
        long n = recv(fd, room, sizeof room, 0);
        CHECK(n > 0);
        for (struct nlmsghdr *m = (void *)room; NLMSG_OK(m, n); m = NLMSG_NEXT(m, n)) {
            if (m->nlmsg_type == NLMSG_DONE) return found;
            EQ(m->nlmsg_type, RTM_NEWLINK);
            EQ(m->nlmsg_pid, own.nl_pid);
            EQ(m->nlmsg_seq, 7);
            found++;
        }
    }
}

static void check(int fd) {
    struct sockaddr_nl names[] = {own, others[0], others[1]};
    int fds[] = {fd, uevent, diag};
    for (int i = 0; i < 3; i++) {
        char what[20];
        snprintf(what, sizeof what, "socket %d", i);
        same_sockopts(what, fds[i], options[i]);
        struct sockaddr_nl now = netlink_name(fds[i]);
        CHECK(memcmp(&now, &names[i], sizeof now) == 0);
    }
    CHECK(interfaces(fd) >= 1);
}

int main(int argc, char **argv) {
    return forms(argc, argv, &(struct kind){make, check, EPOLLOUT, false});
}
