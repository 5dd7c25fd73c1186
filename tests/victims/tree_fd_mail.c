// Datagram sockets with names, in two processes: what waits names the socket that sent it.
#include "tree.h"
#include <sys/socket.h>
#include <sys/un.h>

static int bound(const char *name) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(a.sun_path, name);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK(fd >= 0 && bind(fd, (void *)&a, sizeof a) == 0);
    return fd;
}

static void mail(int fd, const char *to, const char *text) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(a.sun_path, to);
    EQ(sendto(fd, text, strlen(text), 0, (void *)&a, sizeof a), strlen(text));
}

static void expect(int fd, const char *from, const char *text) {
    struct sockaddr_un a = {0};
    socklen_t len = sizeof a;
    char got[100] = {0};
    EQ(recvfrom(fd, got, sizeof got, MSG_DONTWAIT, (void *)&a, &len), strlen(text));
    if (strcmp(got, text)) fail("received %s, not %s", got, text);
    if (len <= sizeof a.sun_family) a.sun_path[0] = 0;
    if (strcmp(a.sun_path, from)) fail("%s was sent by \"%s\", not \"%s\"", text, a.sun_path, from);
}

static void correspondent(void) {
    int own = bound("child"), nameless = socket(AF_UNIX, SOCK_DGRAM, 0);
    mail(own, "parent", "first");
    mail(nameless, "parent", "second");
    mail(own, "parent", "third");
    prepared();
    await_go();
    expect(own, "parent", "answer");
    mail(own, "parent", "after");
    _exit(0);
}

int main(void) {
    CHECK(chdir(in_dir(".")) == 0);
    tree_begin();
    int own = bound("parent");
    pid_t child = fork();
    if (child == 0) correspondent();
    wait_prepared(1);
    mail(own, "child", "answer");
    ready();
    wait_go();
    expect(own, "child", "first");
    expect(own, "", "second");
    expect(own, "child", "third");
    reap(child, 0);
    expect(own, "child", "after");
    return ok();
}
