// A fanotify group that gives files, in all forms: marks on a directory and its children, on files, of which
// one is deleted, ignore masks.
#include "fanotify.h"

static int deleted;

static int make(void) {
    int fd = group_or_skip(FAN_CLASS_NOTIF | FAN_UNLIMITED_QUEUE, O_RDWR | O_LARGEFILE | O_CLOEXEC);
    CHECK(mkdir(in_dir("marked"), 0755) == 0 && mkdir(at("sub"), 0755) == 0);
    for (const char **name = (const char *[]){"file", "sub/child", "sub/quiet", "deleted", NULL}; *name; name++) touch(at(*name));
    add(fd, 0, FAN_CLOSE_WRITE, at("file"));
    add(fd, 0, FAN_MODIFY | FAN_EVENT_ON_CHILD, at("sub"));
    add(fd, FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_MODIFY, at("sub/quiet"));
    CHECK((deleted = open(at("deleted"), O_RDWR | O_CLOEXEC)) >= 0);
    add(fd, 0, FAN_MODIFY, at("deleted"));
    CHECK(unlink(at("deleted")) == 0);
    none(fd);
    return fd;
}

static void check(int fd) {
    blocks_never(fd);
    none(fd);
    touch(at("file"));
    expect_file(fd, FAN_CLOSE_WRITE, at("file"), O_RDWR);
    touch(at("sub/quiet"));
    none(fd);
    touch(at("sub/child"));
    expect_file(fd, FAN_MODIFY, at("sub/child"), O_RDWR);
    touch(at("sub/quiet"));
    none(fd);
    CHECK(write(deleted, "y", 1) == 1);
    struct fanotify_event_metadata *e = event(fd, FAN_MODIFY);
    struct stat there, wanted;
    CHECK(e->fd >= 0 && fstat(e->fd, &there) == 0 && fstat(deleted, &wanted) == 0);
    EQ(there.st_ino, wanted.st_ino);
    close(e->fd);
    CHECK(fanotify_mark(fd, FAN_MARK_REMOVE, FAN_CLOSE_WRITE, AT_FDCWD, at("file")) == 0);
    CHECK(fanotify_mark(fd, FAN_MARK_REMOVE, FAN_CLOSE_WRITE, AT_FDCWD, at("file")) == -1 && errno == ENOENT);
    touch(at("file"));
    none(fd);
}

int main(int argc, char **argv) {
    return forms(argc, argv, &(struct kind){make, check, 0, false});
}
