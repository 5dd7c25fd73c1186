// form_pipes FORM KIND: pipes and FIFOs in unusual states, in all forms.
#include "forms.h"

static int other = -1;
static char buffer[1 << 20];

// --- packets, sizes ---

static int packets(void) {
    int p[2];
    CHECK(pipe2(p, O_DIRECT | O_CLOEXEC | O_NONBLOCK) == 0);
    CHECK(write(p[1], "one", 3) == 3 && write(p[1], "second", 6) == 6);
    memset(buffer, 'x', 4096);
    CHECK(write(p[1], buffer, 4096) == 4096 && write(p[1], "last", 4) == 4);
    other = p[1];
    return p[0];
}

static void check_packets(int fd) {
    EQ(read(fd, buffer, 2), 2); // the rest of a packet is lost
    EQ(read(fd, buffer, 100), 6);
    EQ(memcmp(buffer, "second", 6), 0);
    EQ(read(fd, buffer, sizeof buffer), 4096);
    EQ(read(fd, buffer, sizeof buffer), 4);
    CHECK(write(other, "a", 1) == 1 && write(other, "b", 1) == 1);
    EQ(read(fd, buffer, 100), 1);
    EQ(read(fd, buffer, 100), 1);
}

// The writer has switched to packets after more than a page of bytes, to which short packets would be added.
static int mixed(void) {
    int p[2];
    CHECK(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0 && write(p[1], buffer, 4096) == 4096);
    CHECK(fcntl(p[1], F_SETFL, O_DIRECT | O_NONBLOCK) == 0);
    CHECK(write(p[1], "packet", 6) == 6 && write(p[1], "end", 3) == 3);
    other = p[1];
    return p[0];
}

static void check_mixed(int fd) {
    EQ(fcntl(other, F_GETFL) & O_DIRECT, O_DIRECT);
    EQ(read(fd, buffer, 96), 96);
    // Bytes run on into the next packet, and end there.
    EQ(read(fd, buffer, sizeof buffer), 4006);
    EQ(memcmp(buffer + 4000, "packet", 6), 0);
    EQ(read(fd, buffer, 100), 3);
    EQ(memcmp(buffer, "end", 3), 0);
}

static int full(void) {
    int p[2];
    CHECK(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0);
    if (fcntl(p[1], F_SETPIPE_SZ, 512 << 10) != 512 << 10) skip("no large pipes here: %s", strerror(errno));
    fill(buffer, 512 << 10, 7);
    EQ(write(p[1], buffer, sizeof buffer), 512 << 10);
    other = p[0];
    return p[1];
}

static void check_full(int fd) {
    EQ(fcntl(fd, F_GETPIPE_SZ), 512 << 10);
    CHECK(write(fd, "x", 1) == -1 && errno == EAGAIN);
    EQ(read(other, buffer, sizeof buffer), 512 << 10);
    verify(buffer, 512 << 10, 7);
    CHECK(write(fd, "x", 1) == 1);
}

// --- the other end has gone ---

static int writer_gone(void) {
    int p[2];
    CHECK(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0 && write(p[1], "last", 4) == 4 && close(p[1]) == 0);
    return p[0];
}

static void check_writer_gone(int fd) {
    EQ(read(fd, buffer, 100), 4);
    EQ(read(fd, buffer, 100), 0);
}

static int reader_gone(void) {
    int p[2];
    CHECK(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0 && close(p[0]) == 0);
    return p[1];
}

static void check_reader_gone(int fd) {
    signal(SIGPIPE, SIG_IGN);
    CHECK(write(fd, "x", 1) == -1 && errno == EPIPE);
}

// --- FIFOs ---

static const char *fifo(void) {
    CHECK(mkfifo(in_dir("fifo"), 0600) == 0);
    return in_dir("fifo");
}

// One reader, and nobody has ever written.
static int fifo_reader(void) { return open(fifo(), O_RDONLY | O_NONBLOCK); }

static void check_fifo_reader(int fd) {
    struct pollfd p = {fd, POLLIN, 0};
    EQ(poll(&p, 1, 0), 0); // not even POLLHUP, before the first writer
    EQ(read(fd, buffer, 10), 0);
    int writer = open(in_dir("fifo"), O_WRONLY | O_NONBLOCK);
    CHECK(writer >= 0 && read(fd, buffer, 10) == -1 && errno == EAGAIN);
    CHECK(write(writer, "hello", 5) == 5 && read(fd, buffer, 10) == 5);
    close(writer);
    EQ(poll(&p, 1, 0), 1);
    EQ(p.revents, POLLHUP);
}

// The writer came and went.
static int fifo_hung_up(void) {
    int fd = open(fifo(), O_RDONLY | O_NONBLOCK);
    int writer = open(in_dir("fifo"), O_WRONLY);
    CHECK(fd >= 0 && write(writer, "bye", 3) == 3 && close(writer) == 0);
    return fd;
}

static void check_fifo_hung_up(int fd) {
    struct pollfd p = {fd, POLLIN, 0};
    EQ(poll(&p, 1, 0), 1);
    EQ(p.revents, POLLIN | POLLHUP);
    EQ(read(fd, buffer, 10), 3);
    EQ(read(fd, buffer, 10), 0);
    int writer = open(in_dir("fifo"), O_WRONLY | O_NONBLOCK);
    CHECK(writer >= 0 && write(writer, "new", 3) == 3 && read(fd, buffer, 10) == 3);
}

static int fifo_writer(void) {
    int reader = open(fifo(), O_RDONLY | O_NONBLOCK);
    int fd = open(in_dir("fifo"), O_WRONLY | O_NONBLOCK);
    CHECK(fd >= 0 && close(reader) == 0);
    return fd;
}

static void check_fifo_writer(int fd) {
    signal(SIGPIPE, SIG_IGN);
    CHECK(write(fd, "x", 1) == -1 && errno == EPIPE);
    int reader = open(in_dir("fifo"), O_RDONLY | O_NONBLOCK);
    CHECK(reader >= 0 && write(fd, "back", 4) == 4 && read(reader, buffer, 10) == 4);
}

static int fifo_both(void) {
    int fd = open(fifo(), O_RDWR | O_NONBLOCK);
    CHECK(fd >= 0 && write(fd, "to myself", 9) == 9);
    return fd;
}

static void check_fifo_both(int fd) {
    EQ(read(fd, buffer, 100), 9);
    CHECK(read(fd, buffer, 100) == -1 && errno == EAGAIN);
}

static int fifo_deleted(void) {
    int fd = open(fifo(), O_RDONLY | O_NONBLOCK);
    other = open(in_dir("fifo"), O_WRONLY | O_CLOEXEC);
    CHECK(other >= 0 && write(other, "gone", 4) == 4 && unlink(in_dir("fifo")) == 0);
    return fd;
}

static void check_fifo_deleted(int fd) {
    struct stat s;
    CHECK(fstat(fd, &s) == 0 && S_ISFIFO(s.st_mode));
    EQ(s.st_nlink, 0);
    EQ(read(fd, buffer, 100), 4);
    CHECK(write(other, "more", 4) == 4 && read(fd, buffer, 100) == 4);
    CHECK(access(in_dir("fifo"), F_OK) == -1);
}

// --- who gets the signals ---

static _Atomic int thread_id;
static sigset_t wanted;
static pthread_barrier_t told;

static void *thread(void *arg) {
    (void)arg;
    siginfo_t info;
    thread_id = gettid();
    pthread_barrier_wait(&told);
    while (sigwaitinfo(&wanted, &info) < 0 && errno == EINTR) {}
    return (void *)(long)(info.si_signo == SIGRTMIN + 5 ? info.si_fd : -1);
}

static pthread_t waiter;

// A thread, which has its id from the kernel.
static int to_thread(void) {
    int p[2];
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGRTMIN + 5);
    CHECK(pthread_sigmask(SIG_BLOCK, &wanted, NULL) == 0 && pthread_barrier_init(&told, NULL, 2) == 0);
    CHECK(pthread_create(&waiter, NULL, thread, NULL) == 0);
    pthread_barrier_wait(&told);
    CHECK(pipe2(p, O_CLOEXEC) == 0);
    struct f_owner_ex owner = {F_OWNER_TID, thread_id};
    CHECK(fcntl(p[0], F_SETOWN_EX, &owner) == 0 && fcntl(p[0], F_SETSIG, SIGRTMIN + 5) == 0);
    CHECK(fcntl(p[0], F_SETFL, O_ASYNC) == 0);
    other = p[1];
    return p[0];
}

static void check_to_thread(int fd) {
    struct f_owner_ex owner;
    CHECK(fcntl(fd, F_GETOWN_EX, &owner) == 0);
    EQ(owner.type, F_OWNER_TID);
    EQ(fcntl(fd, F_GETSIG), SIGRTMIN + 5);
    CHECK(write(other, "x", 1) == 1);
    void *got;
    CHECK(pthread_join(waiter, &got) == 0);
    CHECK((long)got >= 0);
}

// The whole process.
static int to_process(void) {
    int p[2];
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGIO);
    CHECK(sigprocmask(SIG_BLOCK, &wanted, NULL) == 0 && pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0);
    CHECK(fcntl(p[0], F_SETOWN, getpid()) == 0 && fcntl(p[0], F_SETFL, O_ASYNC | O_NONBLOCK) == 0);
    other = p[1];
    return p[0];
}

static void check_to_process(int fd) {
    EQ(fcntl(fd, F_GETOWN), getpid());
    CHECK(sigtimedwait(&wanted, NULL, &(struct timespec){0, 0}) == -1 && errno == EAGAIN);
    CHECK(write(other, "x", 1) == 1);
    EQ(sigtimedwait(&wanted, NULL, &(struct timespec){20, 0}), SIGIO);
}

static const struct {
    const char *name;
    struct kind kind;
} kinds[] = {
    {"packets", {packets, check_packets, EPOLLIN, false}},
    {"mixed", {mixed, check_mixed, EPOLLIN, false}},
    {"full", {full, check_full, 0, false}},
    {"writer_gone", {writer_gone, check_writer_gone, EPOLLIN | EPOLLHUP, false}},
    {"reader_gone", {reader_gone, check_reader_gone, EPOLLOUT | EPOLLERR, false}},
    {"fifo_reader", {fifo_reader, check_fifo_reader, 0, false}},
    {"fifo_hung_up", {fifo_hung_up, check_fifo_hung_up, EPOLLIN | EPOLLHUP, false}},
    {"fifo_writer", {fifo_writer, check_fifo_writer, EPOLLOUT | EPOLLERR, false}},
    {"fifo_both", {fifo_both, check_fifo_both, EPOLLIN | EPOLLOUT, false}},
    {"fifo_deleted", {fifo_deleted, check_fifo_deleted, EPOLLIN, false}},
    {"to_thread", {to_thread, check_to_thread, 0, true}},
    {"to_process", {to_process, check_to_process, 0, true}},
};

int main(int argc, char **argv) {
    for (size_t i = 0; argc > 2 && i < sizeof kinds / sizeof kinds[0]; i++)
        if (!strcmp(argv[2], kinds[i].name)) return forms(argc, argv, &kinds[i].kind);
    fail("form_pipes FORM KIND");
}
