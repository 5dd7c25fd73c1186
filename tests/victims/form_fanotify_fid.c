// A fanotify group that names files, as an ordinary user may have it, in all forms.
#include "fanotify.h"

static int make(void) {
    int fd = group_or_skip(FAN_CLASS_NOTIF | FAN_REPORT_DFID_NAME, 0);
    CHECK(mkdir(in_dir("marked"), 0755) == 0 && mkdir(at("sub"), 0755) == 0);
    touch(at("file"));
    if (fanotify_mark(fd, FAN_MARK_ADD, FAN_CREATE | FAN_DELETE | FAN_ONDIR, AT_FDCWD, at("sub")))
        skip("no names of files on this file system: %s", strerror(errno));
    add(fd, 0, FAN_ATTRIB, at("file"));
    none(fd);
    return fd;
}

static void check(int fd) {
    blocks_never(fd);
    none(fd);
    CHECK(symlink("nowhere", at("sub/made")) == 0);
    expect_name(fd, FAN_CREATE, at("sub"), "made");
    CHECK(mkdir(at("sub/dir"), 0755) == 0);
    expect_name(fd, FAN_CREATE | FAN_ONDIR, at("sub"), "dir");
    CHECK(chmod(at("file"), 0600) == 0);
    expect_name(fd, FAN_ATTRIB, at("."), "file");
    touch(at("file"));
    none(fd);
    // What another process does: whose it is, only root is told.
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) _exit(unlink(at("sub/made")) ? 1 : 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    char room[4096] __attribute__((aligned(8)));
    struct fanotify_event_metadata *e = (void *)room;
    CHECK(read(fd, room, sizeof room) > 0);
    EQ(e->mask, FAN_DELETE);
    EQ(e->pid, access(in_dir("privileged"), F_OK) == 0 ? child : 0);
    none(fd);
}

int main(int argc, char **argv) {
    if (geteuid() == 0) close(open(in_dir("privileged"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    return forms(argc, argv, &(struct kind){make, check, 0, false});
}
