// CLOCK_MONOTONIC and CLOCK_BOOTTIME that go on from the dump: `clocks`, in a time namespace of its own that is
// far ahead of the machine, as another boot would be. `clocks jumps`: they do not.
#include "victim.h"
#include <sys/timerfd.h>

#define AHEAD 5000000ll

static long long before[2];
static bool jumps;

static void text_to(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        skip("cannot write %s: %s", path, strerror(errno));
    close(fd);
}

// An ordinary user needs a user namespace; exec takes the capabilities that come with it.
static void enter(char **argv) {
    char map[60];
    bool root = geteuid() == 0;
    int uid = geteuid(), gid = getegid();
    if (unshare(CLONE_NEWTIME | (root ? 0 : CLONE_NEWUSER))) skip("no time namespaces: %s", strerror(errno));
    if (!root) {
        text_to("/proc/self/setgroups", "deny");
        snprintf(map, sizeof map, "%d %d 1", uid, uid);
        text_to("/proc/self/uid_map", map);
        snprintf(map, sizeof map, "%d %d 1", gid, gid);
        text_to("/proc/self/gid_map", map);
    }
    snprintf(map, sizeof map, "monotonic %lld 0\nboottime %lld 0\n", AHEAD, 2 * AHEAD);
    text_to("/proc/self/timens_offsets", map);
    int ns = open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC);
    CHECK(ns >= 0 && setns(ns, CLONE_NEWTIME) == 0);
    setenv("CLOCKS_ENTERED", "1", 1);
    execv(argv[0], argv);
    fail("exec: %s", strerror(errno));
}

static long long by_call(clockid_t clock) {
    struct timespec t;
    CHECK(syscall(SYS_clock_gettime, clock, &t) == 0);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

// Asleep until a time that is a moment after the dump.
static void *sleeper(void *until) {
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, until, NULL) == EINTR) {
    }
    return NULL;
}

int main(int argc, char **argv) {
    jumps = argc > 1;
    if (!getenv("CLOCKS_ENTERED")) enter(argv);
    const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME};
    pthread_t thread;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 3;
    if (!jumps) CHECK(pthread_create(&thread, NULL, sleeper, &until) == 0);
    int timer = timerfd_create(CLOCK_BOOTTIME, 0);
    struct itimerspec when = {.it_value.tv_sec = now_ns(CLOCK_BOOTTIME) / 1000000000 + 4};
    CHECK(timer >= 0 && timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL) == 0);
    for (int i = 0; i < 2; i++) {
        before[i] = now_ns(clocks[i]);
        CHECK(before[i] > (i + 1) * AHEAD * 1000000000);
    }
    ready();
    wait_go();
    for (int i = 0; i < 2; i++) {
        long long after = now_ns(clocks[i]), same = by_call(clocks[i]), gone = after - before[i];
        CHECK(same >= after && same - after < 600000000000);
        if (jumps) {
            CHECK(gone < -1000000000000);
        } else {
            CHECK(gone >= 0 && gone < 3600000000000);
        }
    }
    uint64_t expired = 0;
    CHECK(read(timer, &expired, sizeof expired) == sizeof expired && expired == 1);
    if (!jumps) CHECK(pthread_join(thread, NULL) == 0);
    return ok();
}
