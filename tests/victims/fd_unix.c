// Unix sockets with names: accepted connections, relative and deleted names, datagrams under way.
#include "victim.h"
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un name_of(const char *name) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    CHECK(strlen(name) < sizeof a.sun_path);
    strcpy(a.sun_path, name);
    return a;
}

static int bound(int type, const char *name) {
    int fd = socket(AF_UNIX, type, 0);
    struct sockaddr_un a = name_of(name);
    CHECK(fd >= 0 && bind(fd, (void *)&a, sizeof a) == 0);
    return fd;
}

static int connected(int type, const char *name) {
    int fd = socket(AF_UNIX, type, 0);
    struct sockaddr_un a = name_of(name);
    CHECK(fd >= 0 && connect(fd, (void *)&a, sizeof a) == 0);
    return fd;
}

static void named(int fd, int (*of)(int, struct sockaddr *, socklen_t *), const char *name) {
    struct sockaddr_un a = {0};
    socklen_t len = sizeof a;
    CHECK(of(fd, (void *)&a, &len) == 0);
    CHECK(strcmp(a.sun_path, name) == 0);
}

int main(void) {
    CHECK(chdir(in_dir(".")) == 0);
    int listener = bound(SOCK_STREAM, "listener"), gone = bound(SOCK_STREAM, "gone");
    CHECK(listen(listener, 4) == 0 && listen(gone, 4) == 0 && unlink("gone") == 0);
    CHECK(chmod("listener", 0640) == 0);
    int client = connected(SOCK_STREAM, "listener"), server = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    CHECK(send(client, "request", 7, 0) == 7 && send(server, "reply", 5, 0) == 5);
    int mailbox = bound(SOCK_DGRAM, "mailbox"), sender = connected(SOCK_DGRAM, "mailbox");
    CHECK(send(sender, "one", 3, 0) == 3 && send(sender, "three", 5, 0) == 5);
    ready();
    wait_go();
    char text[100];
    named(server, getsockname, "listener");
    named(client, getpeername, "listener");
    named(listener, getsockname, "listener");
    named(gone, getsockname, "gone");
    CHECK(access("gone", F_OK) == -1 && errno == ENOENT);
    struct stat st;
    CHECK(stat("listener", &st) == 0);
    EQ(st.st_mode & 07777, 0640);
    EQ(fcntl(server, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    EQ(fcntl(client, F_GETFL) & O_NONBLOCK, 0);
    EQ(recv(server, text, sizeof text, 0), 7);
    EQ(recv(client, text, sizeof text, 0), 5);
    EQ(recv(mailbox, text, sizeof text, 0), 3);
    EQ(recv(mailbox, text, sizeof text, 0), 5);
    CHECK(send(sender, "more", 4, 0) == 4);
    EQ(recv(mailbox, text, sizeof text, MSG_DONTWAIT), 4);
    int next = connected(SOCK_STREAM, "listener");
    CHECK(accept(listener, NULL, NULL) >= 0 && send(next, "x", 1, 0) == 1);
    CHECK(close(client) == 0);
    EQ(recv(server, text, sizeof text, 0), 0);
    return ok();
}
