// tree_deep N: a chain of N processes below the root, each the parent of the next one.
// tree_deep N wide: N children of one root.
#include "tree.h"

int main(int argc, char **argv) {
    CHECK(argc > 1);
    int count = atoi(argv[1]), depth = 0;
    bool wide = argc > 2;
    pid_t below[1000];
    CHECK(count < 1000);
    tree_begin();
    uint64_t *memory = map(2 * PAGE, PROT_READ | PROT_WRITE);
    for (int i = 0; i < count; i++) {
        below[i] = forked();
        if (below[i] == 0) {
            depth = i + 1;
            if (wide) break;
        } else if (!wide) {
            break;
        }
    }
    bool leaf = wide ? depth > 0 : depth == count;
    struct ids before = ids();
    fill(memory, 2 * PAGE, depth);
    if (depth == 0) {
        wait_prepared(count);
        ready();
        wait_go();
    } else {
        prepared();
        await_go();
    }
    same_ids(before);
    verify(memory, 2 * PAGE, depth);
    if (wide && depth == 0) {
        for (int i = 0; i < count; i++) reap(below[i], EXITED((i + 1) & 0x7f));
    } else if (!leaf) {
        reap(below[depth], EXITED((depth + 1) & 0x7f));
    }
    no_children();
    return depth == 0 ? ok() : depth & 0x7f;
}
