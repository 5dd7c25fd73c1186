// A child with ends of a pipe, of a FIFO and of a unix socket whose other ends a process outside has: one
// that is nobody's child. It says "more" through the pipe when asked, and ends when the last is closed.
#include "tree.h"
#include <sys/socket.h>

static int from_outside[2], fifo, sides[2];

static void outsider(void) {
    prctl(PR_SET_NAME, "outsider");
    close(from_outside[0]);
    close(sides[0]);
    char c;
    int opened = open(in_dir("fifo"), O_RDONLY | O_NONBLOCK);
    put("outside", opened >= 0 ? "there" : "failed");
    // Until the other end is closed.
    while (recv(sides[1], &c, 1, 0) > 0) {
    }
    _exit(0);
}

static void child_process(void) {
    char c;
    prepared();
    await_go();
    EQ(read(from_outside[0], &c, 1), 0);
    EQ(recv(sides[0], &c, 1, 0), 0);
    signal(SIGPIPE, SIG_IGN);
    CHECK(write(fifo, "x", 1) == -1 && errno == EPIPE);
    _exit(0);
}

int main(void) {
    tree_begin();
    CHECK(pipe(from_outside) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, sides) == 0);
    CHECK(mkfifo(in_dir("fifo"), 0600) == 0);
    pid_t between = fork();
    if (between == 0) {
        forget_prepared();
        if (fork() == 0) outsider();
        _exit(0);
    }
    CHECK(waitpid(between, NULL, 0) == between);
    close(from_outside[1]);
    close(sides[1]);
    while (access(in_dir("outside"), F_OK)) sleep_ms(1);
    CHECK((fifo = open(in_dir("fifo"), O_WRONLY | O_NONBLOCK)) >= 0);
    pid_t child = fork();
    if (child == 0) child_process();
    close(from_outside[0]);
    close(sides[0]);
    close(fifo);
    wait_prepared(1);
    ready();
    wait_go();
    reap(child, 0);
    return ok();
}
