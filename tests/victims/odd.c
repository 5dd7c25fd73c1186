// odd KIND...: has things that cannot be saved; none of them may be lost in silence.
#include "victim.h"
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sys/inotify.h>
#include <sys/io.h>
#include <sys/socket.h>
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static pid_t child = -1;

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
    // The other end is a process that is nobody's child; it ends with the connection.
    pid_t between = fork();
    if (between == 0) {
        char c;
        if (fork() == 0 && close(client) == 0) recv(accept(server, NULL, NULL), &c, 1, 0);
        _exit(0);
    }
    CHECK(waitpid(between, NULL, 0) == between && close(server) == 0);
    CHECK(connect(client, (void *)&a, len) == 0);
    stay_at(client, 45, "connection");
}

static void in_flight(void) {
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    char control[CMSG_SPACE(sizeof(int))] = {0}, c = 'c';
    struct iovec v = {&c, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_RIGHTS, h->cmsg_len = CMSG_LEN(sizeof(int));
    int pidfd = syscall(SYS_pidfd_open, getpid(), 0);
    memcpy(CMSG_DATA(h), &pidfd, sizeof(int));
    CHECK(pidfd >= 0 && sendmsg(pair[0], &m, 0) == 1 && close(pidfd) == 0);
    stay_at(pair[0], 47, "socket pair");
    stay_at(pair[1], 48, "socket pair");
}

static void seccomp_filter(void) {
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {1, &allow};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) skip("no seccomp here");
}

static void secret_memory(void) {
    int fd = (int)syscall(447, 0); // memfd_secret
    if (fd < 0) skip("no memfd_secret here: %s", strerror(errno));
    CHECK(ftruncate(fd, PAGE) == 0);
    char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    *p = 's';
    close(fd);
}

static void gone_directory(void) {
    CHECK(mkdir(in_dir("gone"), 0755) == 0 && chdir(in_dir("gone")) == 0 && rmdir(in_dir("gone")) == 0);
}

static void bpf_map(void) {
    union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 1};
    stay_at((int)syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr), 37, "bpf");
}

// A name of its own in the UTS namespace, and so on.
static void namespace(int flag) {
    if (unshare(flag)) skip("no new namespace here: %s", strerror(errno));
}

// One entry in the local descriptor table.
static void segment(void) {
    struct { unsigned entry, base, limit, flags; } desc = {0, 0, 0xfffff, 0x51};
    if (syscall(SYS_modify_ldt, 1, &desc, sizeof desc)) skip("no modify_ldt here");
}

static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t unshared;

static void *alone(void *what) {
    CHECK(unshare((int)(long)what) == 0);
    pthread_barrier_wait(&unshared);
    pthread_mutex_lock(&held); // until the end
    return NULL;
}

// A thread that does not share something.
static void thread_apart(long what) {
    pthread_t thread;
    pthread_mutex_lock(&held);
    pthread_barrier_init(&unshared, NULL, 2);
    CHECK(pthread_create(&thread, NULL, alone, (void *)what) == 0);
    pthread_barrier_wait(&unshared);
}

// With an answer of the kernel's in it.
static int netlink(void) {
    struct {
        struct nlmsghdr head;
        struct rtgenmsg message;
    } request = {{sizeof request, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0}, {AF_UNSPEC}};
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    CHECK(fd >= 0 && send(fd, &request, sizeof request, 0) == sizeof request);
    return fd;
}

// With a ring.
static int packet(void) {
    struct tpacket_req ring = {.tp_block_size = 4096, .tp_block_nr = 1, .tp_frame_size = 2048, .tp_frame_nr = 2};
    int fd = socket(AF_PACKET, SOCK_RAW, 0);
    if (fd >= 0) CHECK(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring) == 0);
    return fd;
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
    else if (!strcmp(kind, "console")) stay_at(open("/dev/tty1", O_RDWR | O_NOCTTY | O_NONBLOCK), 34, "virtual console");
    else if (!strcmp(kind, "dnotify")) {
        int fd = open(in_dir("."), O_RDONLY | O_DIRECTORY);
        CHECK(fcntl(fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT) == 0);
        stay_at(fd, 33, "dnotify");
        signal(SIGIO, SIG_IGN);
    } else if (!strcmp(kind, "pressure")) {
        int fd = open("/proc/pressure/memory", O_RDWR | O_NONBLOCK);
        if (fd < 0 || write(fd, "some 500000 2000000", 20) < 0) skip("no pressure triggers here: %s", strerror(errno));
        stay_at(fd, 32, "pressure trigger");
    } else if (!strcmp(kind, "other_process")) {
        char path[60];
        snprintf(path, sizeof path, "/proc/%d/status", getppid());
        stay_at(open(path, O_RDONLY), 31, "status of another process");
    } else if (!strcmp(kind, "inotify")) {
        int fd = inotify_init1(IN_CLOEXEC);
        CHECK(inotify_add_watch(fd, in_dir("."), IN_CREATE) >= 0);
        stay_at(fd, 49, "inotify");
    } else if (!strcmp(kind, "netlink")) stay_at(netlink(), 38, "netlink");
    else if (!strcmp(kind, "packet")) stay_at(packet(), 36, "packet socket");
    else if (!strcmp(kind, "bpf")) bpf_map();
    else if (!strcmp(kind, "seccomp")) seccomp_filter();
    else if (!strcmp(kind, "secret")) secret_memory();
    else if (!strcmp(kind, "cwd")) gone_directory();
    else if (!strcmp(kind, "uts")) namespace(CLONE_NEWUTS);
    else if (!strcmp(kind, "net")) namespace(CLONE_NEWNET);
    else if (!strcmp(kind, "mnt")) namespace(CLONE_NEWNS);
    else if (!strcmp(kind, "user")) namespace(CLONE_NEWUSER);
    else if (!strcmp(kind, "ldt")) segment();
    else if (!strcmp(kind, "ioports")) {
        if (ioperm(0x80, 1, 1)) skip("no I/O ports here: %s", strerror(errno));
    } else if (!strcmp(kind, "own_files")) thread_apart(CLONE_FILES);
    else if (!strcmp(kind, "own_directory")) thread_apart(CLONE_FS);
    else if (!strcmp(kind, "huge_memfd")) {
        stay_at((int)syscall(SYS_memfd_create, "huge", 4), 35, "memfd of huge pages");
    } else fail("no such kind: %s", kind);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        // "/": the kinds that follow are those of a child, which shares with us what we have so far.
        if (!strcmp(argv[i], "/")) {
            child = fork();
            CHECK(child >= 0);
            if (child > 0) break;
            child = -1;
            continue;
        }
        add(argv[i]);
    }
    if (getenv("CKPT_ODD") && child < 0) {
        // The last of several: all have what they should.
        ready();
        char go[PATH_MAX];
        snprintf(go, sizeof go, "%s", in_dir("go"));
        while (access(go, F_OK)) sleep_ms(5);
        _exit(0);
    }
    if (!getenv("CKPT_ODD")) ready();
    wait_go();
    if (child > 0) {
        close(50);
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    return ok();
}
