// Children with other credentials than their parent (needs root): ids, groups, capabilities, no_new_privs,
// and what these allow.
#include "tree.h"
#include <grp.h>
#include <linux/capability.h>

static uint64_t effective(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    CHECK(syscall(SYS_capget, &header, data) == 0);
    return data[0].effective | (uint64_t)data[1].effective << 32;
}

static pid_t other_user(pid_t root) {
    pid_t pid = forked();
    if (pid) return pid;
    gid_t groups[] = {7, 2000, 3000};
    CHECK(setgroups(3, groups) == 0 && setresgid(1001, 1002, 1003) == 0 && setresuid(1001, 1002, 1003) == 0);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    prepared();
    await_go();
    uid_t r, e, s;
    gid_t now[10];
    CHECK(getresuid(&r, &e, &s) == 0);
    EQ(r, 1001); EQ(e, 1002); EQ(s, 1003);
    CHECK(getresgid(&r, &e, &s) == 0);
    EQ(r, 1001); EQ(e, 1002); EQ(s, 1003);
    EQ(getgroups(10, now), 3);
    EQ(now[0], 7); EQ(now[1], 2000); EQ(now[2], 3000);
    EQ(effective(), 0);
    EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
    EQ(kill(root, 0), -1);
    EQ(errno, EPERM);
    _exit(11);
}

static pid_t fewer_capabilities(void) {
    pid_t pid = forked();
    if (pid) return pid;
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}};
    CHECK(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0) == 0);
    data[0].effective = 1u << CAP_KILL;
    data[0].permitted = data[0].effective | 1u << CAP_CHOWN;
    CHECK(syscall(SYS_capset, &header, data) == 0);
    prepared();
    await_go();
    EQ(effective(), 1u << CAP_KILL);
    EQ(prctl(PR_CAPBSET_READ, CAP_SYS_TIME, 0, 0, 0), 0);
    EQ(prctl(PR_CAPBSET_READ, CAP_SYS_BOOT, 0, 0, 0), 1);
    EQ(getuid(), 0);
    _exit(12);
}

// A child of a child that has given up its rights.
static pid_t nested(void) {
    pid_t pid = forked();
    if (pid) return pid;
    CHECK(setgroups(0, NULL) == 0 && setresgid(1005, 1005, 1005) == 0 && setresuid(1005, 1005, 1005) == 0);
    pid_t below = forked();
    if (below == 0) {
        prepared();
        await_go();
        EQ(getuid(), 1005); EQ(getegid(), 1005); EQ(getgroups(0, NULL), 0);
        _exit(14);
    }
    prepared();
    await_go();
    EQ(geteuid(), 1005);
    reap(below, EXITED(14));
    _exit(13);
}

int main(void) {
    tree_begin();
    if (geteuid() != 0) skip("needs root");
    // Descendants of other users answer in this directory, too.
    CHECK(chmod(getenv("CKPT_DIR"), 0777) == 0);
    pid_t one = other_user(getpid()), two = fewer_capabilities(), three = nested();
    uint64_t before = effective();
    wait_prepared(4);
    ready();
    wait_go();
    EQ(getuid(), 0);
    EQ(effective(), before);
    EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
    reap(one, EXITED(11));
    reap(two, EXITED(12));
    reap(three, EXITED(13));
    no_children();
    return ok();
}
