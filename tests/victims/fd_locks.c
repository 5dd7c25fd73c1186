// flock, POSIX and OFD locks: another process still meets them.
#include "victim.h"
#include <sys/file.h>

static int lock(int fd, int how, short type, long start, long len) {
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    return fcntl(fd, how, &l);
}

// What a stranger sees. Locks of the process itself do not stand in its own way, so: a child.
static void check_from_child(void) {
    pid_t child = fork();
    if (child == 0) {
        int a = open(in_dir("flock-ex"), O_RDWR), b = open(in_dir("flock-sh"), O_RDWR);
        int c = open(in_dir("posix"), O_RDWR), d = open(in_dir("ofd"), O_RDWR);
        CHECK(flock(a, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK);
        CHECK(flock(b, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK);
        CHECK(flock(b, LOCK_SH | LOCK_NB) == 0);
        CHECK(lock(c, F_SETLK, F_RDLCK, 10, 5) == -1);
        CHECK(lock(c, F_SETLK, F_WRLCK, 100, 1) == -1);
        CHECK(lock(c, F_SETLK, F_RDLCK, 100, 1) == 0);
        CHECK(lock(c, F_SETLK, F_WRLCK, 20, 80) == 0);
        CHECK(lock(d, F_OFD_SETLK, F_RDLCK, 0, 1) == -1);
        CHECK(lock(d, F_OFD_SETLK, F_WRLCK, 50, 0) == 0);
        struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 20};
        CHECK(fcntl(c, F_GETLK, &l) == 0);
        EQ(l.l_start, 10);
        EQ(l.l_len, 10);
        EQ(l.l_pid, getppid());
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (status) fail("the locks are not there any more");
}

static int make(const char *name) {
    int fd = open(in_dir(name), O_RDWR | O_CREAT, 0644);
    CHECK(fd >= 0);
    return fd;
}

int main(void) {
    int a = make("flock-ex"), b = make("flock-sh"), c = make("posix"), d = make("ofd");
    int a2 = dup(a);
    CHECK(flock(a, LOCK_EX) == 0 && flock(b, LOCK_SH) == 0);
    CHECK(lock(c, F_SETLK, F_WRLCK, 10, 10) == 0 && lock(c, F_SETLK, F_RDLCK, 100, 0) == 0);
    CHECK(lock(d, F_OFD_SETLK, F_WRLCK, 0, 50) == 0);
    check_from_child();
    ready();
    wait_go();
    check_from_child();
    // A lock of the description, not of the number: unlocking through the twin frees it.
    CHECK(flock(a2, LOCK_UN) == 0);
    int again = open(in_dir("flock-ex"), O_RDWR);
    CHECK(flock(again, LOCK_EX | LOCK_NB) == 0);
    return ok();
}
