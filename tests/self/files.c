// Back to a checkpoint in a file, and what stands in the way: files IMAGE OTHER
#include "self.h"

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    CHECK(argc == 3);
    pid_t pid = getpid();
    uint64_t id, other;
    int result = ckpt_checkpoint(argv[1], NULL, &id);
    CHECK(result >= 0);
    if (result == CKPT_RESTORED) {
        CHECK(getpid() == pid);
        printf("restored\n");
        return 0;
    }
    CHECK(id == 1);
    const char *before = descriptors();

    CHECK(ckpt_revert(77) == CKPT_FAILED && strstr(ckpt_error(), "no checkpoint 77"));

    pid_t child = fork();
    if (!child) pause();
    CHECK(ckpt_revert(id) == CKPT_FAILED && strstr(ckpt_error(), "children"));
    // A checkpoint with a child.
    CHECK(ckpt_checkpoint(argv[2], NULL, &other) == CKPT_SAVED && other == 2);
    kill(child, SIGKILL);
    CHECK(ckpt_revert(id) == CKPT_FAILED && strstr(ckpt_error(), "children"));
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(ckpt_revert(other) == CKPT_FAILED && strstr(ckpt_error(), "holds 2 processes"));

    // Damaged, in the midst of its contents.
    struct stat stat_of;
    CHECK(!stat(argv[1], &stat_of));
    off_t at = stat_of.st_size / 2;
    int fd = open(argv[1], O_RDWR | O_CLOEXEC);
    unsigned char byte, wrong;
    CHECK(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    wrong = byte ^ 0xff;
    CHECK(pwrite(fd, &wrong, 1, at) == 1);
    CHECK(!close(fd));
    CHECK(ckpt_revert(id) == CKPT_FAILED && strstr(ckpt_error(), "damaged"));
    fd = open(argv[1], O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && pwrite(fd, &byte, 1, at) == 1 && !close(fd));

    // Another image under its name.
    char aside[300];
    snprintf(aside, sizeof aside, "%s.aside", argv[1]);
    CHECK(!rename(argv[1], aside) && !rename(argv[2], argv[1]));
    CHECK(ckpt_revert(id) == CKPT_FAILED && strstr(ckpt_error(), "another dump"));
    CHECK(!unlink(argv[1]));
    CHECK(ckpt_revert(id) == CKPT_FAILED && strstr(ckpt_error(), "No such file"));
    CHECK(!rename(aside, argv[1]));
    // Not permitted to be executed: found out by execve(2).
    CHECK(!chmod(argv[1], 0600));
    CHECK(ckpt_revert(id) == CKPT_FAILED && strstr(ckpt_error(), "Permission denied"));
    CHECK(!chmod(argv[1], 0700));

    // The program is as it was.
    CHECK(!strcmp(before, descriptors()));
    CHECK(!(fcntl(1, F_GETFD) & FD_CLOEXEC));
    printf("going back\n");
    ckpt_revert(id);
    CHECK(!"reverted");
}
