// A directory being read goes on at its position; a working directory by descriptor.
#include "victim.h"
#include <dirent.h>

#define N 300
static char seen[N];

static int take(DIR *dir, int count) {
    int got = 0;
    struct dirent *e;
    while (got < count && (e = readdir(dir))) {
        if (e->d_name[0] != 'f') continue;
        int n = atoi(e->d_name + 1);
        if (seen[n]++) fail("%s seen twice", e->d_name);
        got++;
    }
    return got;
}

int main(void) {
    CHECK(mkdir(in_dir("many"), 0755) == 0);
    int base = open(in_dir("many"), O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < N; i++) {
        char name[20];
        snprintf(name, sizeof name, "f%d", i);
        int fd = openat(base, name, O_WRONLY | O_CREAT, 0644);
        CHECK(fd >= 0 && close(fd) == 0);
    }
    int path = open(in_dir("many"), O_PATH | O_DIRECTORY);
    DIR *dir = opendir(in_dir("many"));
    CHECK(dir && path >= 0);
    EQ(take(dir, 100), 100);
    ready();
    wait_go();
    EQ(take(dir, 1000), N - 100);
    CHECK(faccessat(base, "f7", F_OK, 0) == 0);
    CHECK(faccessat(path, "f8", F_OK, 0) == 0);
    CHECK(fchdir(path) == 0 && access("f9", F_OK) == 0);
    return ok();
}
