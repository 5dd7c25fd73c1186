// A root directory and a working directory of its own.
#include "victim.h"

int main(void) {
    struct stat before, now;
    CHECK(mkdir(in_dir("deep"), 0755) == 0);
    CHECK(chroot(in_dir(".")) == 0 && chdir("/deep") == 0);
    CHECK(setenv("CKPT_DIR", "/", 1) == 0);
    CHECK(stat("/", &before) == 0);
    ready();
    wait_go();
    char cwd[PATH_MAX];
    CHECK(stat("/", &now) == 0);
    EQ(now.st_ino, before.st_ino);
    CHECK(getcwd(cwd, sizeof cwd));
    EQ(strcmp(cwd, "/deep"), 0);
    CHECK(chdir("..") == 0 && chdir("..") == 0 && stat(".", &now) == 0);
    EQ(now.st_ino, before.st_ino);
    return ok();
}
