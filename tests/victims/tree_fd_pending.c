// Listening unix sockets with connections that nobody has accepted, in their order, besides some that
// were accepted; a client that has stopped sending. The clients are in a child.
#include "tree.h"
#include <sys/socket.h>
#include <sys/un.h>

enum { CLIENTS = 5 };

static struct sockaddr_un name_of(const char *name) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(a.sun_path, name);
    return a;
}

static int listening(int type, const char *name) {
    struct sockaddr_un a = name_of(name);
    int fd = socket(AF_UNIX, type, 0);
    CHECK(fd >= 0 && bind(fd, (void *)&a, sizeof a) == 0 && listen(fd, 8) == 0);
    return fd;
}

static int connected(int type, const char *name) {
    struct sockaddr_un a = name_of(name);
    int fd = socket(AF_UNIX, type, 0);
    CHECK(fd >= 0 && connect(fd, (void *)&a, sizeof a) == 0);
    return fd;
}

// Each client says who it is, and hears it back.
static void talk(int client, char who) {
    char answer;
    EQ(send(client, &who, 1, 0), 1);
    EQ(recv(client, &answer, 1, 0), 1);
    EQ(answer, who);
}

static void answer(int server, char who) {
    char got;
    EQ(recv(server, &got, 1, 0), 1);
    EQ(got, who);
    EQ(send(server, &got, 1, 0), 1);
}

static void client_process(void) {
    int fds[CLIENTS], packet = connected(SOCK_SEQPACKET, "packets");
    for (int i = 0; i < CLIENTS; i++) fds[i] = connected(SOCK_STREAM, "door");
    prepared();
    await_go();
    for (int i = 0; i < CLIENTS; i++) talk(fds[i], 'a' + i);
    talk(packet, 'p');
    _exit(0);
}

int main(void) {
    CHECK(chdir(in_dir(".")) == 0);
    tree_begin();
    int door = listening(SOCK_STREAM, "door"), packets = listening(SOCK_SEQPACKET, "packets");
    int early = connected(SOCK_STREAM, "door"), served = accept(door, NULL, NULL);
    CHECK(served >= 0);
    pid_t child = fork();
    if (child == 0) client_process();
    wait_prepared(1);
    // An accepted one comes after those in the kernel's list of sockets, too.
    int late = connected(SOCK_STREAM, "door");
    ready();
    wait_go();
    CHECK(send(early, "e", 1, 0) == 1);
    answer(served, 'e');
    for (int i = 0; i < CLIENTS; i++) {
        int fd = accept(door, NULL, NULL);
        CHECK(fd >= 0);
        answer(fd, 'a' + i);
    }
    int fd = accept(packets, NULL, NULL);
    CHECK(fd >= 0);
    answer(fd, 'p');
    CHECK((fd = accept(door, NULL, NULL)) >= 0);
    CHECK(send(late, "l", 1, 0) == 1);
    answer(fd, 'l');
    reap(child, 0);
    return ok();
}
