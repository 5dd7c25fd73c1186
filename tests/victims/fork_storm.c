// fork_storm WORKERS TOKENS: processes that fork and end all the time. Tokens wander: from a pipe into the memory
// of a process, by fork into that of its child, and back into the pipe. None may be lost, none may be double.
//
// Not faster than the machine's process ids last: other tests want theirs back.
#include "tree.h"
#include <linux/futex.h>

struct token {
    uint32_t serial, hops;
};

static int pool[2];
static pid_t root;
static time_t end;
static char go[PATH_MAX];

// One life: takes a token, gives life to the next one, which puts it back. The parent is gone before or after.
static void live(uint64_t random) {
    for (;;) {
        struct token token;
        random = mix(random);
        CHECK(read(pool[0], &token, sizeof token) == sizeof token);
        bool last = access(go, F_OK) == 0;
        // Without its root it would go on for ever.
        if (kill(root, 0) != 0 || time(NULL) > end) _exit(1);
        if (!last && random % 8 == 0) {
            // A child that ends at once, and that nobody but its grandparent or the root waits for.
            pid_t short_lived = forked();
            if (short_lived == 0) _exit(0);
            if (random & 256) waitpid(short_lived, NULL, 0);
        }
        if (!last) {
            pid_t child = forked();
            if (child) _exit(0);
        }
        token.hops++;
        if (random & 512) {
            struct timespec t = {0, random % 3000000};
            nanosleep(&t, NULL);
        }
        CHECK(write(pool[1], &token, sizeof token) == sizeof token);
        if (last) _exit(0);
        struct timespec t = {0, 15000000};
        nanosleep(&t, NULL);
    }
}

static void *reaps(void *arg) {
    // All are the root's in the end.
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) {
    }
    EQ(errno, ECHILD);
    return arg;
}

int main(int argc, char **argv) {
    CHECK(argc > 2);
    int workers = atoi(argv[1]), tokens = atoi(argv[2]);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    snprintf(go, sizeof go, "%s", in_dir("go"));
    root = getpid();
    end = time(NULL) + 90;
    CHECK(pipe(pool) == 0 && tokens <= 256);
    for (int i = 0; i < tokens; i++) {
        struct token token = {i, 0};
        CHECK(write(pool[1], &token, sizeof token) == sizeof token);
    }
    for (int i = 0; i < workers; i++)
        if (forked() == 0) live(i);
    pthread_t reaper;
    CHECK(pthread_create(&reaper, NULL, reaps, NULL) == 0);
    ready();
    wait_go();
    CHECK(pthread_join(reaper, NULL) == 0);
    CHECK(fcntl(pool[0], F_SETFL, O_NONBLOCK) == 0);
    uint32_t seen[256] = {0}, hops = 0;
    struct token token;
    for (int i = 0; i < tokens; i++) {
        if (read(pool[0], &token, sizeof token) != sizeof token) fail("%d of %d tokens are lost", tokens - i, tokens);
        if (seen[token.serial]++) fail("token %u is there twice", token.serial);
        hops += token.hops;
    }
    EQ(read(pool[0], &token, sizeof token), -1);
    CHECK(hops > 0);
    return ok();
}
