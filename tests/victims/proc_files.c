// Files below /proc of other processes of the tree, of threads, and of namespaces: those of the restored ones.
#include "tree.h"

static char buffer[4096];

static void expect_pid(int fd, int pid) {
    ssize_t n = pread(fd, buffer, sizeof buffer - 1, 0);
    CHECK(n > 0);
    buffer[n] = 0;
    const char *line = strstr(buffer, "\nPid:");
    CHECK(line);
    EQ(atoi(line + 5), pid);
}

static pthread_barrier_t barrier;
static _Atomic int tid;

static void *thread(void *arg) {
    tid = gettid();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    tid = gettid();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return arg;
}

static int open_of(int pid, const char *name) {
    char path[100];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

int main(void) {
    pthread_t other;
    tree_begin();
    pid_t child = forked();
    if (child == 0) {
        int own = open("/proc/self/status", O_RDONLY), parent = open_of(getppid(), "status");
        int descriptors = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
        CHECK(own >= 0 && descriptors >= 0);
        prepared();
        await_go();
        expect_pid(own, getpid());
        expect_pid(parent, getppid());
        CHECK(faccessat(descriptors, "2", F_OK, AT_SYMLINK_NOFOLLOW) == 0);
        _exit(0);
    }
    wait_prepared(1);
    int of_child = open_of(child, "status"), dir = open("/proc", O_PATH);
    CHECK(pthread_barrier_init(&barrier, NULL, 2) == 0 && pthread_create(&other, NULL, thread, NULL) == 0);
    pthread_barrier_wait(&barrier);
    char path[60];
    snprintf(path, sizeof path, "task/%d/status", tid);
    int of_thread = open_of(getpid(), path), own = open_of(getpid(), "maps");
    CHECK(read(own, buffer, 500) > 0);
    int namespace = open("/proc/self/ns/uts", O_RDONLY);
    CHECK(namespace >= 0);
    ready();
    wait_go();
    expect_pid(of_child, child);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    expect_pid(of_thread, tid);
    pthread_barrier_wait(&barrier);
    // In the middle of it: further mappings, and an end.
    ssize_t n, rest = 0;
    while ((n = read(own, buffer, sizeof buffer)) > 0) rest += n;
    CHECK(n == 0 && rest > 0);
    struct stat a, b;
    CHECK(fstat(namespace, &a) == 0 && stat("/proc/self/ns/uts", &b) == 0);
    EQ(a.st_ino, b.st_ino);
    snprintf(path, sizeof path, "%d/status", child);
    int again = openat(dir, path, O_RDONLY);
    CHECK(again >= 0);
    expect_pid(again, child);
    CHECK(pthread_join(other, NULL) == 0);
    reap(child, 0);
    return ok();
}
