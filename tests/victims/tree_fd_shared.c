// What processes share: a file with one offset, one that each opened for itself, pipes with both ends in
// different processes and bytes in them, a FIFO, a socket pair, an eventfd, an epoll instance, locks of a
// process and of an open file, who gets the signals of a descriptor, a table with CLONE_FILES.
#include "tree.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>

static int shared_file, to_child[2], to_parent[2], sides[2], counter, watch, locked, fifo_read;

static void lock(int fd, int cmd, int type, off_t start) {
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 10};
    if (fcntl(fd, cmd, &l)) fail("lock at %ld: %s", (long)start, strerror(errno));
}

// Who holds the byte at `start`, as this process sees it; 0 for nobody.
static pid_t holder(int fd, off_t start) {
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 1};
    CHECK(fcntl(fd, F_GETLK, &l) == 0);
    return l.l_type == F_UNLCK ? 0 : l.l_pid;
}

static void expect(int fd, const char *text) {
    char got[100] = {0};
    size_t len = strlen(text), n = 0;
    while (n < len) {
        ssize_t r = read(fd, got + n, len - n);
        CHECK(r > 0);
        n += r;
    }
    if (strcmp(got, text)) fail("read %s, not %s", got, text);
}

static void child_process(pid_t parent) {
    close(to_child[1]);
    close(to_parent[0]);
    close(sides[0]);
    close(fifo_read);
    int own = open(in_dir("shared"), O_RDONLY), fifo_write = open(in_dir("fifo"), O_WRONLY);
    CHECK(own >= 0 && fifo_write >= 0 && lseek(own, 2, SEEK_SET) == 2);
    CHECK(write(to_parent[1], "from child", 10) == 10 && write(fifo_write, "by fifo", 7) == 7);
    CHECK(write(sides[1], "by socket", 9) == 9);
    lock(locked, F_SETLK, F_WRLCK, 100);
    int watched = eventfd(0, 0);
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = 77};
    CHECK(watched >= 0 && epoll_ctl(watch, EPOLL_CTL_ADD, watched, &e) == 0);
    prepared();
    await_go();
    EQ(lseek(own, 0, SEEK_CUR), 2);
    expect(to_child[0], "from parent");
    EQ(holder(locked, 0), parent);
    // Now the parent looks.
    CHECK(write(shared_file, "CHILD", 5) == 5);
    uint64_t one = 1;
    CHECK(write(watched, &one, 8) == 8 && write(counter, &one, 8) == 8 && write(to_parent[1], "done", 4) == 4);
    // Until the parent has seen the locks.
    expect(to_child[0], "end");
    _exit(0);
}

static int same_table(void *fds) {
    close(((int *)fds)[0]);
    await_go();
    int opened = open("/dev/null", O_RDONLY);
    ((int *)fds)[1] = opened;
    _exit(opened >= 0 ? 0 : 1);
}

int main(void) {
    tree_begin();
    CHECK((shared_file = open(in_dir("shared"), O_RDWR | O_CREAT | O_TRUNC, 0600)) >= 0);
    CHECK((locked = open(in_dir("locked"), O_RDWR | O_CREAT, 0600)) >= 0);
    CHECK(write(shared_file, "12345", 5) == 5 && pipe(to_child) == 0 && pipe(to_parent) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sides) == 0 && (counter = eventfd(5, 0)) >= 0);
    CHECK((watch = epoll_create1(0)) >= 0 && mkfifo(in_dir("fifo"), 0600) == 0);
    CHECK((fifo_read = open(in_dir("fifo"), O_RDONLY | O_NONBLOCK)) >= 0);
    lock(locked, F_SETLK, F_WRLCK, 0);
    lock(locked, F_OFD_SETLK, F_WRLCK, 200);
    CHECK(flock(shared_file, LOCK_EX) == 0);
    pid_t self = getpid(), child = fork();
    if (child == 0) child_process(self);
    close(to_child[0]);
    close(to_parent[1]);
    close(sides[1]);
    int *fds = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *stack = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK((fds[0] = dup(0)) >= 0);
    pid_t partner = clone(same_table, stack + 16 * PAGE, CLONE_FILES | SIGCHLD, fds);
    CHECK(partner > 0);
    while (fcntl(fds[0], F_GETFD) >= 0) sleep_ms(1);
    wait_prepared(1);
    struct f_owner_ex owner = {F_OWNER_PID, child}, got = {0};
    CHECK(fcntl(to_parent[0], F_SETOWN_EX, &owner) == 0);
    CHECK(write(to_child[1], "from parent", 11) == 11);
    ready();
    wait_go();
    CHECK(fcntl(to_parent[0], F_GETOWN_EX, &got) == 0);
    EQ(got.pid, child);
    EQ(got.type, F_OWNER_PID);
    expect(to_parent[0], "from child");
    expect(to_parent[0], "done");
    EQ(lseek(shared_file, 0, SEEK_CUR), 10);
    char text[11] = {0};
    CHECK(pread(shared_file, text, 10, 0) == 10 && strcmp(text, "12345CHILD") == 0);
    expect(fifo_read, "by fifo");
    expect(sides[0], "by socket");
    uint64_t count;
    CHECK(read(counter, &count, 8) == 8);
    EQ(count, 6);
    struct epoll_event e;
    EQ(epoll_wait(watch, &e, 1, 0), 1);
    EQ(e.data.u64, 77);
    EQ(holder(locked, 100), child);
    // The lock of the open file is nobody's own: another open of the file meets it.
    int other = open(in_dir("locked"), O_RDWR);
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 200, .l_len = 1};
    CHECK(other >= 0 && fcntl(other, F_OFD_GETLK, &l) == 0);
    EQ(l.l_type, F_WRLCK);
    int second = open(in_dir("shared"), O_RDWR);
    CHECK(second >= 0 && flock(second, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK);
    CHECK(write(to_child[1], "end", 3) == 3);
    reap(child, 0);
    CHECK(read(fifo_read, text, 1) == 0 && read(to_parent[0], text, 1) == 0 && read(sides[0], text, 1) == 0);
    reap(partner, 0);
    CHECK(fcntl(fds[1], F_GETFD) >= 0);
    return ok();
}
