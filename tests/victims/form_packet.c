// A packet socket: protocol, interface, filter, options, memberships; it sees what its filter lets pass.
#include "forms.h"
#include "sockets.h"
#include <linux/if_ether.h>
#include <linux/if_packet.h>

static struct sockaddr_ll own;
static int idle, receiver;
static struct packet_mreq group;
static char *options[2], before[300];

static struct sockaddr_ll packet_name(int fd) {
    struct sockaddr_ll n;
    socklen_t len = sizeof n;
    memset(&n, 0, sizeof n);
    CHECK(getsockname(fd, (void *)&n, &len) == 0);
    return n;
}

// Its line in /proc/net/packet, from the type to the interface.
static void line_of(int fd, char text[300]) {
    struct stat s;
    CHECK(fstat(fd, &s) == 0);
    FILE *f = fopen("/proc/net/packet", "r");
    char line[300], type[9], proto[9], interface[9], running[9];
    unsigned long inode;
    text[0] = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%*s %*s %8s %8s %8s %8s %*s %*s %lu", type, proto, interface, running, &inode) == 5 && inode == s.st_ino)
            snprintf(text, 300, "type %s protocol %s interface %s running %s", type, proto, interface, running);
    fclose(f);
}

// Whether the interface receives for the group.
static bool joined(void) {
    char line[200], address[20];
    FILE *f = fopen("/proc/net/dev_mcast", "r");
    bool found = false;
    snprintf(address, sizeof address, "01005e%02x%02x%02x", group.mr_address[3], group.mr_address[4], group.mr_address[5]);
    while (f && fgets(line, sizeof line, f)) found |= strstr(line, address) != NULL;
    fclose(f);
    return found;
}

static int make(void) {
    int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0) skip("no packet socket here: %s", strerror(errno));
    // UDP (byte 9) to the port of one socket (bytes 22, 23) only.
    receiver = bound_socket("127.0.0.1", SOCK_DGRAM, 0);
    struct sock_filter code[] = {
        {BPF_LD | BPF_B | BPF_ABS, 0, 0, 9},       {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, IPPROTO_UDP},
        {BPF_LD | BPF_H | BPF_ABS, 0, 0, 22},      {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, (uint32_t)port_of(receiver)},
        {BPF_RET | BPF_K, 0, 0, 0x40000},          {BPF_RET | BPF_K, 0, 0, 0},
    };
    struct sock_fprog program = {6, code};
    CHECK(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0);
    CHECK(setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &one, sizeof one) == 0);
    CHECK(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) == 0);
    // An address of this process alone.
    int id = getpid();
    group = (struct packet_mreq){1, PACKET_MR_MULTICAST, 6, {1, 0, 0x5e, (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id}};
    CHECK(!joined());
    CHECK(setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &group, sizeof group) == 0);
    CHECK(setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &group, sizeof group) == 0);
    struct sockaddr_ll name = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = 1};
    CHECK(bind(fd, (void *)&name, sizeof name) == 0);
    CHECK((idle = socket(AF_PACKET, SOCK_RAW, 0)) >= 0);
    own = packet_name(fd);
    options[0] = sockopts(fd), options[1] = sockopts(idle);
    line_of(fd, before);
    return fd;
}

static void check(int fd) {
    char now[300];
    same_sockopts("the socket", fd, options[0]);
    same_sockopts("the idle one", idle, options[1]);
    struct sockaddr_ll name = packet_name(fd);
    CHECK(memcmp(&name, &own, sizeof name) == 0);
    EQ(packet_name(idle).sll_protocol, 0);
    line_of(fd, now);
    if (strcmp(before, now)) fail("it was: %s, and is: %s", before, now);
    // Joined twice: left twice.
    for (int i = 0; i < 2; i++) {
        CHECK(joined());
        CHECK(setsockopt(fd, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &group, sizeof group) == 0);
    }
    CHECK(!joined());
    int sender = bound_socket("127.0.0.1", SOCK_DGRAM, 0);
    send_text(sender, name_of(sender), "other");
    send_text(sender, name_of(receiver), "this");
    char packet[100];
    EQ(recv(fd, packet, sizeof packet, 0), 32);
    CHECK(memcmp(packet + 28, "this", 4) == 0);
    expect_nothing(fd);
}

int main(int argc, char **argv) {
    return forms(argc, argv, &(struct kind){make, check, EPOLLOUT, false});
}
