// share_clone files|fs|both: processes with a common descriptor table (CLONE_FILES), common directories and
// umask (CLONE_FS), or both; and a third one with its own.
#include "tree.h"

int main(int argc, char **argv) {
    tree_begin();
    CHECK(argc > 1);
    bool files = argv[1][0] == 'b' || !strcmp(argv[1], "files"), fs = argv[1][0] == 'b' || !strcmp(argv[1], "fs");
    int own_pipe[2];
    char go[PATH_MAX];
    snprintf(go, sizeof go, "%s", in_dir("go"));
    CHECK(pipe(own_pipe) == 0);
    int kept = open(in_dir("kept"), O_RDWR | O_CREAT, 0600);
    CHECK(kept >= 0 && dup2(kept, 80) == 80 && close(kept) == 0);
    CHECK(chdir(getenv("CKPT_DIR")) == 0);
    umask(027);
    pid_t alone = forked();
    if (alone == 0) {
        prepared();
        await_go();
        sleep_ms(30);
        EQ(fcntl(81, F_GETFD), -1);
        EQ(fcntl(80, F_GETFD), 0);
        EQ(umask(0), 027);
        CHECK(mkdir("of-alone", 0700) == 0);
        CHECK(access(in_dir("of-alone"), F_OK) == 0);
        _exit(2);
    }
    pid_t child = syscall(SYS_clone, (files ? CLONE_FILES : 0) | (fs ? CLONE_FS : 0) | SIGCHLD, 0, 0, 0, 0);
    CHECK(child >= 0);
    if (child == 0) {
        // The table may be the parent's, who closes the pipe.
        CHECK(write(prepared_pipe[1], "p", 1) == 1);
        if (!files) forget_prepared();
        await_go();
        CHECK(dup2(80, 81) == 81);
        CHECK(fcntl(80, F_SETFD, FD_CLOEXEC) == 0);
        CHECK(write(81, "from the child", 14) == 14);
        umask(055);
        CHECK(chdir("/") == 0);
        _exit(1);
    }
    char c;
    for (int i = 0; i < 2; i++) CHECK(read(prepared_pipe[0], &c, 1) == 1);
    forget_prepared();
    ready();
    wait_go();
    reap(child, EXITED(1));
    char text[20] = "", cwd[PATH_MAX];
    if (files) {
        EQ(fcntl(80, F_GETFD), FD_CLOEXEC);
        EQ(lseek(81, 0, SEEK_SET), 0);
        CHECK(read(81, text, sizeof text) == 14 && !strcmp(text, "from the child"));
    } else {
        EQ(fcntl(81, F_GETFD), -1);
        EQ(fcntl(80, F_GETFD), 0);
        EQ(lseek(80, 0, SEEK_CUR), 14);
    }
    CHECK(getcwd(cwd, sizeof cwd));
    EQ(!strcmp(cwd, "/"), fs);
    EQ(umask(027), fs ? 055 : 027);
    reap(alone, EXITED(2));
    no_children();
    return ok();
}
