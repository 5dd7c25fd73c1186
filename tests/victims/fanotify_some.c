// fanotify_some mounts: marks on the mount and on the file system "marked". fanotify_some pending: events
// wait to be read. fanotify_some permission: a group that decides what others may do.
#include "fanotify.h"

static void mounts(void) {
    int fd = group_or_skip(FAN_CLASS_NOTIF, O_RDONLY);
    int names = group_or_skip(FAN_CLASS_NOTIF | FAN_REPORT_DFID_NAME, 0);
    CHECK(mkdir(at("sub"), 0755) == 0);
    touch(at("sub/file"));
    touch(at("sub/quiet"));
    add(fd, FAN_MARK_MOUNT, FAN_CLOSE_WRITE | FAN_OPEN, at("sub"));
    add(fd, FAN_MARK_MOUNT | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_OPEN, at("sub"));
    add(fd, FAN_MARK_FILESYSTEM, FAN_CLOSE_NOWRITE, at("sub"));
    add(names, FAN_MARK_FILESYSTEM, FAN_CREATE | FAN_ATTRIB, at("sub"));
    none(fd);
    none(names);
    ready();
    wait_go();
    none(fd);
    none(names);
    touch(at("sub/file"));
    expect_file(fd, FAN_CLOSE_WRITE, at("sub/file"), O_RDONLY);
    none(fd);
    int file = open(at("sub/quiet"), O_RDONLY | O_CLOEXEC);
    CHECK(file >= 0 && close(file) == 0);
    expect_file(fd, FAN_CLOSE_NOWRITE, at("sub/quiet"), O_RDONLY);
    none(fd);
    none(names);
    CHECK(mkdir(at("dir"), 0755) == 0 && symlink("nowhere", at("sub/made")) == 0);
    expect_name(names, FAN_CREATE, at("sub"), "made");
    CHECK(chmod(at("sub/file"), 0600) == 0);
    expect_name(names, FAN_ATTRIB, at("sub"), "file");
    none(names);
}

int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "";
    if (!strcmp(kind, "mounts")) {
        mounts();
        return ok();
    }
    bool permission = !strcmp(kind, "permission");
    int fd = group_or_skip(permission ? FAN_CLASS_CONTENT : FAN_CLASS_NOTIF, O_RDONLY);
    CHECK(mkdir(in_dir("marked"), 0755) == 0);
    touch(at("file"));
    add(fd, 0, FAN_CLOSE_WRITE, at("file"));
    if (!permission) touch(at("file"));
    ready();
    wait_go();
    if (permission) touch(at("file"));
    expect_file(fd, FAN_CLOSE_WRITE, at("file"), O_RDONLY);
    none(fd);
    return ok();
}
