// Open file descriptions that parent, child and grandchild have in common: one offset, one set of flags;
// and others that only look the same.
#include "tree.h"

static char text[27];

// Reads two letters, which must be these.
static void expect(int fd, const char *letters) {
    char got[3] = "";
    CHECK(read(fd, got, 2) == 2);
    if (strcmp(got, letters)) fail("read %s, expected %s", got, letters);
}

int main(void) {
    tree_begin();
    for (int i = 0; i < 26; i++) text[i] = (char)('a' + i);
    put("letters", text);
    put("log", "");
    int common = open(in_dir("letters"), O_RDONLY), log = open(in_dir("log"), O_WRONLY | O_APPEND);
    int alike = open(in_dir("letters"), O_RDONLY);
    CHECK(common >= 0 && alike >= 0 && log >= 0);
    expect(common, "ab");
    expect(alike, "ab");
    pid_t child = forked();
    if (child == 0) {
        // Other numbers in here; the same file opened once more, with the same offset.
        CHECK(dup2(common, 60) == 60);
        close(common);
        close(alike);
        int own = open(in_dir("letters"), O_RDONLY);
        CHECK(own >= 0);
        expect(own, "ab");
        pid_t below = forked();
        if (below == 0) {
            prepared();
            await_go();
            expect(60, "cd");
            expect(own, "cd");
            CHECK(write(log, "below ", 6) == 6);
            CHECK(fcntl(60, F_SETFL, O_NONBLOCK) == 0);
            CHECK(fcntl(60, F_SETFD, FD_CLOEXEC) == 0);
            _exit(2);
        }
        prepared();
        await_go();
        reap(below, EXITED(2));
        expect(60, "ef");
        expect(own, "ef");
        CHECK(write(log, "child ", 6) == 6);
        // File status flags are the description's, descriptor flags are not.
        CHECK(fcntl(60, F_GETFL) & O_NONBLOCK);
        EQ(fcntl(60, F_GETFD), 0);
        EQ(fcntl(own, F_GETFL) & O_NONBLOCK, 0);
        _exit(1);
    }
    wait_prepared(2);
    ready();
    wait_go();
    reap(child, EXITED(1));
    expect(common, "gh");
    expect(alike, "cd");
    CHECK(fcntl(common, F_GETFL) & O_NONBLOCK);
    CHECK(write(log, "root", 4) == 4);
    char said[40] = "";
    int fd = open(in_dir("log"), O_RDONLY);
    CHECK(read(fd, said, sizeof said) > 0);
    if (strcmp(said, "below child root")) fail("the log says %s", said);
    return ok();
}
