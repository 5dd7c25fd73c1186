// Started by root, now a set-uid worker: ids, groups, capabilities, securebits, as status shows them.
#include "victim.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>

static char before[5000], after[5000];

static void look(char *to) {
    char line[500], path[60];
    // Of this thread and of another one.
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, i ? "/proc/thread-self/status" : "/proc/self/status");
        FILE *f = fopen(path, "r");
        CHECK(f);
        while (fgets(line, sizeof line, f))
            if (!strncmp(line, "Uid", 3) || !strncmp(line, "Gid", 3) || !strncmp(line, "Groups", 6) ||
                !strncmp(line, "Cap", 3) || !strncmp(line, "NoNewPrivs", 10))
                strcat(to, line);
        fclose(f);
    }
    snprintf(line, sizeof line, "securebits %d keepcaps %d\n", prctl(PR_GET_SECUREBITS), prctl(PR_GET_KEEPCAPS));
    strcat(to, line);
}

int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "plain";
    gid_t groups[] = {1000, 4, 24, 70000};
    CHECK(chown(in_dir("."), 1000, 1000) == 0);
    CHECK(setgroups(4, groups) == 0);
    bool caps = !strcmp(kind, "caps");
    if (caps) CHECK(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS) == 0);
    if (!strcmp(kind, "mixed")) {
        // Real, effective and saved all different; file-system too.
        CHECK(setresgid(1001, 1002, 1003) == 0);
        CHECK(setresuid(1001, 1000, 0) == 0);
    } else {
        CHECK(setresgid(1000, 1000, 1000) == 0);
        CHECK(setresuid(1000, 1000, 1000) == 0);
    }
    if (caps) {
        struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
        uint32_t keep = 1u << CAP_NET_BIND_SERVICE | 1u << CAP_KILL | 1u << CAP_SETPCAP;
        struct __user_cap_data_struct data[2] = {{keep, keep, 1u << CAP_KILL}, {0, 0, 0}};
        CHECK(syscall(SYS_capset, &header, data) == 0);
        CHECK(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0) == 0);
        CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) == 0);
    }
    look(before);
    ready();
    wait_go();
    look(after);
    if (strcmp(before, after)) fail("credentials were:\n%sare:\n%s", before, after);
    CHECK(before[0]);
    return ok();
}
