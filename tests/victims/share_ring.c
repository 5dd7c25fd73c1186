// A ring of processes and pipes in which a token is always on its way; pipes and a FIFO with contents; a
// writer and a reader that wait for each other across processes.
#include "tree.h"

#define RING 5
#define END UINT64_MAX
#define LOAD 40000

static int ring[RING][2];

// Passes on tokens until the end; says how many went by.
static uint64_t pass(int me, bool root) {
    uint64_t token, count = 0;
    int in = ring[me][0], out = ring[(me + 1) % RING][1];
    for (;;) {
        CHECK(read(in, &token, sizeof token) == sizeof token);
        if (token == END) break;
        // One token: each number is seen in exactly one place.
        EQ(token % RING, me);
        count++;
        if (root && access(in_dir("go"), F_OK) == 0) token = END;
        else token++;
        CHECK(write(out, &token, sizeof token) == sizeof token);
    }
    if (!root) CHECK(write(out, &token, sizeof token) == sizeof token);
    return count;
}

static void *pinger(void *arg) {
    wait_go();
    return arg;
}

int main(void) {
    tree_begin();
    int loaded[2], full[2], counts[2], fifo;
    CHECK(pipe(loaded) == 0 && pipe(full) == 0 && pipe(counts) == 0);
    CHECK(mkfifo(in_dir("fifo"), 0600) == 0);
    fifo = open(in_dir("fifo"), O_RDWR);
    CHECK(fifo >= 0 && write(fifo, "in the fifo", 11) == 11);
    for (int i = 0; i < RING; i++) CHECK(pipe(ring[i]) == 0);
    char *bytes = map(LOAD, PROT_READ | PROT_WRITE);
    fill(bytes, LOAD, 3);
    pid_t pids[RING];
    for (int i = 1; i < RING; i++) {
        pids[i] = forked();
        if (pids[i] == 0) {
            close(loaded[1]);
            prepared();
            uint64_t count = pass(i, false);
            CHECK(write(counts[1], &count, sizeof count) == sizeof count);
            _exit(i);
        }
    }
    pid_t writer = forked();
    if (writer == 0) {
        // Its first part is in the pipe when it ends up blocked in the second one.
        close(full[0]);
        CHECK(write(loaded[1], bytes, LOAD) == LOAD);
        close(loaded[1]);
        prepared();
        // A stop ends a write that has got some of its bytes into the pipe.
        for (int i = 0; i < 5; i++)
            for (ssize_t n, at = 0; at < LOAD; at += n) CHECK((n = write(full[1], bytes + at, LOAD - at)) > 0);
        _exit(20);
    }
    close(full[1]);
    close(loaded[1]);
    pid_t reader = forked();
    if (reader == 0) {
        close(full[0]);
        prepared();
        await_go();
        char text[20] = "";
        CHECK(read(fifo, text, sizeof text) == 11 && !strcmp(text, "in the fifo"));
        CHECK(write(fifo, "answer", 6) == 6);
        _exit(21);
    }
    wait_prepared(RING - 1 + 2);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, pinger, NULL) == 0);
    uint64_t token = 0, count;
    CHECK(write(ring[0][1], &token, sizeof token) == sizeof token);
    ready();
    count = pass(0, true);
    CHECK(pthread_join(thread, NULL) == 0);
    for (int i = 1; i < RING; i++) {
        uint64_t theirs;
        CHECK(read(counts[0], &theirs, sizeof theirs) == sizeof theirs);
        EQ(theirs, count - 1);
        reap(pids[i], EXITED(i));
    }
    char *got = map(LOAD, PROT_READ | PROT_WRITE);
    size_t n = 0;
    ssize_t r;
    while (n < LOAD && (r = read(loaded[0], got + n, LOAD - n)) > 0) n += r;
    EQ(n, LOAD);
    verify(got, LOAD, 3);
    // All write ends are closed.
    EQ(read(loaded[0], got, 1), 0);
    for (int i = 0; i < 5; i++) {
        for (n = 0; n < LOAD && (r = read(full[0], got + n, LOAD - n)) > 0;) n += r;
        EQ(n, LOAD);
        verify(got, LOAD, 3);
    }
    EQ(read(full[0], got, 1), 0);
    reap(writer, EXITED(20));
    reap(reader, EXITED(21));
    CHECK(read(fifo, got, 20) == 6 && !memcmp(got, "answer", 6));
    return ok();
}
