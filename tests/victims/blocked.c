// blocked CALL: a thread is blocked in a system call when dumped. It must not notice: no error, no
// early return; and when it is woken, it gets what it waited for.
#include "victim.h"
#include "sysv.h"
#include <dirent.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

static int fds[2];
static uint32_t word;
static int ipc = -1;
static volatile bool handled;
static pthread_t thread;
static long long slept_from;
static atomic_bool returned;
static const char *error;

#define EXPECT(e) \
    do { \
        errno = 0; \
        if (!(e)) { \
            static char text[300]; \
            snprintf(text, sizeof text, "%s (errno: %s)", #e, strerror(errno)); \
            error = text; \
            return; \
        } \
    } while (0)

static void pipe_setup(void) { CHECK(pipe(fds) == 0); }
static void pipe_wake(void) { CHECK(write(fds[1], "hello", 5) == 5); }
static void pair_setup(void) { CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0); }

static void pipe_read(void) {
    char text[10];
    EXPECT(read(fds[0], text, 10) == 5);
    EXPECT(memcmp(text, "hello", 5) == 0);
}

static void do_readv(void) {
    char a[2], b[8];
    struct iovec v[2] = {{a, 2}, {b, 8}};
    EXPECT(readv(fds[0], v, 2) == 5);
    EXPECT(memcmp(b, "llo", 3) == 0);
}

static void do_recv(void) {
    char text[10];
    EXPECT(recv(fds[0], text, 10, 0) == 5);
}

static void do_poll(void) {
    struct pollfd p = {.fd = fds[0], .events = POLLIN};
    EXPECT(poll(&p, 1, -1) == 1);
    EXPECT(p.revents == POLLIN);
}

static void do_poll_timeout(void) {
    struct pollfd p = {.fd = fds[0], .events = POLLIN};
    EXPECT(poll(&p, 1, 100000) == 1);
}

static void do_ppoll(void) {
    struct pollfd p = {.fd = fds[0], .events = POLLIN};
    struct timespec t = {100, 0};
    sigset_t mask;
    sigfillset(&mask);
    EXPECT(ppoll(&p, 1, &t, &mask) == 1);
    sigset_t now;
    EXPECT(pthread_sigmask(SIG_SETMASK, NULL, &now) == 0);
    EXPECT(!sigismember(&now, SIGUSR2));
}

static void do_select(void) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fds[0], &set);
    struct timeval t = {100, 0};
    EXPECT(select(fds[0] + 1, &set, NULL, NULL, &t) == 1);
    EXPECT(FD_ISSET(fds[0], &set));
}

static void do_pselect(void) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fds[0], &set);
    sigset_t mask;
    sigfillset(&mask);
    EXPECT(pselect(fds[0] + 1, &set, NULL, NULL, NULL, &mask) == 1);
}

static int epoll_fd;

static void epoll_setup(void) {
    pipe_setup();
    CHECK((epoll_fd = epoll_create1(0)) >= 0);
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = 0x123456789abcdef};
    CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fds[0], &e) == 0);
}

static void do_epoll_wait(void) {
    struct epoll_event e = {0};
    EXPECT(epoll_wait(epoll_fd, &e, 1, -1) == 1);
    EXPECT(e.events == EPOLLIN && e.data.u64 == 0x123456789abcdef);
}

static void do_epoll_pwait(void) {
    struct epoll_event e = {0};
    sigset_t mask;
    sigfillset(&mask);
    EXPECT(epoll_pwait(epoll_fd, &e, 1, 100000, &mask) == 1);
}

static void futex_wait(void) {
    while (atomic_load((atomic_uint *)&word) == 0)
        EXPECT(syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0) == 0 || errno == EAGAIN);
}

static void futex_timeout(void) {
    struct timespec t = {100, 0};
    EXPECT(syscall(SYS_futex, &word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &t, NULL, 0) == 0 || errno == EAGAIN);
    EXPECT(atomic_load((atomic_uint *)&word) == 1);
}

static void futex_bitset(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += 100;
    EXPECT(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 0, &t, NULL, 1) == 0 || errno == EAGAIN);
    EXPECT(atomic_load((atomic_uint *)&word) == 1);
}

static void futex_wake(void) {
    atomic_store((atomic_uint *)&word, 1);
    syscall(SYS_futex, &word, FUTEX_WAKE, 1, NULL, NULL, 0);
    syscall(SYS_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void mutex_setup(void) { pthread_mutex_lock(&mutex); }
static void mutex_lock(void) { EXPECT(pthread_mutex_lock(&mutex) == 0); }
static void mutex_wake(void) { pthread_mutex_unlock(&mutex); }

#define NAP 1200000000ll
static void nap_start(void) { slept_from = now_ns(CLOCK_BOOTTIME); }
static void no_wake(void) {}

static void do_nanosleep(void) {
    nap_start();
    struct timespec t = {NAP / 1000000000, NAP % 1000000000};
    EXPECT(nanosleep(&t, NULL) == 0);
    EXPECT(now_ns(CLOCK_BOOTTIME) - slept_from >= NAP);
}

static void clock_nanosleep_relative(void) {
    nap_start();
    struct timespec t = {NAP / 1000000000, NAP % 1000000000};
    EXPECT(clock_nanosleep(CLOCK_BOOTTIME, 0, &t, NULL) == 0);
    EXPECT(now_ns(CLOCK_BOOTTIME) - slept_from >= NAP);
}

static void clock_nanosleep_absolute(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += 2;
    EXPECT(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, NULL) == 0);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    EXPECT(now.tv_sec > t.tv_sec || (now.tv_sec == t.tv_sec && now.tv_nsec >= t.tv_nsec));
}

static void block_usr1(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
}

static void usr1_wake(void) {
    union sigval value = {.sival_int = 42};
    CHECK(pthread_sigqueue(thread, SIGUSR1, value) == 0);
}

static void do_sigwaitinfo(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    siginfo_t info;
    EXPECT(sigwaitinfo(&set, &info) == SIGUSR1);
    EXPECT(info.si_value.sival_int == 42);
}

static void do_sigtimedwait(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    siginfo_t info;
    struct timespec t = {100, 0};
    EXPECT(sigtimedwait(&set, &info, &t) == SIGUSR1);
}

static void on_usr1(int sig) {
    (void)sig;
    handled = true;
}

static void handle_usr1(void) {
    struct sigaction action = {.sa_handler = on_usr1};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
}

// These end only by a handled signal, with EINTR.
static void do_pause(void) {
    EXPECT(pause() == -1 && errno == EINTR);
    EXPECT(handled);
}

static void do_sigsuspend(void) {
    sigset_t set;
    sigemptyset(&set);
    EXPECT(sigsuspend(&set) == -1 && errno == EINTR);
    EXPECT(handled);
}

static void suspend_setup(void) {
    handle_usr1();
    block_usr1();
}

static void sem_setup(void) {
    CHECK((ipc = semget(IPC_PRIVATE, 1, 0600)) >= 0);
}

static void do_semop(void) {
    struct sembuf op = {0, -1, 0};
    EXPECT(semop(ipc, &op, 1) == 0);
}

static void sem_wake(void) {
    struct sembuf op = {0, 1, 0};
    CHECK(semop(ipc, &op, 1) == 0);
}

static void sem_end(void) { (void)semctl(ipc, 0, IPC_RMID); }

static void msg_setup(void) {
    CHECK((ipc = msgget(IPC_PRIVATE, 0600)) >= 0);
}

struct message {
    long type;
    char text[8];
};

static void do_msgrcv(void) {
    struct message m;
    EXPECT(msgrcv(ipc, &m, sizeof m.text, 3, 0) == 8);
    EXPECT(memcmp(m.text, "a letter", 8) == 0);
}

static void msg_wake(void) {
    struct message m = {3, "a lette"};
    m.text[7] = 'r';
    CHECK(msgsnd(ipc, &m, sizeof m.text, 0) == 0);
}

static void msg_end(void) { (void)msgctl(ipc, IPC_RMID, NULL); }

static struct sockaddr_in address = {.sin_family = AF_INET};

static void listen_setup(void) {
    CHECK((fds[0] = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(fds[0], (struct sockaddr *)&address, sizeof address) == 0);
    socklen_t len = sizeof address;
    CHECK(getsockname(fds[0], (struct sockaddr *)&address, &len) == 0);
    CHECK(listen(fds[0], 5) == 0);
}

static void do_accept(void) {
    int fd = accept(fds[0], NULL, NULL);
    EXPECT(fd >= 0);
    char c;
    EXPECT(read(fd, &c, 1) == 1 && c == 'c');
}

static void connect_wake(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(write(fd, "c", 1) == 1);
}

static void flock_setup(void) {
    CHECK((fds[0] = open(in_dir("lock"), O_RDWR | O_CREAT, 0644)) >= 0);
    CHECK((fds[1] = open(in_dir("lock"), O_RDWR)) >= 0);
    CHECK(flock(fds[0], LOCK_EX) == 0);
}

static void do_flock(void) { EXPECT(flock(fds[1], LOCK_EX) == 0); }
static void flock_wake(void) { CHECK(flock(fds[0], LOCK_UN) == 0); }

// A writer blocked on a full pipe goes on exactly where it was.
#define BIG (300 << 10)
static char big[BIG];

static void do_write(void) {
    fill(big, BIG, 1);
    size_t done = 0;
    while (done < BIG) {
        ssize_t n = write(fds[1], big + done, BIG - done);
        EXPECT(n > 0);
        done += (size_t)n;
    }
    close(fds[1]);
}

static void drain_wake(void) {
    static char got[BIG + 1];
    size_t have = 0;
    for (ssize_t n; (n = read(fds[0], got + have, sizeof got - have)) > 0;) have += (size_t)n;
    EQ(have, BIG);
    verify(got, BIG, 1);
}

static void nothing(void) {}

static const struct test {
    const char *name;
    void (*setup)(void), (*call)(void), (*wake)(void), (*end)(void);
    bool ends_itself;
    long number; // of the system call, or -1
} TESTS[] = {
    {"read_pipe", pipe_setup, pipe_read, pipe_wake, nothing, false, SYS_read},
    {"readv_pipe", pipe_setup, do_readv, pipe_wake, nothing, false, SYS_readv},
    {"write_pipe", pipe_setup, do_write, drain_wake, nothing, false, SYS_write},
    {"read_socketpair", pair_setup, pipe_read, pipe_wake, nothing, false, SYS_read},
    {"recv_socketpair", pair_setup, do_recv, pipe_wake, nothing, false, SYS_recvfrom},
    {"poll", pipe_setup, do_poll, pipe_wake, nothing, false, SYS_poll},
    {"poll_timeout", pipe_setup, do_poll_timeout, pipe_wake, nothing, false, SYS_poll},
    {"ppoll", pipe_setup, do_ppoll, pipe_wake, nothing, false, SYS_ppoll},
    {"select", pipe_setup, do_select, pipe_wake, nothing, false, -1},
    {"pselect", pipe_setup, do_pselect, pipe_wake, nothing, false, SYS_pselect6},
    {"epoll_wait", epoll_setup, do_epoll_wait, pipe_wake, nothing, false, SYS_epoll_wait},
    {"epoll_pwait", epoll_setup, do_epoll_pwait, pipe_wake, nothing, false, SYS_epoll_pwait},
    {"futex", nothing, futex_wait, futex_wake, nothing, false, SYS_futex},
    {"futex_timeout", nothing, futex_timeout, futex_wake, nothing, false, SYS_futex},
    {"futex_bitset", nothing, futex_bitset, futex_wake, nothing, false, SYS_futex},
    {"mutex", mutex_setup, mutex_lock, mutex_wake, nothing, false, SYS_futex},
    {"nanosleep", nothing, do_nanosleep, no_wake, nothing, true, -1},
    {"clock_nanosleep", nothing, clock_nanosleep_relative, no_wake, nothing, true, SYS_clock_nanosleep},
    {"clock_nanosleep_absolute", nothing, clock_nanosleep_absolute, no_wake, nothing, true, SYS_clock_nanosleep},
    {"sigwaitinfo", block_usr1, do_sigwaitinfo, usr1_wake, nothing, false, SYS_rt_sigtimedwait},
    {"sigtimedwait", block_usr1, do_sigtimedwait, usr1_wake, nothing, false, SYS_rt_sigtimedwait},
    {"pause", handle_usr1, do_pause, usr1_wake, nothing, false, SYS_pause},
    {"sigsuspend", suspend_setup, do_sigsuspend, usr1_wake, nothing, false, SYS_rt_sigsuspend},
    {"semop", sem_setup, do_semop, sem_wake, sem_end, false, -1},
    {"msgrcv", msg_setup, do_msgrcv, msg_wake, msg_end, false, SYS_msgrcv},
    {"accept", listen_setup, do_accept, connect_wake, nothing, false, SYS_accept},
    {"flock", flock_setup, do_flock, flock_wake, nothing, false, SYS_flock},
};

static const struct test *test;
static void *run(void *unused) {
    (void)unused;
    test->call();
    returned = true;
    return NULL;
}

// The id of the other thread, which is another one after a restore with other pids.
static int other_tid(void) {
    DIR *dir = opendir("/proc/self/task");
    CHECK(dir);
    int tid = 0;
    for (struct dirent *e; (e = readdir(dir));)
        if (e->d_name[0] != '.' && atoi(e->d_name) != gettid()) tid = atoi(e->d_name);
    closedir(dir);
    return tid;
}

// Waits until the thread sleeps in the system call, as /proc tells.
static void wait_blocked(void) {
    char path[60], text[200];
    for (;;) {
        snprintf(path, sizeof path, "/proc/self/task/%d/syscall", other_tid());
        int fd = open(path, O_RDONLY);
        ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
        if (fd >= 0) close(fd);
        text[n > 0 ? n : 0] = 0;
        long number = atol(text);
        // A call with a timeout that was interrupted shows as restart_syscall.
        bool it = test->number < 0 || number == test->number || number == SYS_restart_syscall;
        if (n > 0 && text[0] != 'r' && it) return;
        if (returned) fail("%s did not block: %s", test->name, error ? error : "it returned at once");
        sleep_ms(1);
    }
}

int main(int argc, char **argv) {
    for (size_t i = 0; i < sizeof TESTS / sizeof *TESTS; i++)
        if (argc > 1 && strcmp(TESTS[i].name, argv[1]) == 0) test = &TESTS[i];
    if (!test) fail("no such call: %s", argc > 1 ? argv[1] : "?");
    test->setup();
    CHECK(pthread_create(&thread, NULL, run, NULL) == 0);
    wait_blocked();
    ready();
    wait_go();
    if (returned && !test->ends_itself) fail("%s returned: %s", test->name, error ? error : "without a reason");
    if (!test->ends_itself) wait_blocked();
    test->wake();
    CHECK(pthread_join(thread, NULL) == 0);
    test->end();
    if (error) fail("%s: %s", test->name, error);
    return ok();
}
