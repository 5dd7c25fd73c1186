// sandbox KIND: what restricts or belongs to a process and cannot be asked for.
#include "victim.h"
#include <linux/landlock.h>

#define KEYCTL_JOIN_SESSION_KEYRING 1
#define KEY_SPEC_PROCESS_KEYRING (-2)

static void landlock(void) {
    struct landlock_ruleset_attr attr = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_DIR};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
    if (ruleset < 0) skip("no Landlock here: %s", strerror(errno));
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(syscall(SYS_landlock_restrict_self, ruleset, 0) == 0 && close(ruleset) == 0);
    CHECK(mkdir(in_dir("new"), 0700) == -1 && errno == EACCES);
}

static void keyring(void) {
    if (syscall(SYS_add_key, "user", "ckpt-test", "secret", 6, KEY_SPEC_PROCESS_KEYRING) < 0)
        skip("no keyrings here: %s", strerror(errno));
}

static void session(void) {
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0) skip("no keyrings here: %s", strerror(errno));
}

int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "";
    if (!strcmp(kind, "landlock")) landlock();
    else if (!strcmp(kind, "keyring")) keyring();
    else if (!strcmp(kind, "session")) session();
    else fail("sandbox KIND");
    ready();
    wait_go();
    return ok();
}
