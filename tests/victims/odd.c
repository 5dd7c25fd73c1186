// odd KIND...: has things that cannot be saved; none of them may be lost in silence.
#include "victim.h"
#include <linux/perf_event.h>
#include <netinet/in.h>
#include <sys/shm.h>
#include <sys/socket.h>
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static pid_t child = -1;
static int shm = -1;

static void stay_at(int fd, int number, const char *what) {
    if (fd < 0) skip("no %s here: %s", what, strerror(errno));
    CHECK(dup2(fd, number) == number);
    close(fd);
}

static void start_child(void) {
    int hold[2];
    CHECK(pipe(hold) == 0);
    child = fork();
    if (child == 0) {
        char c;
        close(hold[1]);
        _exit(read(hold[0], &c, 1) == 0 ? 0 : 1);
    }
    close(hold[0]);
    stay_at(hold[1], 50, "pipe");
}

static void connected(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(server, (void *)&a, len) == 0 && listen(server, 1) == 0 && getsockname(server, (void *)&a, &len) == 0);
    CHECK(connect(client, (void *)&a, len) == 0);
    stay_at(client, 45, "connection");
    stay_at(server, 46, "listening socket");
}

static void in_flight(void) {
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    char control[CMSG_SPACE(sizeof(int))] = {0}, c = 'c';
    struct iovec v = {&c, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_RIGHTS, h->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(h), &pair[0], sizeof(int));
    CHECK(sendmsg(pair[0], &m, 0) == 1);
    stay_at(pair[0], 47, "socket pair");
    stay_at(pair[1], 48, "socket pair");
}

static void add(const char *kind) {
    static char params[120];
    struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_TASK_CLOCK};
    if (!strcmp(kind, "userfaultfd")) stay_at((int)syscall(SYS_userfaultfd, 1), 41, "userfaultfd");
    else if (!strcmp(kind, "io_uring")) stay_at((int)syscall(SYS_io_uring_setup, 4, params), 42, "io_uring");
    else if (!strcmp(kind, "perf")) stay_at((int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0), 43, "perf event");
    else if (!strcmp(kind, "pidfd")) stay_at((int)syscall(SYS_pidfd_open, getppid(), 0), 44, "pidfd");
    else if (!strcmp(kind, "tcp")) connected();
    else if (!strcmp(kind, "scm_rights")) in_flight();
    else if (!strcmp(kind, "child")) start_child();
    else if (!strcmp(kind, "shm")) {
        if ((shm = shmget(IPC_PRIVATE, PAGE, 0600)) < 0) skip("no System V shared memory here");
        CHECK(shmat(shm, NULL, 0) != (void *)-1);
        shmctl(shm, IPC_RMID, NULL);
    } else fail("no such kind: %s", kind);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) add(argv[i]);
    ready();
    wait_go();
    if (child > 0) {
        close(50);
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    return ok();
}
