// A root directory and a working directory of its own, and a file in there that is mapped shared.
#include "victim.h"

int main(void) {
    struct stat before, now;
    CHECK(mkdir(in_dir("deep"), 0755) == 0);
    CHECK(chroot(in_dir(".")) == 0 && chdir("/deep") == 0);
    CHECK(setenv("CKPT_DIR", "/", 1) == 0);
    CHECK(stat("/", &before) == 0);
    int file = open("/mapped", O_RDWR | O_CREAT, 0600);
    CHECK(file >= 0 && ftruncate(file, PAGE) == 0);
    char *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(shared != MAP_FAILED && close(file) == 0);
    shared[0] = 'a';
    ready();
    wait_go();
    char cwd[PATH_MAX], c = 0;
    EQ(shared[0], 'a');
    shared[0] = 'b';
    file = open("/mapped", O_RDONLY);
    CHECK(file >= 0 && read(file, &c, 1) == 1 && close(file) == 0);
    EQ(c, 'b');
    CHECK(stat("/", &now) == 0);
    EQ(now.st_ino, before.st_ino);
    CHECK(getcwd(cwd, sizeof cwd));
    EQ(strcmp(cwd, "/deep"), 0);
    CHECK(chdir("..") == 0 && chdir("..") == 0 && stat(".", &now) == 0);
    EQ(now.st_ino, before.st_ino);
    return ok();
}
