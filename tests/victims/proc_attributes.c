// What prctl, umask, rlimits and so on keep for the process.
#include "victim.h"
#include <sys/personality.h>

struct attributes {
    int pdeathsig, no_new_privs, dumpable, thp_disable, subreaper, keepcaps;
    long slack, personality;
    mode_t mask;
    struct rlimit limits[16];
    char cwd[PATH_MAX], root[PATH_MAX], oom[20];
};

static struct attributes before, after;

static void look(struct attributes *a) {
    memset(a, 0, sizeof *a);
    CHECK(prctl(PR_GET_PDEATHSIG, &a->pdeathsig) == 0);
    a->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    a->dumpable = prctl(PR_GET_DUMPABLE);
    a->thp_disable = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
    CHECK(prctl(PR_GET_CHILD_SUBREAPER, &a->subreaper) == 0);
    a->keepcaps = prctl(PR_GET_KEEPCAPS);
    a->slack = prctl(PR_GET_TIMERSLACK);
    a->personality = personality(0xffffffff);
    umask(a->mask = umask(0));
    for (int i = 0; i < 16; i++) CHECK(getrlimit(i, &a->limits[i]) == 0);
    CHECK(getcwd(a->cwd, sizeof a->cwd));
    CHECK(readlink("/proc/self/root", a->root, sizeof a->root - 1) > 0);
    int fd = open("/proc/self/oom_score_adj", O_RDONLY);
    CHECK(fd >= 0 && read(fd, a->oom, sizeof a->oom - 1) > 0);
    close(fd);
}

int main(void) {
    CHECK(prctl(PR_SET_PDEATHSIG, SIGWINCH) == 0);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_TIMERSLACK, 77777) == 0);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    umask(027);
    CHECK(mkdir(in_dir("elsewhere"), 0755) == 0 && chdir(in_dir("elsewhere")) == 0);
    struct rlimit few = {200, 300}, core = {12345, 123456}, stack = {16 << 20, RLIM_INFINITY};
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    CHECK(setrlimit(RLIMIT_CORE, &core) == 0);
    (void)setrlimit(RLIMIT_STACK, &stack);
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    CHECK(fd >= 0 && write(fd, "321", 3) == 3);
    close(fd);
    personality(ADDR_NO_RANDOMIZE);
    look(&before);
    ready();
    wait_go();
    look(&after);
    EQ(after.pdeathsig, before.pdeathsig);
    EQ(after.no_new_privs, before.no_new_privs);
    EQ(after.dumpable, before.dumpable);
    EQ(after.thp_disable, before.thp_disable);
    EQ(after.subreaper, before.subreaper);
    EQ(after.keepcaps, before.keepcaps);
    EQ(after.slack, before.slack);
    EQ(after.personality, before.personality);
    EQ(after.mask, before.mask);
    for (int i = 0; i < 16; i++)
        if (memcmp(&after.limits[i], &before.limits[i], sizeof after.limits[i]))
            fail("limit %d was %ld:%ld, is %ld:%ld", i, (long)before.limits[i].rlim_cur, (long)before.limits[i].rlim_max,
                 (long)after.limits[i].rlim_cur, (long)after.limits[i].rlim_max);
    if (strcmp(after.cwd, before.cwd)) fail("the directory was %s, is %s", before.cwd, after.cwd);
    EQ(strcmp(after.root, before.root), 0);
    if (strcmp(after.oom, before.oom)) fail("oom_score_adj was %s, is %s", before.oom, after.oom);
    return ok();
}
