// An established TCP connection to another process, given up at the dump: reset afterwards, its listener
// as before.
#include "victim.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

// Nobody's child: it ends when the connection does.
static void client_outside(struct sockaddr_in *to, socklen_t len, int listener) {
    pid_t between = fork();
    if (between == 0) {
        if (fork() == 0) {
            char c;
            close(listener);
            int client = socket(AF_INET, SOCK_STREAM, 0);
            if (connect(client, (void *)to, len) == 0) recv(client, &c, 1, 0);
        }
        _exit(0);
    }
    CHECK(waitpid(between, NULL, 0) == between);
}

int main(void) {
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    CHECK(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    CHECK(bind(listener, (void *)&a, len) == 0 && listen(listener, 5) == 0);
    CHECK(getsockname(listener, (void *)&a, &len) == 0);
    client_outside(&a, len, listener);
    int server = accept4(listener, NULL, NULL, SOCK_NONBLOCK), ep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = 9};
    CHECK(server >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, server, &e) == 0);
    signal(SIGPIPE, SIG_IGN);
    ready();
    wait_go();
    char c;
    EQ(epoll_wait(ep, &e, 1, 1000), 1);
    EQ(e.data.u64, 9);
    CHECK(recv(server, &c, 1, 0) == -1 && errno == ECONNRESET);
    EQ(recv(server, &c, 1, 0), 0);
    CHECK(send(server, "x", 1, 0) == -1 && errno == EPIPE);
    int again = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(again, (void *)&a, len) == 0 && accept(listener, NULL, NULL) >= 0);
    return ok();
}
