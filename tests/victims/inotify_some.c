// inotify_some pending: events wait to be read. inotify_some hidden DIR: watches a directory, to which no
// readable directory leads.
#include "victim.h"
#include <sys/inotify.h>

static int reported(int fd, uint32_t *mask) {
    char event[4096] __attribute__((aligned(8)));
    ssize_t n = read(fd, event, sizeof event);
    *mask = ((struct inotify_event *)event)->mask;
    return n < 0 ? -1 : (int)n;
}

int main(int argc, char **argv) {
    bool pending = argc > 1 && !strcmp(argv[1], "pending");
    int fd = inotify_init1(IN_NONBLOCK);
    const char *inner = pending ? "watched" : "closed/inner";
    CHECK(fd >= 0 && mkdir(in_dir(pending ? "watched" : "closed"), 0755) == 0);
    if (!pending) CHECK(mkdir(in_dir(inner), 0755) == 0);
    int wd = inotify_add_watch(fd, in_dir(inner), IN_CREATE | IN_DELETE);
    EQ(wd, 1);
    char name[60];
    for (int i = 0; pending && i < 100; i++) {
        snprintf(name, sizeof name, "watched/%d", i);
        CHECK(symlink("nowhere", in_dir(name)) == 0);
    }
    if (!pending) CHECK(chmod(in_dir("closed"), 0) == 0);
    ready();
    wait_go();
    uint32_t mask;
    if (pending) {
        bool restored = access(in_dir("restored"), F_OK) == 0;
        if (restored) {
            int len = reported(fd, &mask);
            EQ(mask, IN_Q_OVERFLOW);
            EQ(len, (int)sizeof(struct inotify_event));
        } else {
            CHECK(reported(fd, &mask) > 0);
            EQ(mask, IN_CREATE);
        }
        EQ(reported(fd, &mask), -1);
    } else {
        CHECK(chmod(in_dir("closed"), 0755) == 0);
    }
    snprintf(name, sizeof name, "%s/more", inner);
    CHECK(symlink("nowhere", in_dir(name)) == 0);
    CHECK(reported(fd, &mask) > 0);
    EQ(mask, IN_CREATE);
    return ok();
}
