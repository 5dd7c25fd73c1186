// POSIX message queues: messages with priorities in order, limits, modes, several descriptions of one queue,
// one that has been unlinked, and a process that is told of a message (without a signal).
#include "victim.h"
#include <mqueue.h>

static char text[200];

static void expect(mqd_t q, const char *wanted, unsigned priority) {
    unsigned got;
    memset(text, 0, sizeof text);
    ssize_t n = mq_receive(q, text, sizeof text, &got);
    if (n < 0) fail("mq_receive: %s, expected %s", strerror(errno), wanted);
    if (strcmp(text, wanted)) fail("received %s, expected %s", text, wanted);
    EQ(n, strlen(wanted));
    EQ(got, priority);
}

static volatile int value = -1;
static void on_message(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    value = info->si_value.sival_int;
}

// A signal tells of a message.
static int signalled(void) {
    struct sigaction a = {.sa_sigaction = on_message, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGUSR2, &a, NULL) == 0);
    char name[50];
    snprintf(name, sizeof name, "/ckpt-s-%d", getpid());
    mqd_t q = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, NULL);
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2, .sigev_value.sival_int = 77};
    CHECK(q >= 0 && mq_unlink(name) == 0 && mq_notify(q, &e) == 0);
    ready();
    wait_go();
    char text[8192];
    CHECK(mq_send(q, "x", 1, 0) == 0 && mq_receive(q, text, sizeof text, NULL) == 1);
    // The image does not know the value.
    EQ(value, access(in_dir("saved.ckpt"), F_OK) == 0 ? 0 : 77);
    return ok();
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "signal")) return signalled();
    char name[50], other[50];
    snprintf(name, sizeof name, "/ckpt-a-%d", getpid());
    snprintf(other, sizeof other, "/ckpt-b-%d", getpid());
    struct mq_attr attr = {.mq_maxmsg = 7, .mq_msgsize = 100};
    mqd_t q = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0620, &attr);
    if (q < 0 && errno == ENOSYS) skip("no POSIX message queues here");
    CHECK(q >= 0 && fchmod(q, 0620) == 0);
    mqd_t reader = mq_open(name, O_RDONLY | O_NONBLOCK), writer = mq_open(name, O_WRONLY);
    int twin = dup(writer);
    CHECK(reader >= 0 && writer >= 0 && twin >= 0);
    attr.mq_maxmsg = 3;
    mqd_t gone = mq_open(other, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
    CHECK(gone >= 0 && mq_unlink(other) == 0);
    CHECK(mq_send(q, "low", 3, 1) == 0 && mq_send(q, "high", 4, 9) == 0 && mq_send(q, "low too", 7, 1) == 0);
    CHECK(mq_send(q, "", 0, 1) == 0 && mq_send(gone, "last words", 10, 32767) == 0);
    // Empty, and watched.
    snprintf(other, sizeof other, "/ckpt-c-%d", getpid());
    mqd_t empty = mq_open(other, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
    struct sigevent silent = {.sigev_notify = SIGEV_NONE};
    CHECK(empty >= 0);
    bool notified = argc < 2 && mq_notify(empty, &silent) == 0;
    struct stat was, now;
    CHECK(fstat(q, &was) == 0);
    if (argc > 1 && !strcmp(argv[1], "fails")) put("name", name + 1);
    ready();
    wait_go();
    CHECK(fstat(q, &now) == 0);
    EQ(now.st_mode, was.st_mode);
    EQ(now.st_uid, was.st_uid);
    EQ(now.st_gid, was.st_gid);
    CHECK(mq_getattr(q, &attr) == 0);
    EQ(attr.mq_maxmsg, 7);
    EQ(attr.mq_msgsize, 100);
    EQ(attr.mq_curmsgs, 4);
    EQ(attr.mq_flags, 0);
    CHECK(mq_getattr(reader, &attr) == 0);
    EQ(attr.mq_flags, O_NONBLOCK);
    CHECK(mq_send(reader, "x", 1, 0) == -1 && errno == EBADF);
    CHECK(mq_receive(writer, text, sizeof text, NULL) == -1 && errno == EBADF);
    EQ(fcntl(q, F_GETFD), FD_CLOEXEC);
    // The same queue for all, by name, too.
    mqd_t again = mq_open(name, O_RDWR);
    CHECK(again >= 0 && mq_send(twin, "new", 3, 5) == 0);
    expect(reader, "high", 9);
    expect(again, "new", 5);
    expect(q, "low", 1);
    expect(reader, "low too", 1);
    expect(reader, "", 1);
    CHECK(mq_receive(reader, text, sizeof text, NULL) == -1 && errno == EAGAIN);
    expect(gone, "last words", 32767);
    CHECK(mq_getattr(gone, &attr) == 0);
    EQ(attr.mq_maxmsg, 3);
    if (notified) {
        // Registered still: EBUSY for anybody else, also for ourselves.
        CHECK(mq_notify(empty, &silent) == -1 && errno == EBUSY);
        CHECK(mq_send(empty, "x", 1, 0) == 0);
        CHECK(mq_notify(empty, &silent) == 0);
    }
    CHECK(mq_unlink(name) == 0 && mq_unlink(other) == 0);
    return ok();
}
