// A file and a directory under a bind mount (CKPT_DIR/bound is a view of CKPT_DIR/real): open through it
// again, not through what it is a view of.
#include "victim.h"

static uint64_t mount_of(int fd) {
    struct statx s;
    CHECK(statx(fd, "", AT_EMPTY_PATH, 0x1000 /* STATX_MNT_ID */, &s) == 0);
    return s.stx_mnt_id;
}

static void expect_link(int fd, const char *name) {
    char path[40], link[PATH_MAX] = {0};
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    CHECK(readlink(path, link, sizeof link - 1) > 0);
    if (strcmp(link, in_dir(name))) fail("fd %d is %s, not %s", fd, link, in_dir(name));
}

int main(void) {
    int file = open(in_dir("bound/file"), O_RDWR | O_CREAT, 0644), dir = open(in_dir("bound"), O_RDONLY | O_DIRECTORY);
    int behind = open(in_dir("real/file"), O_RDONLY);
    CHECK(file >= 0 && dir >= 0 && behind >= 0 && write(file, "through", 7) == 7);
    uint64_t bound = mount_of(dir), real = mount_of(behind);
    CHECK(bound != real);
    EQ(mount_of(file), bound);
    ready();
    wait_go();
    EQ(mount_of(file), bound);
    EQ(mount_of(dir), bound);
    EQ(mount_of(behind), real);
    expect_link(file, "bound/file");
    expect_link(dir, "bound");
    expect_link(behind, "real/file");
    CHECK(write(file, " it", 3) == 3);
    char text[11] = {0};
    CHECK(read(behind, text, 10) == 10);
    EQ(strcmp(text, "through it"), 0);
    CHECK(faccessat(dir, "file", F_OK, 0) == 0);
    return ok();
}
