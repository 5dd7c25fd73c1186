// cmdline, environ, auxv, comm, exe, and what stat tells of the layout.
#include "victim.h"

static const char *const FILES[] = {"cmdline", "environ", "auxv", "comm"};
static char before[4][1 << 16], after[1 << 16];
static size_t lengths[4];
static char layout_before[400], layout_after[400], exe_before[PATH_MAX], exe_after[PATH_MAX];

static size_t slurp(const char *name, char *to) {
    char path[100];
    snprintf(path, sizeof path, "/proc/self/%s", name);
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    size_t len = 0;
    for (ssize_t n; (n = read(fd, to + len, (1 << 16) - len)) > 0;) len += (size_t)n;
    close(fd);
    return len;
}

// Fields 26-28 (code, stack) and 45-51 (data, brk, arg, env) of stat.
static void layout(char *to) {
    static char stat[4000];
    stat[slurp("stat", stat)] = 0;
    int field = 2;
    char *out = to;
    for (char *word = strtok(strrchr(stat, ')') + 1, " \n"); word; word = strtok(NULL, " \n")) {
        field++;
        if ((field >= 26 && field <= 28) || (field >= 45 && field <= 51)) out += sprintf(out, "%d:%s ", field, word);
    }
}

int main(int argc, char **argv) {
    CHECK(argc > 2);
    CHECK(setenv("ADDED", "by the victim", 1) == 0);
    CHECK(prctl(PR_SET_NAME, "renamed victim") == 0);
    strcpy(argv[1], "XX"); // the arguments are the process's own to write
    for (int i = 0; i < 4; i++) lengths[i] = slurp(FILES[i], before[i]);
    layout(layout_before);
    CHECK(readlink("/proc/self/exe", exe_before, PATH_MAX - 1) > 0);
    ready();
    wait_go();
    for (int i = 0; i < 4; i++) {
        size_t len = slurp(FILES[i], after);
        if (len != lengths[i] || memcmp(after, before[i], len)) {
            fprintf(stderr, "before: %.200s\nafter: %.200s\n", before[i], after);
            fail("/proc/self/%s differs: %zu bytes, %zu before", FILES[i], len, lengths[i]);
        }
    }
    layout(layout_after);
    if (strcmp(layout_before, layout_after)) fail("stat was %s, is %s", layout_before, layout_after);
    // The exe link needs a privilege.
    if (geteuid() == 0) {
        CHECK(readlink("/proc/self/exe", exe_after, PATH_MAX - 1) > 0);
        if (strcmp(exe_before, exe_after)) fail("exe was %s, is %s", exe_before, exe_after);
    }
    EQ(strcmp(getenv("ADDED"), "by the victim"), 0);
    return ok();
}
