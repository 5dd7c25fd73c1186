// Children whose standard descriptors are the root's: what they say after the dump comes out at the
// caller's, what they read comes from there. One has a standard input of its own, /dev/null.
#include "tree.h"

static pid_t child(int n) {
    pid_t pid = fork();
    if (pid) return pid;
    int null = -1;
    if (n == 1) {
        CHECK((null = open("/dev/null", O_RDONLY)) >= 0 && dup2(null, 0) == 0);
        close(null);
    }
    prepared();
    await_go();
    char c;
    if (n == 1) EQ(read(0, &c, 1), 0);
    if (n == 0) {
        EQ(read(0, &c, 1), 1);
        CHECK(dprintf(1, "got %c\n", c) > 0);
    }
    CHECK(dprintf(1, "child %d\n", n) > 0 && dprintf(2, "child %d on standard error\n", n) > 0);
    _exit(0);
}

int main(void) {
    tree_begin();
    pid_t first = child(0), second = child(1);
    wait_prepared(2);
    ready();
    wait_go();
    reap(first, 0);
    reap(second, 0);
    CHECK(dprintf(1, "root\n") > 0);
    return ok();
}
