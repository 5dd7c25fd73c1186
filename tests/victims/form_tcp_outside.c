// A connection to a process outside, in all forms: what waits is there, and it echoes.
#include "forms.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

static struct sockaddr_in at = {.sin_family = AF_INET};

// Nobody's child: it greets, echoes one byte after the other, and ends when the connection does.
static void other_end(void) {
    int l = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t len = sizeof at;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(l, (void *)&at, len) == 0 && listen(l, 1) == 0 && getsockname(l, (void *)&at, &len) == 0);
    pid_t between = fork();
    if (between == 0) {
        if (fork() == 0) {
            char c;
            int fd = accept(l, NULL, NULL);
            send(fd, "hi", 2, 0);
            while (recv(fd, &c, 1, 0) == 1) send(fd, &c, 1, MSG_NOSIGNAL);
        }
        _exit(0);
    }
    CHECK(waitpid(between, NULL, 0) == between);
    close(l);
}

static int make(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char c;
    CHECK(connect(fd, (void *)&at, sizeof at) == 0);
    EQ(recv(fd, &c, 1, MSG_PEEK), 1);
    return fd;
}

static void check(int fd) {
    char got[4] = "";
    EQ(recv(fd, got, 2, MSG_WAITALL), 2);
    CHECK(!strcmp(got, "hi"));
    CHECK(send(fd, "x", 1, 0) == 1 && recv(fd, got, 1, MSG_WAITALL) == 1);
    EQ(got[0], 'x');
}

int main(int argc, char **argv) {
    other_end();
    return forms(argc, argv, &(struct kind){make, check, EPOLLIN | EPOLLOUT, false});
}
