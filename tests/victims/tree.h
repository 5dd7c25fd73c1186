// For victims that are trees: a descendant says that it is prepared, waits for the go, and ends with a
// status that its parent checks.
#ifndef TREE_H
#define TREE_H
#include "victim.h"

static int prepared_pipe[2] = {-1, -1};
static pid_t root_pid, outer_pgid, outer_sid;

// Before the first fork, in the root.
__attribute__((unused)) static void tree_begin(void) {
    CHECK(pipe2(prepared_pipe, O_CLOEXEC) == 0);
    root_pid = getpid();
    outer_pgid = getpgid(0);
    outer_sid = getsid(0);
}

// In a descendant, once.
__attribute__((unused)) static void prepared(void) {
    CHECK(write(prepared_pipe[1], "p", 1) == 1);
    close(prepared_pipe[0]);
    close(prepared_pipe[1]);
}

// In a descendant that others must find without the pipe, but that does not say anything.
__attribute__((unused)) static void forget_prepared(void) {
    close(prepared_pipe[0]);
    close(prepared_pipe[1]);
}

// In the root: waits for so many descendants.
__attribute__((unused)) static void wait_prepared(int count) {
    char c;
    close(prepared_pipe[1]);
    for (int i = 0; i < count; i++)
        if (read(prepared_pipe[0], &c, 1) != 1) fail("only %d of %d descendants are prepared", i, count);
    close(prepared_pipe[0]);
}

// wait_go() of a descendant: the root alone answers pings.
__attribute__((unused)) static void await_go(void) {
    char go[PATH_MAX];
    snprintf(go, sizeof go, "%s", in_dir("go"));
    for (int i = 0; access(go, F_OK) != 0; i++) {
        if (i > 30000) fail("nobody said go to a descendant");
        struct timespec ms = {0, 4000000};
        nanosleep(&ms, NULL);
    }
}

// Fails, unless a descendant has already said what is wrong.
__attribute__((unused, noreturn)) static void wrong_status(pid_t pid, int status, int expected) {
    if (access(in_dir("result"), F_OK) == 0) _exit(1);
    fail("child %d has wait status %#x, expected %#x", pid, status, expected);
}

// Waits for a child, which must have this wait status (W_EXITCODE(code, signal)).
__attribute__((unused)) static void reap(pid_t pid, int expected) {
    int status = 0;
    pid_t got;
    while ((got = waitpid(pid, &status, __WALL)) < 0 && errno == EINTR) {
    }
    if (got != pid) fail("waitpid(%d) is %d: %s", pid, got, strerror(errno));
    if (status != expected) wrong_status(pid, status, expected);
}

#define EXITED(code) ((code) << 8)

__attribute__((unused)) static void no_children(void) {
    int status;
    pid_t got = waitpid(-1, &status, WNOHANG | __WALL);
    if (got != -1 || errno != ECHILD) fail("there is a child too many: waitpid is %d", got);
}

// fork(), or the end.
__attribute__((unused)) static pid_t forked(void) {
    pid_t pid = fork();
    if (pid < 0) fail("fork: %s", strerror(errno));
    return pid;
}

// All ids of a process, to be the same afterwards.
struct ids {
    pid_t pid, ppid, pgid, sid;
};

__attribute__((unused)) static struct ids ids(void) {
    return (struct ids){getpid(), getppid(), getpgid(0), getsid(0)};
}

// The root's group and session are those of whoever runs the image (0, seen from a namespace), and all its
// members have the same.
__attribute__((unused)) static void same_ids(struct ids before) {
    struct ids now = ids();
    EQ(now.pid, before.pid);
    EQ(now.ppid == before.ppid || now.pid == root_pid, true);
    EQ(now.pgid, before.pgid == outer_pgid ? getpgid(root_pid) : before.pgid);
    EQ(now.sid, before.sid == outer_sid ? getsid(root_pid) : before.sid);
}

// Waits until a condition holds that another process brings about.
#define UNTIL(condition) \
    do { \
        for (int i_ = 0; !(condition); i_++) { \
            if (i_ > 20000) fail("%s:%d: not in time: %s", __FILE__, __LINE__, #condition); \
            sleep_ms(1); \
        } \
    } while (0)

// State letter of a process in /proc; 0 when /proc is that of another namespace.
__attribute__((unused)) static char state_of(pid_t pid) {
    char path[64], text[400] = "", self[20] = "";
    if (readlink("/proc/self", self, sizeof self - 1) < 0 || atoi(self) != getpid()) return 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    const char *end = n > 0 ? strrchr(text, ')') : NULL;
    return end ? end[2] : 0;
}

#endif
