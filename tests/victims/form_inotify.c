// inotify in all forms: watches with their numbers, of which some are not used any more, on directories and
// files, renamed and deleted ones, with IN_ONESHOT and IN_EXCL_UNLINK.
#include "forms.h"
#include <sys/inotify.h>

static int file_wd, deleted_wd, renamed_wd, dir_wd, once_wd, gone_wd, deleted = -1, gone = -1;
static int next_wd;

static const char *at(const char *name) {
    static char paths[2][PATH_MAX];
    static int turn;
    char *path = paths[turn ^= 1];
    snprintf(path, PATH_MAX, "%s/%s", in_dir("watched"), name);
    return path;
}

static void touch(const char *name) {
    int fd = open(at(name), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    CHECK(fd >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0);
}

static int add(int fd, const char *name, uint32_t mask) {
    int wd = inotify_add_watch(fd, at(name), mask);
    CHECK(wd > 0);
    return wd;
}

static int make(void) {
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    CHECK(fd >= 0 && mkdir(in_dir("watched"), 0755) == 0 && mkdir(at("sub"), 0755) == 0);
    for (const char **name = (const char *[]){"file", "sub/deleted", "old", "once", NULL}; *name; name++) touch(*name);
    file_wd = add(fd, "file", IN_MODIFY | IN_ATTRIB);
    for (int i = 0; i < 40; i++) CHECK(inotify_rm_watch(fd, add(fd, "sub", IN_CREATE)) == 0);
    renamed_wd = add(fd, "old", IN_MODIFY);
    CHECK(rename(at("old"), at("sub/new")) == 0);
    once_wd = add(fd, "once", IN_MODIFY | IN_ONESHOT);
    deleted_wd = add(fd, "sub/deleted", IN_MODIFY | IN_CLOSE_WRITE);
    deleted = open(at("sub/deleted"), O_RDWR | O_CLOEXEC);
    CHECK(deleted >= 0 && unlink(at("sub/deleted")) == 0);
    CHECK(mkdir(at("gone"), 0755) == 0 && (gone = open(at("gone"), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
    gone_wd = add(fd, "gone", IN_ATTRIB);
    CHECK(rmdir(at("gone")) == 0);
    for (int i = 0; i < 3; i++) CHECK(inotify_rm_watch(fd, add(fd, "sub", IN_CREATE)) == 0);
    dir_wd = add(fd, ".", IN_CREATE | IN_OPEN | IN_EXCL_UNLINK | IN_ONLYDIR);
    next_wd = dir_wd + 1;
    char events[4096];
    while (read(fd, events, sizeof events) > 0) {
    }
    return fd;
}

static void expect(int fd, int wd, uint32_t mask, const char *name) {
    char with_name[300] __attribute__((aligned(8)));
    // One event: what more there is does not fit.
    size_t room = sizeof(struct inotify_event) + (name ? 16 : 0);
    ssize_t n = read(fd, with_name, room);
    if (n < 0) fail("no event of watch %d, expected %#x: %s", wd, mask, strerror(errno));
    struct inotify_event *e = (void *)with_name;
    EQ(e->wd, wd);
    EQ(e->mask, mask);
    if (name && strcmp(e->name, name)) fail("event of %s, expected %s", e->name, name);
}

static void none(int fd) {
    char event[4096];
    if (read(fd, event, sizeof event) != -1)
        fail("an event %#x of watch %d too many", ((struct inotify_event *)event)->mask, ((struct inotify_event *)event)->wd);
    CHECK(errno == EAGAIN || errno == 0);
}

static void check(int fd) {
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    errno = 0;
    none(fd);
    CHECK(chmod(at("file"), 0600) == 0);
    expect(fd, file_wd, IN_ATTRIB, NULL);
    CHECK(truncate(at("sub/new"), 0) == 0);
    expect(fd, renamed_wd, IN_MODIFY, NULL);
    CHECK(truncate(at("once"), 0) == 0);
    expect(fd, once_wd, IN_MODIFY, NULL);
    expect(fd, once_wd, IN_IGNORED, NULL);
    CHECK(truncate(at("once"), 1) == 0);
    none(fd);
    CHECK(write(deleted, "y", 1) == 1);
    expect(fd, deleted_wd, IN_MODIFY, NULL);
    CHECK(fchmod(gone, 0700) == 0);
    expect(fd, gone_wd, IN_ATTRIB | IN_ISDIR, NULL);
    CHECK(symlink("nowhere", at("made")) == 0);
    expect(fd, dir_wd, IN_CREATE, "made");
    int sub = open(at("sub"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(sub >= 0 && close(sub) == 0);
    expect(fd, dir_wd, IN_OPEN | IN_ISDIR, "sub");
    none(fd);
    EQ(inotify_add_watch(fd, at("sub"), IN_CREATE), next_wd);
    CHECK(inotify_rm_watch(fd, dir_wd) == 0);
    expect(fd, dir_wd, IN_IGNORED, NULL);
    none(fd);
}

int main(int argc, char **argv) {
    return forms(argc, argv, &(struct kind){make, check, 0, false});
}
