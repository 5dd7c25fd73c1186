// Orphans below a subreaper inside the tree: adopted before the dump, and after it.
#include "tree.h"

static pid_t orphan_of(pid_t *middle, bool now, int code) {
    // The ids go through a pipe, as the middle one ends.
    int pair[2];
    pid_t orphan = 0;
    CHECK(pipe(pair) == 0);
    *middle = forked();
    if (*middle == 0) {
        pid_t reaper = getppid(), self = getpid();
        orphan = forked();
        if (orphan == 0) {
            close(pair[0]);
            close(pair[1]);
            if (now) UNTIL(getppid() != self);
            EQ(getppid(), now ? reaper : self);
            prepared();
            await_go();
            if (!now) UNTIL(getppid() != self);
            EQ(getppid(), reaper);
            _exit(code);
        }
        CHECK(write(pair[1], &orphan, sizeof orphan) == sizeof orphan);
        close(pair[0]);
        close(pair[1]);
        if (now) _exit(1);
        prepared();
        await_go();
        _exit(2);
    }
    CHECK(read(pair[0], &orphan, sizeof orphan) == sizeof orphan);
    close(pair[0]);
    close(pair[1]);
    if (now) reap(*middle, EXITED(1));
    return orphan;
}

static void adopts(int descendants, int flag) {
    pid_t gone, later;
    int value = 0;
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    pid_t first = orphan_of(&gone, true, 30), second = orphan_of(&later, false, 31);
    pid_t child = 0;
    if (flag) {
        child = forked();
        if (child == 0) {
            adopts(0, 0);
            _exit(12);
        }
        wait_prepared(descendants);
        ready();
        wait_go();
        reap(child, EXITED(12));
    } else {
        prepared();
        await_go();
    }
    CHECK(prctl(PR_GET_CHILD_SUBREAPER, &value) == 0);
    EQ(value, 1);
    reap(first, EXITED(30));
    reap(later, EXITED(2));
    reap(second, EXITED(31));
    no_children();
}

int main(void) {
    tree_begin();
    // Not inherited: the child becomes one itself, and its orphans are its own.
    adopts(7, 1);
    return ok();
}
